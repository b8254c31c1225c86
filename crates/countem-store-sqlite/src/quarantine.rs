//! The table `quarantined`: deltas that could not be added.
//!
//! Rows of a batch that no journal keeps stay until they are released. The others only repeat the report of their batch, and go
//! with the next batch of the lane.

use countem_core::{BatchId, Bucket, Delta, Quarantined};
use countem_store::{Held, Release, Released};
use rusqlite::{Connection, Error, OptionalExtension as _, Row, TransactionBehavior, params, types::Type};

use crate::removed::{self, Removed};

const INSERT: &str = "INSERT OR REPLACE INTO quarantined
    (writer, lane, seq, collection, bucket, metric, n, increments, reason, journaled)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const OF_BATCH: &str = "SELECT collection, metric, bucket, n, increments, reason FROM quarantined
    WHERE writer = ?1 AND lane = ?2 AND seq = ?3 ORDER BY collection, bucket, metric";
const HELD: &str =
    "SELECT collection, metric, bucket, n, increments, reason, writer, lane, seq FROM quarantined
    WHERE NOT journaled ORDER BY collection, bucket, metric, writer, lane, seq";
const REPORTED: &str = "DELETE FROM quarantined WHERE writer = ?1 AND lane = ?2 AND journaled AND seq < ?3";
const OF_WRITER: &str = "DELETE FROM quarantined WHERE writer = ?1 AND journaled";
const N: &str = "SELECT n FROM quarantined WHERE writer = ?1 AND lane = ?2 AND seq = ?3
    AND collection = ?4 AND bucket = ?5 AND metric = ?6";
const DELETE: &str = "DELETE FROM quarantined WHERE writer = ?1 AND lane = ?2 AND seq = ?3
    AND collection = ?4 AND bucket = ?5 AND metric = ?6";
const VALUE: &str = "SELECT value FROM counter WHERE collection = ?1 AND bucket = ?2 AND metric = ?3";
const SET_VALUE: &str =
    "INSERT OR REPLACE INTO counter (collection, bucket, metric, value) VALUES (?1, ?2, ?3, ?4)";

/// Statements of a batch.
pub(crate) const STATEMENTS: [&str; 3] = [INSERT, OF_BATCH, REPORTED];

/// Keeps a delta that could not be added, with the reason.
pub(crate) fn add(
    connection: &Connection,
    id: &BatchId,
    is_journaled: bool,
    delta: Delta<'_>,
    reason: &str,
) -> rusqlite::Result<()> {
    connection.prepare_cached(INSERT)?.execute(params![
        id.writer.as_str(),
        id.lane,
        id.seq.cast_signed(),
        delta.collection,
        delta.bucket.to_string(),
        delta.metric,
        delta.n,
        delta.increments.cast_signed(),
        reason,
        is_journaled,
    ])?;
    Ok(())
}

/// Returns why `n` cannot be added to `value`.
pub(crate) fn overflow(value: i64, n: i64) -> String {
    format!("{value} plus {n} exceeds 64 bits")
}

/// Reads what was quarantined of a batch.
pub(crate) fn of_batch(connection: &Connection, id: &BatchId) -> rusqlite::Result<Vec<Quarantined>> {
    let mut statement = connection.prepare_cached(OF_BATCH)?;
    let rows = statement.query_map(params![id.writer.as_str(), id.lane, id.seq.cast_signed()], read);
    rows?.collect()
}

/// Deletes the reports of batches before `id`: its writer has moved on.
pub(crate) fn delete_reported(connection: &Connection, id: &BatchId) -> rusqlite::Result<()> {
    let before = params![id.writer.as_str(), id.lane, id.seq.cast_signed()];
    connection.prepare_cached(REPORTED)?.execute(before).map(drop)
}

/// Deletes the reports of a writer.
pub(crate) fn delete_reports_of(connection: &Connection, writer: &str) -> rusqlite::Result<()> {
    connection.execute(OF_WRITER, [writer]).map(drop)
}

/// Lists what is held until it is released.
pub(crate) fn held(connection: &Connection) -> rusqlite::Result<Vec<Held>> {
    let mut statement = connection.prepare_cached(HELD)?;
    let rows = statement.query_map([], |row| {
        let writer = row.get_ref(6)?.as_str()?.parse().map_err(|error| unreadable(6, error))?;
        let batch = BatchId { writer, lane: row.get(7)?, seq: row.get::<_, i64>(8)?.cast_unsigned() };
        Ok(Held { batch, quarantined: read(row)? })
    });
    rows?.collect()
}

/// Releases a delta in one transaction.
pub(crate) fn release(
    connection: &mut Connection,
    held: &Held,
    release: Release,
) -> rusqlite::Result<Released> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Held { batch, quarantined: Quarantined { collection, bucket, metric, .. } } = held;
    let bucket = bucket.to_string();
    let entry =
        params![batch.writer.as_str(), batch.lane, batch.seq.cast_signed(), collection, bucket, metric];
    let Some(n) = transaction.query_row(N, entry, |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(Released::Gone);
    };
    if release == Release::Retry {
        let gone = Removed::read(&transaction)?;
        if gone.is_some_and(|gone| gone.holds(collection, held.quarantined.bucket)) {
            return Ok(Released::Kept(removed::reason(held.quarantined.bucket)));
        }
        let value = transaction.query_row(VALUE, [collection, &bucket, metric], |row| row.get(0));
        let value: i64 = value.optional()?.unwrap_or(0);
        let Some(sum) = value.checked_add(n) else { return Ok(Released::Kept(overflow(value, n))) };
        transaction.execute(SET_VALUE, params![collection, bucket, metric, sum])?;
    }
    transaction.execute(DELETE, entry)?;
    transaction.commit()?;
    Ok(Released::Done)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Quarantined> {
    let bucket: Bucket = row.get_ref(2)?.as_str()?.parse().map_err(|error| unreadable(2, error))?;
    Ok(Quarantined {
        collection: row.get(0)?,
        metric: row.get(1)?,
        bucket,
        n: row.get(3)?,
        increments: row.get::<_, i64>(4)?.cast_unsigned(),
        reason: row.get(5)?,
    })
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
