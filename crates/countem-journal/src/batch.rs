//! The tables `batch` and `resolved`: what is or was on its way to the store.

use std::path::Path;

use countem_core::{Batch, BatchId, Writer};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{
    digest::Digest,
    error::JournalError,
    ledger::{Ledger, Resolved, Sum},
    schema::at_open,
};

/// A batch as bytes, on its way into the journal.
#[derive(Debug)]
pub(crate) struct Encoded {
    id: BatchId,
    counters: usize,
    increments: u64,
    body: Vec<u8>,
}

/// A batch out of the journal.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) batch: Batch,
    digest: u64,
}

impl Encoded {
    pub(crate) fn id(&self) -> &BatchId {
        &self.id
    }

    pub(crate) fn new(batch: &Batch) -> Self {
        let increments = batch.totals().increments;
        Self { id: batch.id().clone(), counters: batch.len(), increments, body: batch.encode() }
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

const INSERT: &str = "INSERT INTO batch (node, epoch, lane, seq, counters, increments, digest, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const FIND: &str =
    "SELECT id, digest, increments, length(body), EXISTS (SELECT 1 FROM resolved WHERE batch = id)
    FROM batch WHERE node = ?1 AND epoch = ?2 AND lane = ?3 AND seq = ?4";

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
    let key = params![node(&id.writer), id.writer.epoch().cast_signed(), id.lane, id.seq.cast_signed()];
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

/// Freezes a batch. Returns false, with nothing done, when the identity was used for something else.
pub(crate) fn freeze(
    connection: &Connection,
    ledger: &mut Ledger,
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
    ])?;
    ledger.frozen.add(Sum { digest, items: 1, increments: *increments });
    Ok(true)
}

/// Notes that the store has the batch `id`. Returns whether it was unresolved until now.
pub(crate) fn resolve(
    connection: &Connection,
    ledger: &mut Ledger,
    id: &BatchId,
    at: i64,
) -> rusqlite::Result<bool> {
    let Some(found) = find(connection, id)?.filter(|found| !found.resolved) else { return Ok(false) };
    connection
        .prepare_cached("INSERT INTO resolved (batch, at) VALUES (?1, ?2)")?
        .execute(params![found.row, at])?;
    ledger.frozen.subtract(found.sum);
    ledger.resolved.batches += 1;
    ledger.resolved.bytes += found.bytes;
    Ok(true)
}

/// Deletes the oldest resolved batches as long as `dispensable` says so of their age and of all that is kept.
pub(crate) fn prune(
    connection: &Connection,
    ledger: &mut Ledger,
    mut dispensable: impl FnMut(i64, &Resolved) -> bool,
) -> rusqlite::Result<()> {
    const OLDEST: &str =
        "SELECT batch, at, length(body) FROM resolved JOIN batch ON id = batch ORDER BY batch LIMIT 1";
    while ledger.resolved.batches > 0 {
        let mut statement = connection.prepare_cached(OLDEST)?;
        let oldest = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
        let Some((row, at, bytes)): Option<(i64, i64, i64)> = oldest else { return Ok(()) };
        if !dispensable(at, &ledger.resolved) {
            return Ok(());
        }
        connection.prepare_cached("DELETE FROM resolved WHERE batch = ?1")?.execute([row])?;
        connection.prepare_cached("DELETE FROM batch WHERE id = ?1")?.execute([row])?;
        ledger.resolved.batches = ledger.resolved.batches.saturating_sub(1);
        ledger.resolved.bytes = ledger.resolved.bytes.saturating_sub(bytes.cast_unsigned());
    }
    Ok(())
}

/// Reads the unresolved batches in the order in which they were frozen: by epoch, lane and seq.
///
/// # Errors
/// One of them is not as it was written. Whether any is missing is the ledger's business.
pub(crate) fn read_frozen(connection: &Connection, path: &Path) -> Result<Vec<Frozen>, JournalError> {
    let failed = |error: rusqlite::Error| at_open(path, &error);
    let mut statement = connection
        .prepare(&format!(
            "SELECT {COLUMNS} FROM batch WHERE id NOT IN (SELECT batch FROM resolved) ORDER BY epoch, lane, seq, id"
        ))
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut frozen = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        frozen.push(read(row, path)?);
    }
    Ok(frozen)
}

/// Reads one batch, resolved or not.
pub(crate) fn read_one(
    connection: &Connection,
    path: &Path,
    id: &BatchId,
) -> Result<Option<Batch>, JournalError> {
    let failed = |error: rusqlite::Error| at_open(path, &error);
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM batch WHERE node = ?1 AND epoch = ?2 AND lane = ?3 AND seq = ?4"
        ))
        .map_err(failed)?;
    let key = params![node(&id.writer), id.writer.epoch().cast_signed(), id.lane, id.seq.cast_signed()];
    let mut rows = statement.query(key).map_err(failed)?;
    match rows.next().map_err(failed)? {
        Some(row) => Ok(Some(read(row, path)?.batch)),
        None => Ok(None),
    }
}

const COLUMNS: &str = "node, epoch, lane, seq, digest, body, counters, increments";

fn read(row: &Row<'_>, path: &Path) -> Result<Frozen, JournalError> {
    let failed = |error: rusqlite::Error| at_open(path, &error);
    let id = read_id(row).map_err(failed)?;
    let corrupt = || JournalError::corrupt(path, format_args!("batch `{id}` is not as it was frozen"));
    let expected = row.get::<_, i64>(4).map_err(failed)?.cast_unsigned();
    let body = row.get_ref(5).and_then(|value| Ok(value.as_blob()?)).map_err(failed)?;
    if digest(&id, body) != expected {
        return Err(corrupt());
    }
    let batch = Batch::decode(body).map_err(|_| corrupt())?;
    let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned).map_err(failed);
    let (counters, increments) = (number(6)?, number(7)?);
    if *batch.id() != id || batch.len() as u64 != counters || batch.totals().increments != increments {
        return Err(corrupt());
    }
    Ok(Frozen { batch, digest: expected })
}

/// Reads an identity from the first four columns.
pub(crate) fn read_id(row: &Row<'_>) -> rusqlite::Result<BatchId> {
    let node: String = row.get(0)?;
    let node = u64::from_str_radix(&node, 16).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })?;
    let epoch = row.get::<_, i64>(1)?.cast_unsigned();
    let seq = row.get::<_, i64>(3)?.cast_unsigned();
    Ok(BatchId { writer: Writer::new(node, epoch), lane: row.get(2)?, seq })
}

/// Reads how much is kept of resolved batches.
pub(crate) fn read_resolved_size(connection: &Connection) -> rusqlite::Result<Resolved> {
    const SIZE: &str =
        "SELECT count(*), coalesce(sum(length(body)), 0) FROM resolved JOIN batch ON id = batch";
    connection.query_row(SIZE, [], |row| {
        let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
        Ok(Resolved { batches: number(0)?, bytes: number(1)? })
    })
}
