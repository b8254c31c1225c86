//! Expiry of buckets: their rows are removed, and deltas for them are quarantined from then on.
//!
//! The table `removed` holds the time by which buckets had expired that were removed, or may have been. It is written in the
//! transaction that removes the first of them, so a bucket that may have been removed takes no count again, whatever the clocks say.

use countem_core::{Bucket, BucketRange, CollectionName, Period, Schedules, jiff::Timestamp};
use countem_store::{REMOVAL_MARGIN, StoreError};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::{read, schedule};

const REMOVED_BY: &str = "SELECT second FROM removed";
const SET_REMOVED_BY: &str = "INSERT OR REPLACE INTO removed (id, second) VALUES (1, ?1)";
const REMOVE: &str = "DELETE FROM counter WHERE collection = ?1 AND bucket = ?2 AND metric IN (
        SELECT metric FROM counter WHERE collection = ?1 AND bucket = ?2 LIMIT ?3
    )";

/// Statements of a batch.
pub(crate) const STATEMENTS: [&str; 1] = [REMOVED_BY];

/// Buckets that have expired, and the time by which they had.
#[derive(Debug)]
pub(crate) struct Expired {
    by: Timestamp,
    buckets: Vec<(String, String)>,
}

/// The buckets that may have been removed.
#[derive(Debug)]
pub(crate) struct Removed {
    schedules: Schedules,
    by: Timestamp,
}

impl Removed {
    /// Reads which buckets may have been removed, `None` where none was.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let mut select = connection.prepare_cached(REMOVED_BY)?;
        let Some(second) = select.query_row([], |row| row.get::<_, i64>(0)).optional()? else {
            return Ok(None);
        };
        let by = Timestamp::from_second(second).map_err(|error| schedule::unreadable(error.into()))?;
        let schedules = schedule::parse(&schedule::lines(connection)?);
        let schedules = schedules.map_err(|error| schedule::unreadable(error.into()))?;
        Ok(schedules.map(|schedules| Self { schedules, by }))
    }

    /// Returns true where `bucket` is one of them.
    pub(crate) fn holds(&self, collection: &str, bucket: Bucket) -> bool {
        self.schedules.of(collection).has_expired(bucket, self.by)
    }
}

/// Returns the reason of a quarantine.
pub(crate) fn reason(bucket: Bucket) -> String {
    format!("the bucket {bucket} has expired")
}

/// Finds buckets to remove at `now`, at most `limit` of them.
pub(crate) fn find(connection: &Connection, now: Timestamp, limit: usize) -> rusqlite::Result<Expired> {
    // Whole seconds, as they are recorded.
    let by = now.as_second().saturating_sub(REMOVAL_MARGIN.as_secs());
    let by = Timestamp::from_second(by).unwrap_or(Timestamp::MIN);
    let mut expired = Expired { by, buckets: Vec::new() };
    let recorded: Result<_, StoreError> = schedule::parse(&schedule::lines(connection)?);
    let Some(schedules) = recorded.map_err(|error| schedule::unreadable(error.into()))? else {
        return Ok(expired);
    };
    let expires = |name: &CollectionName| schedules.of(name.as_str()).expires();
    if !schedules.default_schedule().expires() && !schedules.exceptions().any(|(name, _)| expires(name)) {
        return Ok(expired);
    }
    for collection in read::collections(connection)?.iter().filter(|name| expires(name)) {
        for period in Period::ALL {
            let Some(kept) = schedules.of(collection.as_str()).kept_from(period, by) else { continue };
            let every = BucketRange::every(period).first();
            let left = limit - expired.buckets.len();
            let found = read::buckets_before(connection, collection.as_str(), every, kept, left)?;
            expired.buckets.extend(found.into_iter().map(|bucket| (collection.to_string(), bucket)));
        }
    }
    Ok(expired)
}

/// Removes at most `limit` counters of `expired`, and returns how many.
pub(crate) fn remove(
    connection: &mut Connection,
    expired: &Expired,
    limit: usize,
) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before: Option<i64> = transaction.query_row(REMOVED_BY, [], |row| row.get(0)).optional()?;
    let by = before.map_or(expired.by.as_second(), |before| before.max(expired.by.as_second()));
    transaction.execute(SET_REMOVED_BY, [by])?;
    let mut removed = 0;
    for (collection, bucket) in &expired.buckets {
        let left = i64::try_from(limit - removed).unwrap_or(i64::MAX);
        removed += transaction.prepare_cached(REMOVE)?.execute(params![collection, bucket, left])?;
        if removed == limit {
            break;
        }
    }
    transaction.commit()?;
    Ok(removed)
}

impl Expired {
    /// Returns true where nothing is to be removed.
    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}
