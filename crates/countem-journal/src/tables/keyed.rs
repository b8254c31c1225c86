//! The table `keyed`: requests with an idempotency key that are not decided.

use std::sync::Arc;

use countem_core::{Batch, BatchId, IdempotencyKey, jiff::Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{
    error::{ErrorKind, Failure, JournalError, ReadError},
    keyed::KeyedEntry,
    tables::{
        digest::Digest,
        quarantine,
        state::{JournalState, Sum},
    },
};

const INSERT: &str =
    "INSERT INTO keyed (writer, lane, position, key, body, expires_at, counts, increments, digest)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING";
const FIND: &str = "SELECT digest, increments FROM keyed WHERE writer = ?1 AND lane = ?2 AND position = ?3";
const DELETE: &str = "DELETE FROM keyed WHERE writer = ?1 AND lane = ?2 AND position = ?3";

/// Adds an entry.
///
/// # Errors
/// [`Failure::Refused`]: another entry has its identity.
pub(crate) fn add(
    connection: &Connection,
    state: &mut JournalState,
    entry: &KeyedEntry,
) -> Result<(), Failure> {
    let id = entry.counts.id();
    let counts = entry.counts.encode();
    let expires_at = entry.expires_at.as_millisecond();
    let increments = entry.counts.totals().increments;
    let digest = digest(id, entry.key.as_str(), &entry.body, expires_at, &counts);
    let row = params![
        id.writer.as_str(),
        id.lane,
        id.seq.cast_signed(),
        entry.key.as_str(),
        entry.body,
        expires_at,
        counts,
        increments.cast_signed(),
        digest.cast_signed(),
    ];
    if connection.prepare_cached(INSERT)?.execute(row)? == 0 {
        let why = format!("cannot record the request `{id}`: its identity was used for another one");
        return Err(Failure::Refused(JournalError::new(ErrorKind::Refused, why)));
    }
    state.keyed.get_or_insert_default().add(Sum { digest, items: 1, increments });
    Ok(())
}

/// Removes an entry. One that is not there is no error.
pub(crate) fn remove(
    connection: &Connection,
    state: &mut JournalState,
    id: &BatchId,
) -> rusqlite::Result<()> {
    let key = params![id.writer.as_str(), id.lane, id.seq.cast_signed()];
    let number = |row: &Row<'_>, at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let found = connection.prepare_cached(FIND)?.query_row(key, |row| Ok((number(row, 0)?, number(row, 1)?)));
    if let Some((digest, increments)) = found.optional()? {
        connection.prepare_cached(DELETE)?.execute(key)?;
        state.keyed.get_or_insert_default().subtract(Sum { digest, items: 1, increments });
    }
    Ok(())
}

/// Reads all entries, in the order of their identities, and their sums.
///
/// # Errors
/// One of them is not as it was written. Missing ones are found by the digest of the state.
pub(crate) fn read(connection: &Connection) -> Result<Vec<(KeyedEntry, Sum)>, ReadError> {
    let mut statement = connection.prepare(
        "SELECT writer, lane, position, key, body, expires_at, counts, increments, digest FROM keyed
        ORDER BY writer, lane, position",
    )?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(read_entry(row)?);
    }
    Ok(entries)
}

fn read_entry(row: &Row<'_>) -> Result<(KeyedEntry, Sum), ReadError> {
    let damaged = || ReadError::damaged("a request with an idempotency key is not as it was recorded");
    let text = |at: usize| row.get_ref(at).ok().and_then(|value| value.as_str().ok()).ok_or_else(damaged);
    let blob = |at: usize| row.get_ref(at).ok().and_then(|value| value.as_blob().ok()).ok_or_else(damaged);
    let number = |at: usize| row.get::<_, i64>(at);
    let writer = text(0)?.parse().map_err(|_| damaged())?;
    let id = BatchId { writer, lane: row.get(1)?, seq: number(2)?.cast_unsigned() };
    let (key, body, expires_at, counts) = (text(3)?, blob(4)?, number(5)?, blob(6)?);
    let (increments, expected) = (number(7)?.cast_unsigned(), number(8)?.cast_unsigned());
    if digest(&id, key, body, expires_at, counts) != expected {
        return Err(damaged());
    }
    let entry = KeyedEntry {
        key: key.parse::<IdempotencyKey>().map_err(|_| damaged())?,
        body: body.try_into().map_err(|_| damaged())?,
        expires_at: Timestamp::from_millisecond(expires_at).map_err(|_| damaged())?,
        counts: Arc::new(Batch::decode(counts).map_err(|_| damaged())?),
    };
    if *entry.counts.id() != id || entry.counts.totals().increments != increments {
        return Err(damaged());
    }
    Ok((entry, Sum { digest: expected, items: 1, increments }))
}

/// Moves the deltas of `entries`, which are all that the journal holds, into quarantine, and returns their number.
pub(crate) fn quarantine_all<'a>(
    connection: &Connection,
    state: &mut JournalState,
    entries: impl Iterator<Item = &'a KeyedEntry>,
    reason: &str,
) -> rusqlite::Result<usize> {
    let mut moved = 0;
    for entry in entries {
        for delta in entry.counts.deltas() {
            let quarantined = countem_core::Quarantined::new(delta, reason);
            quarantine::add(connection, state, None, &quarantined)?;
        }
        remove(connection, state, entry.counts.id())?;
        moved += entry.counts.len();
    }
    Ok(moved)
}

fn digest(id: &BatchId, key: &str, body: &[u8], expires_at: i64, counts: &[u8]) -> u64 {
    let id = Digest::new().text(id.writer.as_str()).number(id.lane.into()).number(id.seq);
    id.text(key).bytes(body).number(expires_at.cast_unsigned()).bytes(counts).finish()
}
