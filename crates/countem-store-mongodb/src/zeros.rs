//! Removal of counters whose value is zero.
//!
//! A field goes while it is zero, in one step with looking at it, so that no sum ever changes. A counter whose parts lie in
//! several documents, because one of them was split, and add up to zero, goes in one transaction. On a standalone server, which has
//! none, it stays.

use std::collections::{BTreeMap, BTreeSet};

use countem_core::{Bucket, CollectionName, MetricName, Period};
use countem_store::StoreError;
use mongodb::bson::{RawDocument, RawDocumentBuf, raw::CString, rawdoc};

use crate::{
    command::{self, Level},
    connection::Connection,
    document::{COUNTERS, DocumentId, bucket_id_len, counters_of, id_bounds, pattern, value_of},
    error::without_effect,
    names::{counter_path, decode_metric, mongo_collection},
};

mod spread;

/// Maximum number of fields that one update removes. If one of them is counted in meanwhile, none of them goes, and all are looked at
/// again.
const MAX_FIELDS: usize = 100;
/// Maximum number of looks at counters that are counted in meanwhile.
const MAX_LOOKS: usize = 5;
/// Maximum number of metrics that are named in a query; otherwise whole documents are read.
const MAX_NAMED: usize = 50;

/// The metrics to look at, by bucket of one period.
type Wanted<'a> = BTreeMap<Bucket, BTreeSet<&'a str>>;

/// State of the counters that are looked at.
#[derive(Default)]
struct Seen {
    /// Updates that remove what is zero, each with its number of fields.
    updates: Vec<(usize, RawDocumentBuf)>,
    /// Number of documents that hold another part of the counters.
    others: BTreeMap<Bucket, usize>,
}

/// Removes those of `counters` that are zero, and returns how many fields went.
pub(crate) async fn remove(
    connection: &Connection,
    collection: &CollectionName,
    counters: &[(Bucket, MetricName)],
) -> Result<usize, StoreError> {
    let stored_in = mongo_collection(collection.as_str());
    let mut by_period = BTreeMap::<Period, Wanted<'_>>::new();
    for (bucket, metric) in counters {
        let wanted = by_period.entry(bucket.period()).or_default();
        wanted.entry(*bucket).or_default().insert(metric.as_str());
    }
    let mut removed = 0;
    for wanted in by_period.values() {
        for _ in 0..MAX_LOOKS {
            let Seen { updates, others } = look(connection, &stored_in, wanted).await?;
            if updates.is_empty() {
                for bucket in others.iter().filter(|(_, documents)| **documents > 1).map(|(bucket, _)| bucket)
                {
                    removed += spread::remove(connection, &stored_in, *bucket, &wanted[bucket]).await?;
                }
                break;
            }
            let fields: usize = updates.iter().map(|(fields, _)| fields).sum();
            let (count, sent) = (updates.len(), updates.into_iter().map(|(_, update)| update));
            let met = command::write_all(connection, "remove zeros from", &stored_in, sent).await?;
            // Exact where all were met.
            removed += if met == count { fields } else { met };
        }
    }
    Ok(removed)
}

/// Looks at the counters in all documents of their buckets.
async fn look(connection: &Connection, stored_in: &str, wanted: &Wanted<'_>) -> Result<Seen, StoreError> {
    let mut seen = Seen::default();
    let (Some((first, _)), Some((last, _))) = (wanted.first_key_value(), wanted.last_key_value()) else {
        return Ok(seen);
    };
    let (from, to) = id_bounds(*first, *last);
    let of_period = pattern(&format!("^.{{{}}}/", bucket_id_len(first.period())));
    let filter = rawdoc! { "_id": { "$gte": from, "$lt": to, "$regex": of_period } };
    let mut projection = rawdoc! {};
    let metrics: BTreeSet<&str> = wanted.values().flatten().copied().collect();
    if metrics.len() <= MAX_NAMED {
        metrics.iter().for_each(|metric| projection.append(counter_path(metric), 1));
    } else {
        projection.append(COUNTERS, 1);
    }
    let find = command::find(connection, stored_in, Level::Local, filter, projection);
    command::read(connection, stored_in, find, |document| {
        let Some(id) = DocumentId::of(document) else { return Ok(()) };
        let Some(metrics) = wanted.get(&id.bucket) else { return Ok(()) };
        // What is damaged is left to readers, who name it.
        let Ok(fields) = fields_of(document, metrics) else { return Ok(()) };
        let (zeros, others): (Vec<_>, Vec<_>) = fields.partition(|(_, value)| *value == Some(0));
        let zeros: Vec<CString> = zeros.into_iter().filter_map(|(name, _)| path_of(name)).collect();
        let id_text = id.to_string();
        let updates = zeros.chunks(MAX_FIELDS).map(|fields| (fields.len(), update(&id_text, fields)));
        seen.updates.extend(updates);
        *seen.others.entry(id.bucket).or_default() += usize::from(!others.is_empty());
        Ok(())
    })
    .await
    .map_err(without_effect)?;
    Ok(seen)
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
