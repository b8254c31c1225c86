//! Removal of counters whose value is zero.
//!
//! A field goes while it is zero, in one step with looking at it, so that no sum ever changes. A counter whose parts lie in
//! several documents, because one of them was split, and add up to zero, goes in one transaction. On a standalone server, which has
//! none, it stays.

use std::collections::{BTreeMap, BTreeSet};

use countem_core::{Bucket, CollectionName, MetricName};
use countem_store::StoreError;
use mongodb::bson::{RawDocument, RawDocumentBuf, raw::CString, rawdoc};

use crate::{
    command::{self, Level},
    connection::Connection,
    document::{COUNTERS, counters_of, id_bounds, value_of},
    error::without_effect,
    names::{counter_path, decode_metric, mongo_collection},
};

mod spread;

/// Maximum number of fields that one update removes. If one of them is counted in meanwhile, none of them goes, and all are looked at
/// again.
const MAX_FIELDS: usize = 100;
/// Maximum number of looks at a bucket whose zeros are counted in meanwhile.
const MAX_LOOKS: usize = 5;

/// Removes those of `counters` that are zero, and returns how many fields went.
pub(crate) async fn remove(
    connection: &Connection,
    collection: &CollectionName,
    counters: &[(Bucket, MetricName)],
) -> Result<usize, StoreError> {
    let stored_in = mongo_collection(collection.as_str());
    let mut by_bucket = BTreeMap::<Bucket, BTreeSet<&str>>::new();
    for (bucket, metric) in counters {
        by_bucket.entry(*bucket).or_default().insert(metric.as_str());
    }
    let mut removed = 0;
    for (bucket, metrics) in by_bucket {
        for _ in 0..MAX_LOOKS {
            let (updates, is_spread) = updates(connection, &stored_in, bucket, &metrics).await?;
            if updates.is_empty() {
                if is_spread {
                    removed += spread::remove(connection, &stored_in, bucket, &metrics).await?;
                }
                break;
            }
            for (fields, update) in updates {
                let met = command::write_all(connection, "remove zeros from", &stored_in, [update]).await?;
                removed += met * fields;
            }
        }
    }
    Ok(removed)
}

/// Returns the updates that remove what is zero now, each with its number of fields; true if the bucket has several documents.
async fn updates(
    connection: &Connection,
    stored_in: &str,
    bucket: Bucket,
    metrics: &BTreeSet<&str>,
) -> Result<(Vec<(usize, RawDocumentBuf)>, bool), StoreError> {
    let (from, to) = id_bounds(bucket, bucket);
    let filter = rawdoc! { "_id": { "$gte": from, "$lt": to } };
    let mut projection = rawdoc! {};
    match metrics.first() {
        Some(only) if metrics.len() == 1 => projection.append(counter_path(only), 1),
        _ => projection.append(COUNTERS, 1),
    }
    let find = command::find(connection, stored_in, Level::Local, filter, projection);
    let (mut updates, mut documents) = (Vec::new(), 0);
    command::read(connection, stored_in, find, |document| {
        documents += 1;
        let Ok(id) = document.get_str("_id") else { return Ok(()) };
        // What is damaged is left to readers, who name it.
        let Ok(fields) = fields_of(document, metrics) else { return Ok(()) };
        let zeros = fields.filter(|(_, value)| *value == Some(0)).filter_map(|(name, _)| path_of(name));
        let zeros: Vec<CString> = zeros.collect();
        updates.extend(zeros.chunks(MAX_FIELDS).map(|fields| (fields.len(), update(id, fields))));
        Ok(())
    })
    .await
    .map_err(without_effect)?;
    Ok((updates, documents > 1))
}

/// Lists those of the counters `metrics` that a document has, by the encoded metric. A value that is damaged is `None`.
fn fields_of<'a>(
    document: &'a RawDocument,
    metrics: &BTreeSet<&str>,
) -> Result<impl Iterator<Item = (&'a str, Option<i64>)>, String> {
    let fields = counters_of(document)?.into_iter().flatten().filter_map(Result::ok);
    let named = fields.filter(|(name, _)| {
        let metric = decode_metric(name.as_str());
        // A field that only a person can have made has another path.
        metrics.contains(&*metric)
            && counter_path(&metric).as_str()[COUNTERS.as_str().len() + 1..] == *name.as_str()
    });
    Ok(named.map(|(name, value)| (name.as_str(), value_of(value).ok())))
}

/// Returns the path of the counter with this encoded metric.
fn path_of(name: &str) -> Option<CString> {
    CString::try_from(format!("{COUNTERS}.{name}")).ok()
}

/// Returns the update that removes `fields` from a document while all of them are zero.
fn update(id: &str, fields: &[CString]) -> RawDocumentBuf {
    let (mut query, mut unset) = (rawdoc! { "_id": id }, rawdoc! {});
    for field in fields {
        // An array is equal to each of its values, and so is a decimal.
        query.append(
            field,
            rawdoc! { "$eq": 0, "$type": ["int", "long", "double"], "$not": { "$type": "array" } },
        );
        unset.append(field, true);
    }
    rawdoc! { "q": query, "u": { "$unset": unset } }
}
