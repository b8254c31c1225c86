//! Expiry of documents, and the TTL index that removes them.

use std::{collections::HashSet, time::Duration};

use countem_core::{
    Bucket,
    jiff::{SignedDuration, tz::TimeZone},
};
use mongodb::bson::{DateTime, doc};
use parking_lot::Mutex;

use crate::{command::action, connection::Connection, document::EXPIRES_AT};

/// Computes when documents expire, and prepares their collections.
#[derive(Debug)]
pub(crate) struct Expiry {
    retention: Option<Duration>,
    /// Collections whose index is known to exist.
    prepared: Mutex<HashSet<String>>,
}

/// A day of a zone west of Greenwich ends this much later than that of UTC. The store does not know the zone.
const WESTERNMOST: SignedDuration = SignedDuration::from_hours(12);

impl Expiry {
    pub(crate) fn new(retention: Option<Duration>) -> Self {
        Self { retention, prepared: Mutex::default() }
    }

    /// Returns the moment at which the documents of `bucket` expire, `None` if they are kept for ever.
    pub(crate) fn of(&self, bucket: Bucket) -> Option<DateTime> {
        let retention = SignedDuration::try_from(self.retention?).ok()?;
        let end = bucket.next()?.start_instant(&TimeZone::UTC);
        let at = end.checked_add(WESTERNMOST).ok()?.checked_add(retention).ok()?;
        Some(DateTime::from_millis(at.as_millisecond()))
    }

    /// Creates the index before the first document that needs it. After a failure documents are only kept longer.
    pub(crate) async fn prepare(&self, connection: &Connection, collection: &str) {
        if self.retention.is_none() || self.prepared.lock().contains(collection) {
            return;
        }
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_is_kept_for_its_retention_everywhere() {
        let day = 24 * 3600 * 1000;
        let expiry = Expiry::new(Some(Duration::from_millis(u64::try_from(30 * day).unwrap())));
        let of = |bucket: &str| expiry.of(bucket.parse().unwrap()).map(DateTime::timestamp_millis);
        assert_eq!(of("1970-01-01"), Some(day + day / 2 + 30 * day));
        assert_eq!(of("1970"), Some(365 * day + day / 2 + 30 * day));
        assert_eq!(of("all"), None);
        assert_eq!(Expiry::new(None).of("1970".parse().unwrap()), None);
    }
}
