//! Expiry of buckets, and the TTL index that removes their documents.
//!
//! The recorded schedule says when a bucket expires: from then on readers refuse it. The documents follow later, as one, although
//! the server removes them one by one:
//!
//! 1. *The root decides.* It gets its expiry from the schedule that is recorded when it is created, and children are created with the
//!    expiry of their root.
//! 2. *A bucket is hidden before it is removed*, by [`MARGIN`], and [`MARGIN`] after readers refuse it. From then on reads pass over its
//!    documents, and the guard of every update refuses them, both by the clock of the server that removes them. So no read meets a
//!    half-removed bucket.
//! 3. *A bucket that may have been removed takes no count again.* A batch in doubt may have been in it. Every retention that was ever in
//!    effect is in the recorded schedule, before the first document that it lets expire. Where no root is found and the bucket would
//!    be hidden by that, the new root is created as expired ([`EXPIRED`]): what arrives is quarantined in it.
//!
//! The clocks of readers and of the members of a replica set must not differ by more than [`MARGIN`].

use std::collections::HashSet;

use countem_core::{
    Bucket, Period, Schedules,
    jiff::{SignedDuration, Timestamp},
};
use countem_store::StoreError;
use mongodb::bson::{DateTime, RawDocumentBuf, doc, rawdoc};
use parking_lot::Mutex;

use crate::{
    command::action,
    connection::Connection,
    document::{EXPIRED, EXPIRES_AT},
    schedule,
};

/// The collections whose TTL index is known to exist.
#[derive(Debug, Default)]
pub(crate) struct Indexes(Mutex<HashSet<String>>);

/// The recorded schedules, and the time of the server that read them.
#[derive(Debug, Default)]
pub(crate) struct Expiry(Option<(Schedules, Timestamp)>);

/// Time between the expiry of a bucket and its hiding, and between that and its removal. Longer than any read, and than clocks
/// differ.
const MARGIN: SignedDuration = SignedDuration::from_hours(1);

impl Expiry {
    /// Reads what is recorded, as far as it matters for new roots of `buckets`.
    ///
    /// # Errors
    /// It is not known, so no root may be created.
    pub(crate) async fn of_new_roots(
        connection: &Connection,
        buckets: &[Bucket],
    ) -> Result<Self, StoreError> {
        // A bucket without an end is kept for ever.
        match buckets.iter().any(|bucket| bucket.period() != Period::All) {
            true => schedule::read_with_time(connection).await.map(Self),
            false => Ok(Self::default()),
        }
    }

    /// Returns the moment at which the documents of `bucket` are removed, `None` if they are kept for ever.
    pub(crate) fn removal(&self, collection: &str, bucket: Bucket) -> Option<DateTime> {
        let (schedules, _) = self.0.as_ref()?;
        let at = schedules.of(collection).expires_at(bucket)?.checked_add(MARGIN * 2).ok()?;
        Some(DateTime::from_millis(at.as_millisecond()))
    }

    /// Returns true where `bucket` may have been hidden or removed before.
    pub(crate) fn may_be_gone(&self, collection: &str, bucket: Bucket) -> bool {
        self.0.as_ref().is_some_and(|(schedules, now)| {
            let before = now.saturating_sub(MARGIN).unwrap_or(Timestamp::MIN);
            schedules.of(collection).has_expired(bucket, before)
        })
    }
}

impl Indexes {
    /// Creates the index of `collection`. Without it documents are only kept longer.
    pub(crate) async fn prepare(&self, connection: &Connection, collection: &str) {
        if self.0.lock().contains(collection) {
            return;
        }
        let command = doc! {
            "createIndexes": collection,
            "indexes": [{ "key": { EXPIRES_AT.as_str(): 1 }, "name": "countem_expires_at", "expireAfterSeconds": 0 }],
        };
        match connection.request(|database| async move { database.run_command(command).await }).await {
            Ok(_) => {
                self.0.lock().insert(collection.to_owned());
            }
            Err(failure) => {
                let error = connection.explain(&action("create the TTL index of", collection), failure);
                tracing::warn!(collection, %error, "expired documents stay");
            }
        }
    }
}

/// Returns an expression that is true for a document which has expired.
pub(crate) fn has_expired() -> RawDocumentBuf {
    let at = format!("${EXPIRES_AT}");
    let is_date = rawdoc! { "$eq": [{ "$type": at.as_str() }, "date"] };
    let is_over = rawdoc! { "$lte": [at.as_str(), { "$add": ["$$NOW", margin()] }] };
    let is_marked = rawdoc! { "$eq": [format!("${EXPIRED}"), true] };
    rawdoc! { "$or": [is_marked, { "$and": [is_date, is_over] }] }
}

/// Returns an expression that is true for a document which has not expired.
pub(crate) fn is_live() -> RawDocumentBuf {
    rawdoc! { "$not": [has_expired()] }
}

fn margin() -> i64 {
    i64::try_from(MARGIN.as_millis()).expect("an hour is short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_go_two_hours_after_readers_refuse() {
        let schedules: Schedules = "beginning Europe/Berlin day:2592000s,all".parse().unwrap();
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let expiry = |now| Expiry(Some((schedules.clone(), at(now))));
        let day: Bucket = "2026-10-01".parse().unwrap();
        // The day ends at 22:00 UTC.
        let removal = expiry("2026-10-31T22:59:59Z").removal("web", day).unwrap();
        assert_eq!(removal.timestamp_millis(), at("2026-11-01T00:00:00Z").as_millisecond());
        assert_eq!(expiry("2026-10-31T22:59:59Z").removal("web", Bucket::ALL), None);
        assert!(!expiry("2026-10-31T22:59:59Z").may_be_gone("web", day));
        assert!(expiry("2026-10-31T23:00:00Z").may_be_gone("web", day));
        assert_eq!(Expiry::default().removal("web", day), None);
    }
}
