//! The table `removed`: the time by which buckets had expired that were removed, or may have been.
//!
//! It is written in the transaction that removes the first of them, so a bucket that may have been removed takes no count again,
//! whatever the clocks say: deltas for it are quarantined.

use countem_core::{Bucket, Schedules, jiff::Timestamp};
use rusqlite::{Connection, OptionalExtension as _};

use crate::schedule;

pub(crate) const REMOVED_BY: &str = "SELECT second FROM removed";

/// Statements of a batch.
pub(crate) const STATEMENTS: [&str; 1] = [REMOVED_BY];

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
