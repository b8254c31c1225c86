//! Comparing a journal with its store.

use std::time::{SystemTime, UNIX_EPOCH};

use countem_core::BatchId;
use countem_journal::JournalReader;
use countem_store::Store;

use super::{Lookup, MaintenanceError, look_up, split_by_age};

/// Result of an audit: numbers of batches of a journal.
#[derive(Debug, Default, Clone)]
#[non_exhaustive]
pub struct AuditReport {
    /// Stored batches that the store has.
    pub stored: usize,
    /// Stored batches whose counters tell nothing.
    pub unknown: usize,
    /// Batches that the journal knows as stored and that the store lacks.
    pub missing: Vec<MissingBatch>,
    /// Stored batches that were not compared, because the store may have forgotten them.
    pub too_old: usize,
    /// Frozen batches, which are not known to be stored.
    pub frozen: usize,
    /// Frozen batches that the store has already.
    pub arrived: usize,
}

/// A batch that the journal knows as stored and that the store lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingBatch {
    /// Identity of the batch.
    pub id: BatchId,
    /// The store has a part of the batch.
    pub is_partial: bool,
}

/// Looks up every batch of a journal in a store that is sure to remember the batches it got since `remembered_since`.
/// Changes nothing, and may run beside the process that uses the journal.
///
/// # Errors
/// The journal or the store could not be read.
pub async fn audit(
    reader: &JournalReader,
    store: &dyn Store,
    remembered_since: SystemTime,
) -> Result<AuditReport, MaintenanceError> {
    // Frozen batches are read first: one that is stored in the meantime is then compared as a stored one, too.
    let frozen = reader.frozen()?;
    let (stored, too_old) = split_by_age(reader.resolved(UNIX_EPOCH)?, remembered_since);
    let mut report = AuditReport { too_old: too_old.len(), frozen: frozen.len(), ..AuditReport::default() };
    for id in stored.into_iter().map(|batch| batch.id) {
        // A running process may have dropped it since.
        let Some(batch) = reader.batch(&id)? else { continue };
        match look_up(store, &batch).await? {
            Lookup::Stored => report.stored += 1,
            Lookup::Unknown => report.unknown += 1,
            lookup => report.missing.push(MissingBatch { id, is_partial: lookup == Lookup::Partial }),
        }
    }
    for batch in &frozen {
        report.arrived += usize::from(look_up(store, batch).await? == Lookup::Stored);
    }
    Ok(report)
}
