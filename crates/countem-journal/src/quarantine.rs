//! Quarantined deltas.

pub use countem_core::Quarantined;

use countem_core::BatchId;

/// A quarantined delta in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Id of the entry. Never used twice in one journal.
    pub id: i64,
    /// The batch of which it is the only part that is not in the store; `None` when it was in no batch.
    pub batch: Option<BatchId>,
    /// The delta and the reason.
    pub quarantined: Quarantined,
}

/// A choice of quarantined deltas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Every entry that exists when the call is executed.
    All,
    /// The entries with these ids, as far as they exist.
    Ids(Vec<i64>),
}

#[cfg(feature = "sqlite")]
impl Selection {
    pub(crate) fn includes(&self, entry: &QuarantineEntry) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.contains(&entry.id),
        }
    }
}
