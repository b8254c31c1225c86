//! Expiry of buckets, and the TTL index that removes their documents.
//!
//! A bucket expires as one, although the server removes its documents one by one:
//!
//! 1. *The root decides.* Children are created with the expiry of their root, whatever the configuration of the process.
//! 2. *A bucket expires before it is removed*, by [`MARGIN`]. From then on reads pass over its documents, and the guard of every
//!    update refuses them, both by the clock of the server that removes them. So no read meets a half-removed bucket.
//! 3. *A bucket that may have been removed takes no count again.* A batch in doubt may have been in it. The shortest retention that
//!    was ever in force is recorded before the first document that it lets expire. Where no root is found and the bucket would have
//!    expired by that, the new root is created as expired ([`EXPIRED`]): what arrives is quarantined in it.
//!
//! The clocks of the members of a replica set must not differ by more than [`MARGIN`].

use std::{collections::HashSet, time::Duration};

use countem_core::{
    Bucket,
    jiff::{SignedDuration, tz::TimeZone},
};
use countem_store::StoreError;
use mongodb::bson::{DateTime, RawDocumentBuf, doc, rawdoc};
use parking_lot::Mutex;

use crate::{
    command::{self, Level, action},
    connection::Connection,
    document::{EXPIRED, EXPIRES_AT, RETENTION, number_in},
};

/// Computes when documents expire, and prepares their collections.
#[derive(Debug)]
pub(crate) struct Expiry {
    retention: Option<Duration>,
    /// Collections whose retention is recorded and whose index is known to exist.
    prepared: Mutex<HashSet<String>>,
}

/// A day of a zone west of Greenwich ends this much later than that of UTC. The store does not know the zone.
const WESTERNMOST: SignedDuration = SignedDuration::from_hours(12);
/// Time between the expiry of a bucket and its removal. Longer than any read, and than clocks differ.
const MARGIN: SignedDuration = SignedDuration::from_hours(1);

impl Expiry {
    pub(crate) fn new(retention: Option<Duration>) -> Self {
        Self { retention, prepared: Mutex::default() }
    }

    /// Returns the moment at which the documents of `bucket` are removed, `None` if they are kept for ever.
    pub(crate) fn of(&self, bucket: Bucket) -> Option<DateTime> {
        removal(bucket, self.retention?)
    }

    /// Records the retention and creates the index, before the first document that needs them. Without the index documents are
    /// only kept longer.
    ///
    /// # Errors
    /// The retention may not be recorded, so no document may be created that expires.
    pub(crate) async fn prepare(&self, connection: &Connection, collection: &str) -> Result<(), StoreError> {
        let Some(retention) = self.retention.filter(|_| !self.prepared.lock().contains(collection)) else {
            return Ok(());
        };
        let shortest = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let record =
            rawdoc! { "q": { "_id": collection }, "u": { "$min": { "shortest": shortest } }, "upsert": true };
        command::write_all(connection, "record the retention in", RETENTION, [record]).await?;
        let command = doc! {
            "createIndexes": collection,
            "indexes": [{ "key": { EXPIRES_AT.as_str(): 1 }, "name": "countem_expires_at", "expireAfterSeconds": 0 }],
        };
        match connection.request(|database| async move { database.run_command(command).await }).await {
            Ok(_) => {
                self.prepared.lock().insert(collection.to_owned());
            }
            Err(failure) => {
                let error = connection.explain(&action("create the TTL index of", collection), failure);
                tracing::warn!(collection, %error, "expired documents stay");
            }
        }
        Ok(())
    }
}

/// Returns those of `buckets`, none of which has a root, that may have expired before, as far as is recorded.
///
/// # Errors
/// It is not known.
pub(crate) async fn expired_before(
    connection: &Connection,
    collection: &str,
    mut buckets: HashSet<Bucket>,
) -> Result<HashSet<Bucket>, StoreError> {
    // A bucket without an end is kept for ever.
    buckets.retain(|bucket| removal(*bucket, Duration::ZERO).is_some());
    if buckets.is_empty() {
        return Ok(buckets);
    }
    let projection = rawdoc! { "shortest": 1, "now": { "$add": ["$$NOW", margin()] } };
    let find =
        command::find(connection, RETENTION, Level::Majority, rawdoc! { "_id": collection }, projection);
    let mut recorded = None;
    command::read(connection, RETENTION, find, |document| {
        let shortest = number_in(document, "shortest").and_then(|shortest| u64::try_from(shortest).ok());
        recorded = shortest.zip(document.get_datetime("now").ok());
        Ok(())
    })
    .await?;
    let Some((shortest, now)) = recorded else { return Ok(HashSet::new()) };
    let shortest = Duration::from_millis(shortest);
    buckets.retain(|bucket| removal(*bucket, shortest).is_some_and(|at| at <= now));
    Ok(buckets)
}

/// Returns the moment at which the documents of `bucket` are removed after `retention`.
fn removal(bucket: Bucket, retention: Duration) -> Option<DateTime> {
    let retention = SignedDuration::try_from(retention).ok()?;
    let end = bucket.next()?.start_instant(&TimeZone::UTC);
    let at = end.checked_add(WESTERNMOST + MARGIN).ok()?.checked_add(retention).ok()?;
    Some(DateTime::from_millis(at.as_millisecond()))
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
    fn bucket_is_kept_for_its_retention_everywhere() {
        let (hour, day) = (3600 * 1000, 24 * 3600 * 1000);
        let expiry = Expiry::new(Some(Duration::from_millis(u64::try_from(30 * day).unwrap())));
        let of = |bucket: &str| expiry.of(bucket.parse().unwrap()).map(DateTime::timestamp_millis);
        assert_eq!(of("1970-01-01"), Some(day + day / 2 + 30 * day + hour));
        assert_eq!(of("1970"), Some(365 * day + day / 2 + 30 * day + hour));
        assert_eq!(of("all"), None);
        assert_eq!(Expiry::new(None).of("1970".parse().unwrap()), None);
    }
}
