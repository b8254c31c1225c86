//! Removal of counters whose parts in several documents add up to zero, in one transaction.
//!
//! Documents are read one after another, so a read could meet one part before the transaction and miss the other after it. A
//! [compaction](crate::compaction) has the same trouble, and this has its remedy: the root and the documents that lose a part get a higher
//! number ([`COMPACTED`]).

use std::collections::{BTreeMap, BTreeSet};

use countem_core::Bucket;
use countem_store::StoreError;
use mongodb::bson::{DateTime, RawArrayBuf, RawDocument, RawDocumentBuf, raw::cstr, rawdoc};

use super::{MAX_FIELDS, MAX_LOOKS, fields_of, path_of};
use crate::{
    command::{self, Level, action},
    compaction::{next_number, run_transaction, transactional_server_time},
    connection::Connection,
    document::{COMPACTED, COUNTERS, DocumentId, SPLIT, counters_of, id_bounds, value_of},
    error::without_effect,
    partition::Partition,
};

/// Sums over documents, by encoded metric; `None` for a sum that is not known.
type Sums = BTreeMap<String, Option<i64>>;

/// Removes those of `metrics` that add up to zero, and returns how many.
pub(super) async fn remove(
    connection: &Connection,
    stored_in: &str,
    bucket: Bucket,
    metrics: &BTreeSet<&str>,
) -> Result<usize, StoreError> {
    let (from, to) = id_bounds(bucket, bucket);
    let ids = rawdoc! { "_id": { "$gte": from, "$lt": to } };
    let find = command::find(connection, stored_in, Level::Local, ids.clone(), rawdoc! { COUNTERS: 1 });
    let mut sums = Some(Sums::new());
    command::read(connection, stored_in, find, |document| {
        let parts = fields_of(document, metrics);
        sums = sums.take().and_then(|sums| add(sums, parts));
        Ok(())
    })
    .await
    .map_err(without_effect)?;
    let zeros: Vec<_> = zeros(sums.unwrap_or_default()).into_iter().collect();
    if zeros.is_empty() {
        return Ok(0);
    }
    let Some(server) = transactional_server_time(connection).await? else { return Ok(0) };
    let clock = server.max(DateTime::now());
    let mut removed = 0;
    for names in zeros.chunks(MAX_FIELDS) {
        let names: BTreeSet<String> = names.iter().cloned().collect();
        let paths = || names.iter().filter_map(|name| path_of(name));
        let mut filter = ids.clone();
        let concerned = paths().map(|path| rawdoc! { path: { "$exists": true } });
        let roots = [rawdoc! { SPLIT: { "$exists": true } }];
        filter.append(cstr!("$or"), concerned.chain(roots).collect::<RawArrayBuf>());
        let mut projection: RawDocumentBuf = paths().map(|path| (path, 1)).collect();
        projection.append(COMPACTED, 1);
        for _ in 0..MAX_LOOKS {
            let find = rawdoc! {
                "find": stored_in,
                "filter": filter.clone(),
                "projection": projection.clone(),
                "sort": { "_id": 1 },
                "batchSize": i32::MAX,
            };
            let plan = {
                let names = names.clone();
                move |documents: &[RawDocumentBuf]| updates(documents, &names, clock)
            };
            let done = run_transaction(connection, stored_in, find, plan).await;
            let action = action("remove zeros from", stored_in);
            if let Some(count) =
                done.map_err(|failure| without_effect(connection.explain(&action, failure)))?
            {
                removed += count;
                break;
            }
        }
    }
    Ok(removed)
}

/// Adds the parts of a document, `None` if nothing is known of its counters.
fn add<'a>(
    mut sums: Sums,
    parts: Result<impl Iterator<Item = (&'a str, Option<i64>)>, String>,
) -> Option<Sums> {
    for (name, part) in parts.ok()? {
        let sum = sums.entry(name.to_owned()).or_insert(Some(0));
        *sum = sum.zip(part).and_then(|(sum, part)| sum.checked_add(part));
    }
    Some(sums)
}

fn zeros(sums: Sums) -> BTreeSet<String> {
    sums.into_iter().filter(|(_, sum)| *sum == Some(0)).map(|(name, _)| name).collect()
}

/// Returns the updates that remove those of the counters `names` that add up to zero, and how many these are.
fn updates(
    documents: &[RawDocumentBuf],
    names: &BTreeSet<String>,
    clock: DateTime,
) -> (Vec<RawDocumentBuf>, usize) {
    let sums = documents.iter().try_fold(Sums::new(), |sums, document| add(sums, parts(document, names)));
    let zeros = zeros(sums.unwrap_or_default());
    let has_root = documents.first().and_then(|root| DocumentId::of(root)).is_some_and(is_root);
    if zeros.is_empty() || !has_root {
        return (Vec::new(), 0);
    }
    let number = next_number(documents.iter().map(|document| &**document), clock);
    let update = |document: &RawDocumentBuf| {
        let here = parts(document, &zeros).ok()?;
        let unset: RawDocumentBuf = here.filter_map(|(name, _)| Some((path_of(name)?, true))).collect();
        let mut change = rawdoc! { "$set": { COMPACTED: number } };
        if !unset.is_empty() {
            change.append(cstr!("$unset"), unset);
        } else if !DocumentId::of(document).is_some_and(is_root) {
            return None;
        }
        Some(rawdoc! { "q": { "_id": document.get_str("_id").ok()? }, "u": change })
    };
    (documents.iter().filter_map(update).collect(), zeros.len())
}

fn is_root(id: DocumentId) -> bool {
    id.partition == Partition::ROOT
}

/// Lists those of the counters `names` that a document has.
fn parts<'a>(
    document: &'a RawDocument,
    names: &BTreeSet<String>,
) -> Result<impl Iterator<Item = (&'a str, Option<i64>)>, String> {
    let counters = counters_of(document)?.into_iter().flatten();
    let fields = counters.filter_map(Result::ok);
    let named = fields.filter(|(name, _)| names.contains(name.as_str()));
    Ok(named.map(|(name, value)| (name.as_str(), value_of(value).ok())))
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Document, doc};

    use super::*;

    #[test]
    fn only_what_adds_up_to_zero_goes() {
        let documents = [
            rawdoc! { "_id": "2026-11-20/1", "c": { "a": 5, "b": 1, "other": 1 }, "compacted": 9_i64 },
            rawdoc! { "_id": "2026-11-20/2", "c": { "a": -5_i64, "b": 1, "d": "x" } },
            rawdoc! { "_id": "2026-11-20/3", "c": { "b": 1, "d": 0 } },
        ];
        let names = ["a", "b", "d"].map(str::to_owned).into();
        let (found, count) = updates(&documents, &names, DateTime::from_millis(7));
        let found: Vec<_> = found.iter().map(|update| Document::try_from(update).unwrap()).collect();
        let change = |id: &str| {
            doc! { "q": { "_id": id }, "u": { "$set": { "compacted": 10_i64 }, "$unset": { "c.a": true } } }
        };
        assert_eq!((found, count), (vec![change("2026-11-20/1"), change("2026-11-20/2")], 1));
        assert!(updates(&documents[1..], &names, DateTime::from_millis(7)).0.is_empty(), "there is no root");
        let damaged = [documents[0].clone(), rawdoc! { "_id": "2026-11-20/2", "c": 5 }];
        assert!(updates(&damaged, &names, DateTime::from_millis(7)).0.is_empty());
        let rootless = [
            rawdoc! { "_id": "2026-11-20/1", "c": {} },
            rawdoc! { "_id": "2026-11-20/2", "c": { "a": 1 } },
            rawdoc! { "_id": "2026-11-20/3", "c": { "a": -1 } },
        ];
        let (found, _) = updates(&rootless, &names, DateTime::from_millis(7));
        assert_eq!(found.len(), 3, "the root has to show the number");
    }
}
