//! The table `quarantined`: what could not be added to its counter, until a person decides.

use std::path::Path;

use countem_core::BatchId;

pub use countem_core::Quarantined;
use rusqlite::{Connection, Row, params};

use crate::{
    digest::Digest,
    error::JournalError,
    ledger::{Ledger, Sum},
    schema::at_open,
};

/// A quarantined delta in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Names the entry. Never used twice in one journal.
    pub id: i64,
    /// The batch of which it is the only part that is not in the store; `None` when it never was in a batch.
    pub batch: Option<BatchId>,
    /// The delta and the reason.
    pub quarantined: Quarantined,
}

/// Says which quarantined deltas are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Every one that is there when the call is carried out.
    All,
    /// Those with these ids, as far as they are still there.
    Ids(Vec<i64>),
}

impl Selection {
    pub(crate) fn includes(&self, entry: &QuarantineEntry) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.contains(&entry.id),
        }
    }
}

const INSERT: &str = "INSERT INTO quarantined
    (writer, lane, seq, collection, bucket, metric, n, increments, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// Keeps a delta that could not be added.
pub(crate) fn add(
    connection: &Connection,
    ledger: &mut Ledger,
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
    ledger.quarantined.add(sum_of(id, batch, quarantined));
    Ok(())
}

/// Takes the selected deltas out of quarantine.
pub(crate) fn take(
    connection: &Connection,
    ledger: &mut Ledger,
    path: &Path,
    selection: &Selection,
) -> Result<Vec<QuarantineEntry>, JournalError> {
    let mut taken = read(connection, path)?;
    taken.retain(|entry| selection.includes(entry));
    for entry in &taken {
        remove(connection, ledger, entry)
            .map_err(|error| JournalError::sqlite(path, "take out of quarantine in", &error))?;
    }
    Ok(taken)
}

/// Takes one delta, which is there, out of quarantine.
pub(crate) fn remove(
    connection: &Connection,
    ledger: &mut Ledger,
    entry: &QuarantineEntry,
) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM quarantined WHERE id = ?1")?.execute([entry.id])?;
    ledger.quarantined.subtract(sum(entry));
    Ok(())
}

/// Reads all quarantined deltas, oldest first.
pub(crate) fn read(connection: &Connection, path: &Path) -> Result<Vec<QuarantineEntry>, JournalError> {
    let failed = |error: rusqlite::Error| at_open(path, &error);
    let mut statement = connection
        .prepare_cached(
            "SELECT id, writer, lane, seq, collection, bucket, metric, n, increments, reason FROM quarantined ORDER BY id",
        )
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let entry = read_entry(row).map_err(failed)?;
        entries
            .push(entry.ok_or_else(|| JournalError::corrupt(path, "a quarantined count is not readable"))?);
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

/// Returns what an entry contributes to the sum of its table.
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
