//! The updates that compact the documents of a bucket.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{
    RawDocument, RawDocumentBuf,
    raw::{CStr, CString, cstr},
    rawdoc,
};

use super::{EMPTY, MAX_DOCUMENT};
use crate::{
    document::{
        COMPACTED, COUNTERS, DocumentId, HELD, QUARANTINED, SPLIT, WATERMARKS, counters_of, value_of,
    },
    names::path,
    partition::Partition,
};

/// Largest sum that moves: a count of the same size can still be added in an empty child.
const MAX_SUM: i64 = i64::MAX / 2;

/// Returns the updates of all `documents` of a bucket, in the order of their ids, that change. Their counters stay where they are
/// unless `moves` is set and they can be read; traces of forgotten writers go in any case.
pub(super) fn updates(
    documents: &[RawDocumentBuf],
    moves: bool,
    number: i64,
    is_forgotten: impl Fn(&str) -> bool,
) -> Vec<RawDocumentBuf> {
    let sums = if moves { sums(documents) } else { None };
    let update = |(at, document): (usize, &RawDocumentBuf)| {
        let mut set = RawDocumentBuf::new();
        match &sums {
            Some(sums) if at == 0 => {
                set.append(COUNTERS, sums.clone());
                set.append(COMPACTED, number);
            }
            Some(_) if has_counters(document) => {
                set.append(COUNTERS, rawdoc! {});
                set.append(COMPACTED, number);
            }
            _ => {}
        }
        let mut unset = RawDocumentBuf::new();
        for writer in writers_in(document).iter().filter(|writer| is_forgotten(writer)) {
            unset.append(path(WATERMARKS, writer), true);
            unset.append(path(QUARANTINED, writer), true);
        }
        let mut change = RawDocumentBuf::new();
        for (operator, fields) in [(cstr!("$set"), set), (cstr!("$unset"), unset)] {
            if !fields.is_empty() {
                change.append(operator, fields);
            }
        }
        let id = document.get_str("_id").ok()?;
        (!change.is_empty()).then(|| rawdoc! { "q": { "_id": id }, "u": change })
    };
    documents.iter().enumerate().filter_map(update).collect()
}

/// Lists the writers of which a document has a trace.
pub(super) fn writers_in(document: &RawDocument) -> BTreeSet<String> {
    let fields = |field: &CStr| document.get_document(field).ok().into_iter().flatten();
    let both = fields(WATERMARKS).chain(fields(QUARANTINED));
    both.filter_map(|field| Some(field.ok()?.0.as_str().to_owned())).collect()
}

fn has_counters(document: &RawDocument) -> bool {
    counters_of(document).is_ok_and(|counters| counters.is_some_and(|found| found.as_bytes().len() > EMPTY))
}

/// Returns the sums over all documents, `None` where they have to stay as they are.
fn sums(documents: &[RawDocumentBuf]) -> Option<RawDocumentBuf> {
    let (root, children) = documents.split_first()?;
    let is_root = DocumentId::of(root)?.partition == Partition::ROOT;
    if !is_root || root.get(SPLIT).ok()?.is_none() || !children.iter().any(|child| has_counters(child)) {
        return None;
    }
    let mut sums = BTreeMap::<String, i64>::new();
    for document in documents {
        if document.get(HELD).ok()?.is_some() {
            return None;
        }
        for field in counters_of(document).ok()?.into_iter().flatten() {
            let (name, value) = field.ok()?;
            let value = value_of(value).ok()?;
            let sum = sums.entry(name.as_str().to_owned()).or_default();
            *sum = sum.checked_add(value).filter(|sum| (-MAX_SUM..=MAX_SUM).contains(sum))?;
        }
    }
    let mut counters = RawDocumentBuf::new();
    for (name, sum) in sums {
        counters.append(CString::try_from(name).ok()?, sum);
    }
    (counters.as_bytes().len() <= MAX_DOCUMENT).then_some(counters)
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Document, doc};

    use super::*;

    const NONE: fn(&str) -> bool = |_| false;

    fn changes(documents: &[RawDocumentBuf], is_forgotten: impl Fn(&str) -> bool) -> Vec<Document> {
        let updates = updates(documents, true, 7, is_forgotten);
        updates.iter().map(|update| Document::try_from(update).unwrap()).collect()
    }

    fn root(counters: RawDocumentBuf) -> RawDocumentBuf {
        rawdoc! { "_id": "2026-11-20/1", "c": counters, "w": { "old": 1_i64, "live": 2_i64 }, "split": { "metrics": 2 } }
    }

    #[test]
    fn counters_move_and_watermarks_stay() {
        let children = [
            rawdoc! { "_id": "2026-11-20/2", "c": { "a": 2, "b": 3.0 }, "w": { "live": 9_i64 } },
            rawdoc! { "_id": "2026-11-20/3", "c": {}, "w": { "live": 9_i64 } },
        ];
        let documents: Vec<_> = [root(rawdoc! { "a": 1_i64 })].into_iter().chain(children).collect();
        assert_eq!(
            changes(&documents, NONE),
            [
                doc! { "q": { "_id": "2026-11-20/1" }, "u": { "$set": { "c": { "a": 3_i64, "b": 3_i64 }, "compacted": 7_i64 } } },
                doc! { "q": { "_id": "2026-11-20/2" }, "u": { "$set": { "c": {}, "compacted": 7_i64 } } },
            ]
        );
    }

    #[test]
    fn traces_of_forgotten_writers_go() {
        let child = rawdoc! { "_id": "2026-11-20/2", "c": {}, "w": { "old": 3_i64 }, "q": { "older": {} } };
        let found = changes(&[root(rawdoc! { "a": 1_i64 }), child], |writer| writer.starts_with("old"));
        assert_eq!(
            found,
            [
                doc! { "q": { "_id": "2026-11-20/1" }, "u": { "$unset": { "w.old": true, "q.old": true } } },
                doc! {
                    "q": { "_id": "2026-11-20/2" },
                    "u": { "$unset": { "w.old": true, "q.old": true, "w.older": true, "q.older": true } },
                },
            ]
        );
    }

    #[test]
    fn what_is_no_sum_stays() {
        let child = |counters: RawDocumentBuf| rawdoc! { "_id": "2026-11-20/2", "c": counters, "w": {} };
        let stays = |documents: &[RawDocumentBuf]| changes(documents, NONE).is_empty();
        assert!(!stays(&[root(rawdoc! { "a": MAX_SUM - 1 }), child(rawdoc! { "a": 1 })]));
        for (parent, counters) in [
            (root(rawdoc! { "a": MAX_SUM }), rawdoc! { "a": 1 }),
            (root(rawdoc! { "a": i64::MIN }), rawdoc! { "a": -1 }),
            (root(rawdoc! { "a": "text" }), rawdoc! { "b": 1 }),
            (root(rawdoc! {}), rawdoc! { "a": 0.5 }),
            (
                rawdoc! { "_id": "2026-11-20/1", "c": 5, "w": {}, "split": { "metrics": 2 } },
                rawdoc! { "a": 1 },
            ),
            (rawdoc! { "_id": "2026-11-20/1", "c": {}, "w": {} }, rawdoc! { "a": 1 }),
            (child(rawdoc! {}), rawdoc! { "a": 1 }),
        ] {
            assert!(stays(&[parent.clone(), child(counters)]), "{parent:?}");
        }
        let holding = rawdoc! { "_id": "2026-11-20/2", "c": { "a": 1 }, "w": {}, "held": [] };
        assert!(stays(&[root(rawdoc! {}), holding]));
        let many = (0..60_000).map(|n| (CString::try_from(format!("metric {n}")).unwrap(), 1_i64));
        assert!(stays(&[root(rawdoc! {}), child(many.collect())]));
    }
}
