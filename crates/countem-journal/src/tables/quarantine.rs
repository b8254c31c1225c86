//! The table `quarantined`: deltas that could not be added to their counter, until a person retries or drops them.

use countem_core::{BatchId, Deltas, Quarantined};
use rusqlite::{Connection, Row, params};

use crate::{
    error::ReadError,
    quarantine::QuarantineEntry,
    tables::{
        digest::Digest,
        pending,
        state::{JournalState, Sum},
    },
};

const INSERT: &str = "INSERT INTO quarantined
    (writer, lane, seq, collection, bucket, metric, n, increments, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// Adds a delta, and the batch of which it was a part.
pub(crate) fn add(
    connection: &Connection,
    state: &mut JournalState,
    batch: Option<&BatchId>,
    quarantined: &Quarantined,
) -> rusqlite::Result<()> {
    let Quarantined { collection, metric, bucket, n, increments, reason } = quarantined;
    let id = connection.prepare_cached(INSERT)?.insert(params![
        batch.map(|batch| batch.writer.as_str()),
        batch.map(|batch| batch.lane),
        batch.map(|batch| batch.seq.cast_signed()),
        collection,
        bucket.to_string(),
        metric,
        n,
        increments.cast_signed(),
        reason,
    ])?;
    state.quarantined.add(sum_of(id, batch, quarantined));
    Ok(())
}

/// Moves the `pending` deltas, which are all that the journal holds, into quarantine, and returns their number.
pub(crate) fn add_pending<'a>(
    connection: &Connection,
    state: &mut JournalState,
    pending: impl Iterator<Item = (u16, &'a Deltas)>,
    reason: &str,
) -> rusqlite::Result<usize> {
    let mut moved = 0;
    for (lane, deltas) in pending {
        for delta in deltas.iter() {
            add(connection, state, None, &Quarantined::new(delta, reason))?;
        }
        pending::clear(connection, state, lane)?;
        moved += deltas.len();
    }
    Ok(moved)
}

/// Removes an entry, which exists.
pub(crate) fn remove(
    connection: &Connection,
    state: &mut JournalState,
    entry: &QuarantineEntry,
) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM quarantined WHERE id = ?1")?.execute([entry.id])?;
    state.quarantined.subtract(sum(entry));
    Ok(())
}

/// Reads all quarantined deltas, oldest first.
pub(crate) fn read(connection: &Connection) -> Result<Vec<QuarantineEntry>, ReadError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, writer, lane, seq, collection, bucket, metric, n, increments, reason FROM quarantined ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let entry = read_entry(row)?;
        entries.push(entry.ok_or_else(|| ReadError::damaged("a quarantined count is not readable"))?);
    }
    Ok(entries)
}

fn read_entry(row: &Row<'_>) -> rusqlite::Result<Option<QuarantineEntry>> {
    let batch: (Option<String>, Option<u16>, Option<i64>) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let batch = match batch {
        (None, None, None) => None,
        (Some(writer), Some(lane), Some(seq)) => match writer.parse() {
            Ok(writer) => Some(BatchId { writer, lane, seq: seq.cast_unsigned() }),
            Err(_) => return Ok(None),
        },
        _ => return Ok(None),
    };
    let bucket: String = row.get(5)?;
    let Ok(bucket) = bucket.parse() else { return Ok(None) };
    let quarantined = Quarantined {
        collection: row.get(4)?,
        metric: row.get(6)?,
        bucket,
        n: row.get(7)?,
        increments: row.get::<_, i64>(8)?.cast_unsigned(),
        reason: row.get(9)?,
    };
    Ok(Some(QuarantineEntry { id: row.get(0)?, batch, quarantined }))
}

/// Returns the share of an entry in the sum of its table.
pub(crate) fn sum(entry: &QuarantineEntry) -> Sum {
    sum_of(entry.id, entry.batch.as_ref(), &entry.quarantined)
}

fn sum_of(id: i64, batch: Option<&BatchId>, quarantined: &Quarantined) -> Sum {
    let Quarantined { collection, metric, bucket, n, increments, reason } = quarantined;
    let batch = batch.map_or_else(String::new, BatchId::to_string);
    let digest = Digest::new()
        .number(id.cast_unsigned())
        .text(&batch)
        .text(collection)
        .text(&bucket.to_string())
        .text(metric)
        .number(n.cast_unsigned())
        .number(*increments)
        .text(reason)
        .finish();
    Sum { digest, items: 1, increments: *increments }
}
