//! Errors of maintenance actions.

use countem_core::{BatchId, FoldError};
use countem_journal::JournalError;
use countem_store::StoreError;

/// An error of a maintenance action. Counts that are not in the store stay in the journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaintenanceError {
    /// The store could not be read, or did not take a batch.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Pending counts of the journal could not be merged.
    #[error("cannot add up the pending counts of the journal")]
    Pending(#[from] FoldError),
    /// A batch left the journal in the meantime.
    #[error("the journal does not keep batch `{0}` any more")]
    NotKept(BatchId),
    /// The store lacks a batch that a replay leaves out.
    #[error("the store lacks batch `{0}`, which is older than the replayed ones")]
    OlderBatchMissing(BatchId),
}
