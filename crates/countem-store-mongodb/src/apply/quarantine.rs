//! Deltas that a document cannot add, and the update that adds the others.
//!
//! One overflow or one field that is no number makes the server refuse the whole update. The update is then sent without the
//! deltas that cannot be added; in the same atomic step it sets the watermark and writes the list of *omitted* deltas into the
//! document (`q.<writer>`). So a later sender that finds the watermark also finds what is not in the counters, whichever of
//! several attempts succeeded, and a copy of an earlier, different attempt is refused by the watermark.

use std::collections::BTreeMap;

use countem_core::{BatchId, Delta};
use countem_store::{ErrorKind, StoreError};
use mongodb::bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::{
    Run,
    target::{Step, Target},
};
use crate::{
    command::{self, Level},
    document::{COUNTERS, QUARANTINED, named, number_in, watermark},
    names::{counter_path, encode_metric},
};

/// Metric to the reason why it could not be added, of one document and batch.
pub(crate) type Omitted = BTreeMap<String, String>;

/// Returns the stamp: the list of omitted deltas as it is stored under the batch's writer.
pub(super) fn stamp(id: &BatchId, omitted: &Omitted) -> RawDocumentBuf {
    let delta = |(metric, reason): (&String, &String)| {
        rawdoc! { "metric": metric.as_str(), "reason": reason.as_str() }
    };
    rawdoc! { "seq": watermark(id), "deltas": omitted.iter().map(delta).collect::<RawArrayBuf>() }
}

/// Returns the entries for those of `deltas` that are `omitted`, metric to reason.
pub(super) fn held_entries<'a>(
    id: &BatchId,
    omitted: &Omitted,
    deltas: impl Iterator<Item = Delta<'a>>,
) -> RawArrayBuf {
    let entry = |delta: Delta<'_>| {
        let reason = omitted.get(delta.metric)?;
        Some(rawdoc! {
            "batch": id.to_string(),
            "metric": delta.metric,
            "n": delta.n,
            "increments": delta.increments.cast_signed(),
            "reason": reason.as_str(),
        })
    };
    deltas.filter_map(entry).collect()
}

/// Reads the deltas omitted by the update that added the batch. A stamp of another batch says nothing about this one.
pub(super) fn read_stamp(document: &RawDocument, id: &BatchId) -> Omitted {
    let read = || {
        let stamps = document.get_document(QUARANTINED).ok()?;
        let stamp = stamps.get_document(id.writer.as_str()).ok()?;
        if number_in(stamp, "seq") != Some(watermark(id)) {
            return None;
        }
        let omitted = stamp.get_array("deltas").ok()?.into_iter().filter_map(|delta| {
            let delta = delta.ok()?.as_document()?;
            Some((delta.get_str("metric").ok()?.to_owned(), delta.get_str("reason").ok()?.to_owned()))
        });
        Some(omitted.collect())
    };
    read().unwrap_or_default()
}

/// Maximum number of times that the server may refuse an update for its data without a reason to be found in the document.
const MAX_UNEXPLAINED: u8 = 3;

impl Run<'_> {
    /// Finds the deltas that make the server refuse an update, and omits them from the next one.
    pub(super) async fn find_offenders(&mut self) -> Result<(), StoreError> {
        for at in 0..self.targets.len() {
            let Step::FindOffenders(why) = &self.targets[at].step else { continue };
            let why = why.clone();
            let found = self.offenders_of(&self.targets[at], &why).await?;
            let target = &mut self.targets[at];
            let before = target.omitted.len();
            target.omitted.extend(found);
            target.unexplained = if target.omitted.len() > before { 0 } else { target.unexplained + 1 };
            if target.unexplained >= MAX_UNEXPLAINED {
                return Err(StoreError::new(
                    ErrorKind::Refused,
                    format!("cannot update the document `{}` of `{}`: {why}", target.id, self.stored_in),
                ));
            }
            target.step = Step::Send;
        }
        Ok(())
    }

    async fn offenders_of(&self, target: &Target<'_>, why: &str) -> Result<Omitted, StoreError> {
        let metrics = || target.deltas.iter().map(|hashed| hashed.delta.metric);
        let find = command::find(
            self.context.connection,
            &self.stored_in,
            Level::Local,
            rawdoc! { "_id": target.id.to_string() },
            metrics().map(|metric| (counter_path(metric), 1)).collect(),
        );
        let mut found = Omitted::new();
        command::read(self.context.connection, &self.stored_in, find, |document| {
            let deltas = target.deltas.iter().map(|hashed| (hashed.delta.metric, hashed.delta.n));
            found = offenders(document, deltas);
            // A projection of fields of `c` shows nothing of a `c` that is no object; only the server's words explain that.
            if found.is_empty() && document.get(COUNTERS).ok().flatten().is_none() {
                found = metrics().map(|metric| (metric.to_owned(), why.to_owned())).collect();
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }
}

/// Finds those of `deltas` (metric and amount) that cannot be added to the counters of `document`.
fn offenders<'a>(document: &RawDocument, deltas: impl Iterator<Item = (&'a str, i64)>) -> Omitted {
    let counters = document.get(COUNTERS).ok().flatten();
    let mut field = String::new();
    let cannot_add = |(metric, n): (&str, i64)| {
        field.clear();
        encode_metric(metric, &mut field);
        reason(counters, &field, n).map(|reason| (metric.to_owned(), reason))
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

#[cfg(test)]
mod tests {
    use super::*;
    use countem_core::Writer;

    fn found(document: &RawDocumentBuf, deltas: &[(&str, i64)]) -> Vec<(String, String)> {
        offenders(document, deltas.iter().copied()).into_iter().collect()
    }

    #[test]
    fn only_offenders_are_found() {
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
    fn nothing_can_be_added_to_damaged_counters() {
        assert_eq!(found(&rawdoc! { "c": "gone" }, &[("a", 1), ("b", 1)]).len(), 2);
        assert_eq!(found(&rawdoc! { "_id": "x" }, &[("a", 1)]), []);
    }

    #[test]
    fn stamp_counts_for_its_own_batch_only() {
        let id = |seq| BatchId { writer: Writer::new(1, 1), lane: 0, seq };
        let omitted = Omitted::from([("a.b".to_owned(), "why".to_owned())]);
        let document = rawdoc! { "q": { "0000000000000001-1": stamp(&id(7), &omitted) } };
        assert_eq!(read_stamp(&document, &id(7)), omitted);
        assert_eq!(read_stamp(&document, &id(8)), Omitted::new());
        assert_eq!(read_stamp(&rawdoc! {}, &id(7)), Omitted::new());
    }
}
