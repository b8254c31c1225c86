//! What a document cannot add, and how the rest of its batch is added all the same.
//!
//! One overflow or one field that is no number makes the server refuse the whole update. The update is then sent without the
//! counters that cannot be added; in the same atomic step it sets the watermark and writes into the document *which* ones
//! it left out (`q.<writer>`). So whoever finds the watermark later also finds what is not in the counters, whichever of
//! several attempts it was that succeeded, and a copy of an earlier, different attempt is refused by the watermark.

use std::collections::BTreeMap;

use countem_core::BatchId;
use mongodb::bson::{RawBsonRef, RawDocument};

use crate::{
    command::{path, seq},
    document::{COUNTERS, QUARANTINED, encode_metric, value_of},
    encoder::Encoder,
};

/// Metric to the reason why it could not be added, of one document and batch.
pub(crate) type Omitted = BTreeMap<String, String>;

/// Writes into a `$set` what the update leaves out.
pub(crate) fn stamp(set: &mut Encoder, id: &BatchId, omitted: &Omitted) {
    set.document(&path(QUARANTINED, id.writer.as_str()), |stamp| {
        stamp.int64("seq", seq(id));
        stamp.documents("deltas", omitted, |delta, (metric, reason)| {
            delta.string("metric", metric);
            delta.string("reason", reason);
        });
    });
}

/// Reads what the update that added the batch left out. A stamp of another batch says nothing about this one.
pub(crate) fn read_stamp(document: &RawDocument, id: &BatchId) -> Omitted {
    let read = || {
        let stamps = document.get_document(QUARANTINED).ok()?;
        let stamp = stamps.get_document(id.writer.as_str()).ok()?;
        let is_this_batch = stamp.get("seq").ok()?.and_then(value_of) == Some(seq(id));
        let deltas = if is_this_batch { stamp.get_array("deltas").ok()? } else { return None };
        let omitted = deltas.into_iter().filter_map(|delta| {
            let delta = delta.ok()?.as_document()?;
            Some((delta.get_str("metric").ok()?.to_owned(), delta.get_str("reason").ok()?.to_owned()))
        });
        Some(omitted.collect())
    };
    read().unwrap_or_default()
}

/// Finds those of `deltas` (metric and amount) that cannot be added to what `document` holds.
pub(crate) fn offenders<'a>(document: &RawDocument, deltas: impl Iterator<Item = (&'a str, i64)>) -> Omitted {
    let counters = document.get(COUNTERS).ok().flatten();
    let mut field = Vec::new();
    let cannot_add = |(metric, n): (&str, i64)| {
        field.clear();
        encode_metric(metric, &mut field);
        let field = str::from_utf8(&field).expect("an encoded metric is UTF-8");
        reason(counters, field, n).map(|reason| (metric.to_owned(), reason))
    };
    deltas.filter_map(cannot_add).collect()
}

fn reason(counters: Option<RawBsonRef<'_>>, field: &str, n: i64) -> Option<String> {
    let counters = match counters? {
        RawBsonRef::Document(counters) => counters,
        other => return Some(format!("`{COUNTERS}` of the document is {}, not an object", named(other))),
    };
    match counters.get(field).ok()?? {
        RawBsonRef::Int64(value) if value.checked_add(n).is_none() => {
            Some(format!("{value} plus {n} exceeds the range of a 64-bit integer"))
        }
        // The server adds to all of these; a 32-bit integer grows into one of 64 bits.
        RawBsonRef::Int64(_) | RawBsonRef::Int32(_) | RawBsonRef::Double(_) | RawBsonRef::Decimal128(_) => {
            None
        }
        other => Some(format!("the stored value is {}, not a number", named(other))),
    }
}

fn named(value: RawBsonRef<'_>) -> String {
    match value {
        RawBsonRef::String(_) => "a string".to_owned(),
        RawBsonRef::Document(_) => "an object".to_owned(),
        RawBsonRef::Array(_) => "an array".to_owned(),
        RawBsonRef::Null => "null".to_owned(),
        other => format!("of type {:?}", other.element_type()),
    }
}

#[cfg(test)]
mod tests {
    use countem_core::Writer;
    use mongodb::bson::{RawDocumentBuf, rawdoc};

    use super::*;

    fn found(document: &RawDocumentBuf, deltas: &[(&str, i64)]) -> Vec<(String, String)> {
        offenders(document, deltas.iter().copied()).into_iter().collect()
    }

    #[test]
    fn only_what_cannot_be_added_is_found() {
        let document = rawdoc! { "_id": "x", "c": {
            "big": i64::MAX - 1, "small": i64::MIN, "int": i32::MAX, "float": 1.5, "text": "5", "a%2Eb": "no",
        } };
        let deltas =
            [("big", 2), ("small", 1), ("int", 1), ("float", 1), ("text", 1), ("a.b", 1), ("new", i64::MAX)];
        let metrics: Vec<_> = found(&document, &deltas).into_iter().map(|(metric, _)| metric).collect();
        assert_eq!(metrics, ["a.b", "big", "text"]);
        assert_eq!(
            found(&document, &[("big", 2)])[0].1,
            "9223372036854775806 plus 2 exceeds the range of a 64-bit integer"
        );
        assert_eq!(found(&document, &[("text", 2)])[0].1, "the stored value is a string, not a number");
    }

    #[test]
    fn nothing_can_be_added_where_no_counters_can_be() {
        assert_eq!(found(&rawdoc! { "c": "gone" }, &[("a", 1), ("b", 1)]).len(), 2);
        assert_eq!(found(&rawdoc! { "_id": "x" }, &[("a", 1)]), []);
    }

    #[test]
    fn a_stamp_speaks_of_its_own_batch_only() {
        let id = |seq| BatchId { writer: Writer::new(1, 1), lane: 0, seq };
        let omitted = Omitted::from([("a.b".to_owned(), "why".to_owned())]);
        let set = Encoder::encode(0, |set| stamp(set, &id(7), &omitted)).unwrap();
        let stamp = set.get_document("q.0000000000000001-1").unwrap().to_owned();
        let document = rawdoc! { "q": { "0000000000000001-1": stamp } };
        assert_eq!(read_stamp(&document, &id(7)), omitted);
        assert_eq!(read_stamp(&document, &id(8)), Omitted::new());
        assert_eq!(read_stamp(&rawdoc! {}, &id(7)), Omitted::new());
    }
}
