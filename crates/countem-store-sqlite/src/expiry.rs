//! Removal of the rows of expired buckets.

use countem_core::{BucketRange, CollectionName, Period, jiff::Timestamp};
use countem_store::{REMOVAL_MARGIN, StoreError};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::{read, removed::REMOVED_BY, schedule};

const SET_REMOVED_BY: &str = "INSERT OR REPLACE INTO removed (id, second) VALUES (1, ?1)";
const REMOVE: &str = "DELETE FROM counter WHERE collection = ?1 AND bucket = ?2 AND metric IN (
        SELECT metric FROM counter WHERE collection = ?1 AND bucket = ?2 LIMIT ?3
    )";

/// Buckets that have expired, and the time by which they had.
#[derive(Debug)]
pub(crate) struct Expired {
    by: Timestamp,
    buckets: Vec<(String, String)>,
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
