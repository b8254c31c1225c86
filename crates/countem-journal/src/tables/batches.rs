//! The tables `batch` and `resolved`: frozen batches, and which of them the store has.

use countem_core::{Batch, BatchId, Writer};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{
    error::ReadError,
    tables::{
        digest::Digest,
        state::{JournalState, Resolved, Sum},
    },
};

/// A batch in the form in which it is frozen.
#[derive(Debug)]
pub(crate) struct Encoded {
    id: BatchId,
    counters: usize,
    increments: u64,
    body: Vec<u8>,
}

/// A batch read from the journal, and its digest.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) batch: Batch,
    digest: u64,
}

impl Encoded {
    pub(crate) fn new(batch: &Batch) -> Self {
        let increments = batch.totals().increments;
        Self { id: batch.id().clone(), counters: batch.len(), increments, body: batch.encode() }
    }

    pub(crate) fn id(&self) -> &BatchId {
        &self.id
    }
}

impl Frozen {
    pub(crate) fn sum(&self) -> Sum {
        Sum { digest: self.digest, items: 1, increments: self.batch.totals().increments }
    }
}

fn digest(id: &BatchId, body: &[u8]) -> u64 {
    Digest::new().text(id.writer.as_str()).number(id.lane.into()).number(id.seq).bytes(body).finish()
}

const INSERT: &str =
    "INSERT INTO batch (node, epoch, lane, seq, counters, increments, digest, body, incarnation)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const FIND: &str =
    "SELECT id, digest, increments, length(body), EXISTS (SELECT 1 FROM resolved WHERE batch = id)
    FROM batch WHERE node = ?1 AND epoch = ?2 AND lane = ?3 AND seq = ?4 AND incarnation IS ?5";

/// A row of `batch` without its body.
struct Found {
    row: i64,
    sum: Sum,
    bytes: u64,
    resolved: bool,
}

fn node(writer: &Writer) -> String {
    format!("{:016x}", writer.node())
}

fn find(connection: &Connection, id: &BatchId) -> rusqlite::Result<Option<Found>> {
    let mut statement = connection.prepare_cached(FIND)?;
    let writer = &id.writer;
    let key =
        params![node(writer), writer.epoch().cast_signed(), id.lane, id.seq.cast_signed(), writer.drawn()];
    let found = statement.query_row(key, |row| {
        let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(Found {
            row: row.get(0)?,
            sum: Sum { digest: number(1)?, items: 1, increments: number(2)? },
            bytes: number(3)?,
            resolved: row.get(4)?,
        })
    });
    found.optional()
}

/// Freezes a batch. Returns false, and changes nothing, when the identity stands for other content.
pub(crate) fn freeze(
    connection: &Connection,
    state: &mut JournalState,
    batch: &Encoded,
) -> rusqlite::Result<bool> {
    let Encoded { id, counters, increments, body } = batch;
    let digest = digest(id, body);
    if let Some(found) = find(connection, id)? {
        return Ok(found.sum.digest == digest);
    }
    connection.prepare_cached(INSERT)?.execute(params![
        node(&id.writer),
        id.writer.epoch().cast_signed(),
        id.lane,
        id.seq.cast_signed(),
        i64::try_from(*counters).unwrap_or(i64::MAX),
        increments.cast_signed(),
        digest.cast_signed(),
        body,
        id.writer.drawn(),
    ])?;
    state.frozen.add(Sum { digest, items: 1, increments: *increments });
    Ok(true)
}

/// Marks the batch `id` as resolved. Returns whether it was unresolved until now.
pub(crate) fn resolve(
    connection: &Connection,
    state: &mut JournalState,
    id: &BatchId,
    at: i64,
) -> rusqlite::Result<bool> {
    let Some(found) = find(connection, id)?.filter(|found| !found.resolved) else { return Ok(false) };
    connection
        .prepare_cached("INSERT INTO resolved (batch, at) VALUES (?1, ?2)")?
        .execute(params![found.row, at])?;
    state.frozen.subtract(found.sum);
    state.resolved.batches += 1;
    state.resolved.bytes += found.bytes;
    Ok(true)
}

/// Deletes the oldest resolved batches as long as `dispensable` holds for the time of the oldest and the size of all.
pub(crate) fn prune(
    connection: &Connection,
    state: &mut JournalState,
    mut dispensable: impl FnMut(i64, &Resolved) -> bool,
) -> rusqlite::Result<()> {
    const OLDEST: &str =
        "SELECT batch, at, length(body) FROM resolved JOIN batch ON id = batch ORDER BY batch LIMIT 1";
    while state.resolved.batches > 0 {
        let mut statement = connection.prepare_cached(OLDEST)?;
        let oldest = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
        let Some((row, at, bytes)): Option<(i64, i64, i64)> = oldest else { return Ok(()) };
        if !dispensable(at, &state.resolved) {
            return Ok(());
        }
        connection.prepare_cached("DELETE FROM resolved WHERE batch = ?1")?.execute([row])?;
        connection.prepare_cached("DELETE FROM batch WHERE id = ?1")?.execute([row])?;
        state.resolved.batches = state.resolved.batches.saturating_sub(1);
        state.resolved.bytes = state.resolved.bytes.saturating_sub(bytes.cast_unsigned());
    }
    Ok(())
}

const COLUMNS: &str = "node, epoch, lane, seq, incarnation, digest, body, counters, increments";

/// Reads the unresolved batches in the order in which they were frozen: by epoch, lane and seq.
///
/// # Errors
/// One of them is not as it was written. Missing ones are found by the digest of the state.
pub(crate) fn read_frozen(connection: &Connection) -> Result<Vec<Frozen>, ReadError> {
    let mut statement = connection.prepare(&format!(
        "SELECT {COLUMNS} FROM batch WHERE id NOT IN (SELECT batch FROM resolved) ORDER BY epoch, lane, seq, id"
    ))?;
    let mut rows = statement.query([])?;
    let mut frozen = Vec::new();
    while let Some(row) = rows.next()? {
        frozen.push(read(row)?);
    }
    Ok(frozen)
}

/// Reads one batch, resolved or not.
pub(crate) fn read_one(connection: &Connection, id: &BatchId) -> Result<Option<Batch>, ReadError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM batch WHERE node = ?1 AND epoch = ?2 AND lane = ?3 AND seq = ?4 AND incarnation IS ?5"
    ))?;
    let writer = &id.writer;
    let key =
        params![node(writer), writer.epoch().cast_signed(), id.lane, id.seq.cast_signed(), writer.drawn()];
    let mut rows = statement.query(key)?;
    rows.next()?.map(|row| Ok(read(row)?.batch)).transpose()
}

fn read(row: &Row<'_>) -> Result<Frozen, ReadError> {
    let id = read_id(row)?;
    let damaged = || ReadError::damaged(format!("batch `{id}` is not as it was frozen"));
    let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let expected = number(5)?;
    let body = row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?;
    if digest(&id, body) != expected {
        return Err(damaged());
    }
    let batch = Batch::decode(body).map_err(|_| damaged())?.journaled();
    let (counters, increments) = (number(7)?, number(8)?);
    if *batch.id() != id || batch.len() as u64 != counters || batch.totals().increments != increments {
        return Err(damaged());
    }
    Ok(Frozen { batch, digest: expected })
}

/// Reads an identity from the first five columns.
pub(crate) fn read_id(row: &Row<'_>) -> rusqlite::Result<BatchId> {
    let node: String = row.get(0)?;
    let node = u64::from_str_radix(&node, 16).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })?;
    let epoch = row.get::<_, i64>(1)?.cast_unsigned();
    let seq = row.get::<_, i64>(3)?.cast_unsigned();
    let writer = match row.get(4)? {
        Some(incarnation) => Writer::incarnation(node, epoch, incarnation),
        None => Writer::new(node, epoch),
    };
    Ok(BatchId { writer, lane: row.get(2)?, seq })
}

/// Reads the number and the size of the resolved batches.
pub(crate) fn read_resolved_size(connection: &Connection) -> rusqlite::Result<Resolved> {
    const SIZE: &str =
        "SELECT count(*), coalesce(sum(length(body)), 0) FROM resolved JOIN batch ON id = batch";
    connection.query_row(SIZE, [], |row| {
        let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(Resolved { batches: number(0)?, bytes: number(1)? })
    })
}
