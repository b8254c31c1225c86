//! Names and fields of the stored documents: the one place that knows how they are spelled.

use std::borrow::Cow;

use countem_core::{Bucket, CollectionName, Period};
use mongodb::bson::{RawBsonRef, RawDocument};

use crate::partition::{By, Partition, Split};

/// Counters: encoded metric to value.
pub(crate) const COUNTERS: &str = "c";
/// Watermarks: writer to the highest `seq` of its batches that is in the counters.
pub(crate) const WATERMARKS: &str = "w";
/// What a writer's latest batches could not add: writer to `{seq, deltas: [{metric, reason}]}`.
pub(crate) const QUARANTINED: &str = "q";
/// Where later deltas go: `{metrics: parts}` or `{writers: parts}`.
pub(crate) const SPLIT: &str = "split";
/// When the TTL index removes the document.
pub(crate) const EXPIRES_AT: &str = "expires_at";

/// MongoDB collection with one document for each node. No collection has a name that begins like this.
pub(crate) const WRITERS: &str = "_countem_writers";

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Tells whether a byte of a metric has a meaning of its own in the path of an update.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'%' | b'.' | b'$' | 0)
}

/// Returns how long [`encode_metric`] makes a metric.
pub(crate) fn encoded_len(metric: &str) -> usize {
    metric.len() + 2 * metric.bytes().filter(|byte| is_special(*byte)).count()
}

/// Appends a metric as one part of a path: `%`, `.`, `$` and NUL become `%` and two hexadecimal digits.
pub(crate) fn encode_metric(metric: &str, out: &mut Vec<u8>) {
    let mut rest = metric.as_bytes();
    while let Some(at) = rest.iter().position(|byte| is_special(*byte)) {
        let byte = rest[at];
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Returns the metric that [`encode_metric`] would write as `field`. A field that it never writes, which only a person can have
/// made, stands for itself.
pub(crate) fn decode_metric(field: &str) -> Cow<'_, str> {
    if !field.contains('%') {
        return Cow::Borrowed(field);
    }
    let mut metric = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('%') {
        metric.push_str(before);
        match after.get(..2).and_then(special_of) {
            Some(special) => {
                metric.push(special);
                rest = &after[2..];
            }
            None => {
                metric.push('%');
                rest = after;
            }
        }
    }
    metric.push_str(rest);
    Cow::Owned(metric)
}

fn special_of(digits: &str) -> Option<char> {
    match digits {
        "25" => Some('%'),
        "2E" => Some('.'),
        "24" => Some('$'),
        "00" => Some('\0'),
        _ => None,
    }
}

/// Returns the id of a document: bucket, slash, partition.
pub(crate) fn document_id(bucket: Bucket, partition: Partition) -> String {
    format!("{bucket}/{partition}")
}

/// Reads back the id of a document, `None` for a document that is not countem's.
pub(crate) fn parse_id(id: &str) -> Option<(Bucket, Partition)> {
    let (bucket, partition) = id.split_once('/')?;
    Some((bucket.parse().ok()?, Partition::parse(partition)?))
}

/// Returns the bounds of the ids of all documents of the buckets from `first` to `last`, the second one excluded.
///
/// Buckets of other periods may lie between them, unless the two are the same.
pub(crate) fn id_bounds(first: Bucket, last: Bucket) -> (String, String) {
    // `0` is the character that follows `/`.
    (format!("{first}/"), format!("{last}0"))
}

/// Returns how long the ids of the buckets of `period` are. No two periods share a length.
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

/// Names that mean something to MongoDB itself, which a collection may have all the same.
fn is_reserved(collection: &str) -> bool {
    collection.starts_with("system.") || collection.starts_with("enxcol_.")
}

/// Returns the MongoDB collection of a collection: the same name, with `_` in front of those that MongoDB keeps to itself.
/// No name of a collection begins with `_`.
pub(crate) fn mongo_collection(collection: &str) -> Cow<'_, str> {
    if is_reserved(collection) { Cow::Owned(format!("_{collection}")) } else { Cow::Borrowed(collection) }
}

/// Returns the collection that a MongoDB collection holds, `None` for one that is not countem's or is internal.
pub(crate) fn collection_in(mongo_collection: &str) -> Option<CollectionName> {
    if is_reserved(mongo_collection) {
        return None;
    }
    let escaped = mongo_collection.strip_prefix('_').filter(|name| is_reserved(name));
    CollectionName::new(escaped.unwrap_or(mongo_collection)).ok()
}

/// Returns a stored value as what it counts, `None` when it is no whole number.
pub(crate) fn value_of(stored: RawBsonRef<'_>) -> Option<i64> {
    match stored {
        RawBsonRef::Int64(value) => Some(value),
        RawBsonRef::Int32(value) => Some(value.into()),
        // A person who writes `5` in an old shell stores a float. Beyond 2^53 it could be any of several numbers.
        RawBsonRef::Double(value) if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 =>
        {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "a whole number below 2^53 is exact in both types"
            )]
            Some(value as i64)
        }
        _ => None,
    }
}

/// Returns the watermark of a writer in a document.
pub(crate) fn watermark_of(document: &RawDocument, writer: &str) -> Option<i64> {
    let watermarks = document.get_document(WATERMARKS).ok()?;
    value_of(watermarks.get(writer).ok()??)
}

/// Returns how a document is split, `None` when it is not, and an error when the field is nothing that is ever written.
pub(crate) fn split_of(document: &RawDocument, partition: Partition) -> Result<Option<Split>, DamagedSplit> {
    let Some(stored) = document.get(SPLIT).ok().flatten() else { return Ok(None) };
    let stored = stored.as_document().ok_or(DamagedSplit)?;
    let parts = |field| stored.get(field).ok().flatten().and_then(value_of);
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
    use mongodb::bson::rawdoc;

    use super::*;

    fn encoded(metric: &str) -> String {
        let mut out = Vec::new();
        encode_metric(metric, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_name_is_one_part_of_a_path_and_reads_back() {
        let names = [
            ("a", "a"),
            ("a.b", "a%2Eb"),
            ("a..b", "a%2E%2Eb"),
            ("$inc", "%24inc"),
            ("%2E", "%252E"),
            ("%", "%25"),
            ("100%", "100%25"),
            ("GET 200", "GET 200"),
            ("\u{1f980}.", "\u{1f980}%2E"),
            ("a\0b", "a%00b"),
        ];
        for (metric, field) in names {
            assert_eq!(encoded(metric), field);
            assert_eq!(decode_metric(field), metric);
            assert_eq!(encoded_len(metric), field.len());
        }
    }

    #[test]
    fn a_field_that_is_never_written_stands_for_itself() {
        for field in ["%", "%2", "%zz", "%2e", "%41", "\u{e4}%\u{e4}\u{e4}"] {
            assert_eq!(decode_metric(field), field);
        }
    }

    #[test]
    fn ids_of_a_bucket_lie_within_its_bounds_and_those_of_no_other_do() {
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
        assert_eq!(parse_id("2026-11-20/64.2").unwrap().0, "2026-11-20".parse().unwrap());
        for foreign in ["2026-11-20", "2026-11-20/", "2026-11-20/x", "x/1", "/1"] {
            assert!(parse_id(foreign).is_none(), "{foreign} was accepted");
        }
    }

    #[test]
    fn a_collection_never_has_a_name_that_mongodb_keeps_to_itself() {
        for (collection, stored) in [
            ("web", "web"),
            ("system", "system"),
            ("system.users", "_system.users"),
            ("system.buckets.x", "_system.buckets.x"),
            ("enxcol_.x.esc", "_enxcol_.x.esc"),
        ] {
            assert_eq!(mongo_collection(collection), stored);
            assert_eq!(collection_in(stored).unwrap().as_str(), collection);
        }
        for foreign in ["system.views", "enxcol_.x.esc", "_countem_writers", "_other", "with space"] {
            assert_eq!(collection_in(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn only_whole_numbers_are_values() {
        let stored = rawdoc! { "a": 1_i64, "b": 2, "c": 3.0, "d": 3.5, "e": 1e300, "f": "4" };
        let value = |field| value_of(stored.get(field).unwrap().unwrap());
        assert_eq!(["a", "b", "c", "d", "e", "f"].map(value), [Some(1), Some(2), Some(3), None, None, None]);
    }

    #[test]
    fn a_split_that_was_never_written_is_damage() {
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
