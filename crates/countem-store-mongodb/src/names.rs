//! Names of metrics and collections as MongoDB stores them.

use std::borrow::Cow;

use countem_core::CollectionName;
use mongodb::bson::raw::{CStr, CString};

use crate::document::COUNTERS;

/// Returns the escape of a byte that has a meaning of its own in the path of an update.
fn escape(byte: u8) -> Option<&'static str> {
    match byte {
        b'%' => Some("%25"),
        b'.' => Some("%2E"),
        b'$' => Some("%24"),
        0 => Some("%00"),
        _ => None,
    }
}

/// Returns the length that [`encode_metric`] gives a metric.
pub(crate) fn encoded_len(metric: &str) -> usize {
    metric.len() + 2 * metric.bytes().filter(|byte| escape(*byte).is_some()).count()
}

/// Appends a metric as one part of a path: `%`, `.`, `$` and NUL become `%` and two hexadecimal digits.
pub(crate) fn encode_metric(metric: &str, out: &mut String) {
    // Few metrics need an escape, and a scan without branches is several times faster than the loop below.
    if !metric.bytes().fold(false, |found, byte| found | escape(byte).is_some()) {
        return out.push_str(metric);
    }
    let mut written = 0;
    for (at, byte) in metric.bytes().enumerate() {
        if let Some(escape) = escape(byte) {
            out.push_str(&metric[written..at]);
            out.push_str(escape);
            written = at + 1;
        }
    }
    out.push_str(&metric[written..]);
}

/// Returns the metric that [`encode_metric`] would write as `field`. Any other field, which only a person can have made,
/// stands for itself.
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

/// Returns the path of a field in a field. Neither contains a NUL.
pub(crate) fn path(field: &CStr, inner: &str) -> CString {
    key(format!("{field}.{inner}"))
}

/// Returns the path of the counter of a metric.
pub(crate) fn counter_path(metric: &str) -> CString {
    let mut path = String::new();
    write_counter_path(metric, &mut path);
    key(path)
}

/// Replaces `path` by the path of the counter of a metric.
pub(crate) fn write_counter_path(metric: &str, path: &mut String) {
    path.clear();
    path.push_str(COUNTERS.as_str());
    path.push('.');
    encode_metric(metric, path);
}

fn key(path: String) -> CString {
    CString::try_from(path).expect("a NUL is escaped in metrics and in no other name")
}

/// Tells whether MongoDB keeps the name to itself. A collection may have it all the same.
fn is_reserved(collection: &str) -> bool {
    collection.starts_with("system.") || collection.starts_with("enxcol_.")
}

/// Returns the MongoDB collection of a collection: the same name, with `_` in front of a reserved one. No name of a collection
/// begins with `_`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(metric: &str) -> String {
        let mut out = String::new();
        encode_metric(metric, &mut out);
        out
    }

    #[test]
    fn metric_is_one_part_of_a_path() {
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
    fn unknown_escape_stands_for_itself() {
        for field in ["%", "%2", "%zz", "%2e", "%41", "\u{e4}%\u{e4}\u{e4}"] {
            assert_eq!(decode_metric(field), field);
        }
    }

    #[test]
    fn reserved_names_are_stored_under_another() {
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
}
