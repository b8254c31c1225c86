//! Ids and fields of the stored documents: the only place that knows how they are spelled.

use std::fmt;

use countem_core::{BatchId, Bucket, Period};
use countem_store::Unreadable;
use mongodb::bson::{
    RawBsonRef, RawDocument, RawDocumentBuf, Regex,
    raw::{CStr, CString, cstr},
    rawdoc,
};

use crate::partition::{By, Partition, Split};

/// Counters: encoded metric to value.
pub(crate) const COUNTERS: &CStr = cstr!("c");
/// Watermarks: writer to the highest `seq` of its batches that is in the counters.
pub(crate) const WATERMARKS: &CStr = cstr!("w");
/// Quarantined part of each writer's latest batch: writer to `{seq, deltas: [{metric, reason}]}`.
pub(crate) const QUARANTINED: &CStr = cstr!("q");
/// Quarantined deltas that no journal keeps: `[{batch, metric, n, increments, reason}]`.
pub(crate) const HELD: &CStr = cstr!("held");
/// Split of the document: `{metrics: parts}` or `{writers: parts}`.
pub(crate) const SPLIT: &CStr = cstr!("split");
/// Moment at which the TTL index removes the document.
pub(crate) const EXPIRES_AT: &CStr = cstr!("expires_at");

/// True in the root of a bucket that may have expired and been removed before: it takes no count, and stays.
pub(crate) const EXPIRED: &CStr = cstr!("expired");

/// Number of the last compaction that took counters out of a child, and in the root of the last that put counters in.
pub(crate) const COMPACTED: &CStr = cstr!("compacted");

/// MongoDB collection with one document for each node. No collection has a name that begins like this.
pub(crate) const WRITERS: &str = "_countem_writers";
/// MongoDB collection with one document for each mark.
pub(crate) const MARKS: &str = "_countem_marks";
/// MongoDB collection with one document for each idempotency key.
pub(crate) const KEYS: &str = "_countem_keys";
/// MongoDB collection of one document, the progress of compaction.
pub(crate) const COMPACTION: &str = "_countem_compaction";

/// Returns a regular expression for ids.
pub(crate) fn pattern(pattern: &str) -> Regex {
    let pattern = CString::try_from(pattern).expect("ids have no NUL");
    Regex { pattern, options: cstr!("").into() }
}

/// Id of a document: bucket, slash, partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DocumentId {
    pub(crate) bucket: Bucket,
    pub(crate) partition: Partition,
}

impl DocumentId {
    /// Returns the id of the root of `bucket`.
    pub(crate) fn root(bucket: Bucket) -> Self {
        Self { bucket, partition: Partition::ROOT }
    }

    /// Reads the id of `document`, `None` for a document that is not countem's.
    pub(crate) fn of(document: &RawDocument) -> Option<Self> {
        document.get_str("_id").ok().and_then(Self::parse)
    }

    fn parse(id: &str) -> Option<Self> {
        let (bucket, partition) = id.split_once('/')?;
        Some(Self { bucket: bucket.parse().ok()?, partition: Partition::parse(partition)? })
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.partition)
    }
}

/// Returns the bounds of the ids of all documents of the buckets from `first` to `last`, the second bound excluded.
///
/// Buckets of other periods may lie between them, unless `first` equals `last`.
pub(crate) fn id_bounds(first: Bucket, last: Bucket) -> (String, String) {
    // `0` is the character that follows `/`.
    (format!("{first}/"), format!("{last}0"))
}

/// Returns the length of the ids of the buckets of `period`. No two periods share a length.
pub(crate) fn bucket_id_len(period: Period) -> usize {
    match period {
        Period::Second => 19,
        Period::Minute => 16,
        Period::Hour => 13,
        Period::Day => 10,
        Period::Week => 8,
        Period::Month => 7,
        Period::Year => 4,
        Period::All => 3,
    }
}

/// Returns the count that a stored value stands for.
///
/// # Errors
/// It stands for no whole number, or for one of several.
pub(crate) fn value_of(stored: RawBsonRef<'_>) -> Result<i64, Unreadable> {
    match stored {
        RawBsonRef::Int64(value) => Ok(value),
        RawBsonRef::Int32(value) => Ok(value.into()),
        // A person who writes `5` in an old shell stores a float. From 2^53 on it could be any of several numbers.
        RawBsonRef::Double(value) if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 =>
        {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "a whole number below 2^53 is exact in both types"
            )]
            Ok(value as i64)
        }
        other => Err(Unreadable::no_integer(named(other))),
    }
}

/// Names a stored value that is no counter.
pub(crate) fn named(value: RawBsonRef<'_>) -> String {
    match value {
        RawBsonRef::Double(value) if value.is_nan() || value.abs() < 1e15 => value.to_string(),
        RawBsonRef::Double(value) => format!("the float {value:e}"),
        RawBsonRef::Decimal128(value) => format!("the decimal {value}"),
        RawBsonRef::String(_) => "a string".to_owned(),
        RawBsonRef::Document(_) => "an object".to_owned(),
        RawBsonRef::Array(_) => "an array".to_owned(),
        RawBsonRef::Null => "null".to_owned(),
        other => format!("of type {:?}", other.element_type()),
    }
}

/// Returns the whole number in a field.
pub(crate) fn number_in(document: &RawDocument, field: impl AsRef<str>) -> Option<i64> {
    document.get(field).ok().flatten().and_then(|value| value_of(value).ok())
}

/// Returns the counters of a document.
///
/// # Errors
/// The field holds something else, so that nothing is known of its counters; the words name it.
pub(crate) fn counters_of(document: &RawDocument) -> Result<Option<&RawDocument>, String> {
    let damaged = |found: String| format!("the field `{COUNTERS}` is {found}, not an object");
    match document.get(COUNTERS) {
        Ok(None) => Ok(None),
        Ok(Some(RawBsonRef::Document(counters))) => Ok(Some(counters)),
        Ok(Some(other)) => Err(damaged(named(other))),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// Computes the bytes of the counters; zero if they are no object.
pub(crate) fn size_of_counters() -> RawDocumentBuf {
    let counters = format!("${COUNTERS}");
    rawdoc! { "$cond": [
        { "$eq": [{ "$type": counters.as_str() }, "object"] },
        { "$bsonSize": counters.as_str() },
        0,
    ] }
}

/// Returns the watermark of a batch.
pub(crate) fn watermark(id: &BatchId) -> i64 {
    i64::try_from(id.seq).expect("no lane sends 2^63 batches")
}

/// Returns the watermark of a writer in a document.
pub(crate) fn watermark_in(document: &RawDocument, writer: &str) -> Option<i64> {
    number_in(document.get_document(WATERMARKS).ok()?, writer)
}

/// Tells whether a document shows that it has a batch.
pub(crate) fn has_batch(document: &RawDocument, id: &BatchId) -> bool {
    let stored = watermark_in(document, id.writer.as_str());
    stored.is_some_and(|stored| stored >= watermark(id))
}

/// Returns the split of a document, `None` if it is not split.
///
/// # Errors
/// The field holds a value that is never written.
pub(crate) fn split_of(document: &RawDocument, partition: Partition) -> Result<Option<Split>, DamagedSplit> {
    let Some(stored) = document.get(SPLIT).ok().flatten() else { return Ok(None) };
    let stored = stored.as_document().ok_or(DamagedSplit)?;
    let parts = |field| number_in(stored, field);
    let split = match (parts("metrics"), parts("writers")) {
        (Some(parts), None) => Split::stored(By::Metrics, parts),
        (None, Some(parts)) => Split::stored(By::Writers, parts),
        _ => None,
    };
    match split.filter(|split| partition.allowed(*split) == Some(*split)) {
        Some(split) => Ok(Some(split)),
        None => Err(DamagedSplit),
    }
}

/// The field `split` of a document does not say where its deltas go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DamagedSplit;

#[cfg(test)]
mod tests {
    use mongodb::bson::{Decimal128, RawBson};

    use super::*;

    #[test]
    fn bounds_hold_the_ids_of_one_bucket_only() {
        let buckets =
            ["2026", "2026-11", "2026-11-20", "2026-11-20T14", "2026-11-20T14:05", "2026-W47", "all"];
        for bucket in buckets.map(|id| id.parse::<Bucket>().unwrap()) {
            let (from, to) = id_bounds(bucket, bucket);
            assert_eq!(bucket.to_string().len(), bucket_id_len(bucket.period()));
            for id in buckets {
                let own = *id == bucket.to_string();
                for partition in ["1", "9", "127.3"] {
                    let id = format!("{id}/{partition}");
                    assert_eq!(from <= id && id < to, own, "{id} in {bucket}");
                }
            }
        }
        assert_eq!(DocumentId::parse("2026-11-20/64.2").unwrap().bucket, "2026-11-20".parse().unwrap());
        for foreign in ["2026-11-20", "2026-11-20/", "2026-11-20/x", "x/1", "/1"] {
            assert!(DocumentId::parse(foreign).is_none(), "{foreign} was accepted");
        }
    }

    #[test]
    fn only_whole_numbers_are_values() {
        const EXACT: f64 = 9_007_199_254_740_991.0;
        let stored = rawdoc! { "a": 1_i64, "b": 2, "c": 3.0, "d": -EXACT, "e": i64::MAX };
        let value = |field| value_of(stored.get(field).unwrap().unwrap()).unwrap();
        assert_eq!(["a", "b", "c", "d", "e"].map(value), [1, 2, 3, -9_007_199_254_740_991, i64::MAX]);
        let decimal: Decimal128 = "7".parse().unwrap();
        let damaged = rawdoc! {
            "a": 12.5, "b": EXACT + 1.0, "c": f64::NAN, "d": decimal, "e": "4", "f": RawBson::Null, "g": {}, "h": true,
        };
        let words = |field| value_of(damaged.get(field).unwrap().unwrap()).unwrap_err().to_string();
        for (field, said) in [
            ("a", "12.5"),
            ("b", "the float 9.007199254740992e15"),
            ("c", "NaN"),
            ("d", "the decimal 7"),
            ("e", "a string"),
            ("f", "null"),
            ("g", "an object"),
            ("h", "of type Boolean"),
        ] {
            assert!(words(field).contains(&format!("is {said}, not a whole number")), "{}", words(field));
        }
    }

    #[test]
    fn unknown_split_is_damage() {
        let root = Partition::ROOT;
        assert_eq!(split_of(&rawdoc! {}, root), Ok(None));
        let split = split_of(&rawdoc! { "split": { "metrics": 64 } }, root).unwrap().unwrap();
        assert_eq!((split.by, split.parts()), (By::Metrics, 64));
        for damaged in [
            rawdoc! { "split": 64 },
            rawdoc! { "split": {} },
            rawdoc! { "split": { "metrics": 3 } },
            rawdoc! { "split": { "metrics": 4, "writers": 4 } },
        ] {
            assert_eq!(split_of(&damaged, root), Err(DamagedSplit));
        }
        let deep = Partition::parse("8388608").unwrap();
        assert_eq!(split_of(&rawdoc! { "split": { "metrics": 64 } }, deep), Err(DamagedSplit));
    }
}
