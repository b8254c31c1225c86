//! Health and counters of an open journal.

use std::time::Duration;

/// Health and counters of an open journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Ability to make counts durable now.
    pub health: Health,
    /// Number of the newest transaction.
    pub tick: u64,
    /// Transactions committed since it was opened.
    pub commits: u64,
    /// Requests executed by these transactions.
    pub requests: u64,
    /// Duration of the newest transaction, including the wait for the disk.
    pub last_commit: Duration,
    /// Duration of all transactions together.
    pub all_commits: Duration,
    /// Increments that are pending in the journal.
    pub pending_increments: u64,
    /// Batches that are frozen and not known to be in the store.
    pub frozen_batches: u64,
    /// Increments in these batches.
    pub frozen_increments: u64,
    /// Quarantined deltas.
    pub quarantined: u64,
    /// Increments in these deltas.
    pub quarantined_increments: u64,
    /// Resolved batches that are kept.
    pub resolved_batches: u64,
    /// Bytes of these batches.
    pub resolved_bytes: u64,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Size of the write-ahead log in bytes.
    pub log_bytes: u64,
}

/// Ability of a journal to make counts durable now, or the reason why it cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Health {
    /// Records are made durable.
    #[default]
    Ready,
    /// The last record found no room. The next one is tried nevertheless.
    Full(String),
    /// The last transaction failed. The journal recovers by itself as soon as the disk works.
    Unavailable(String),
    /// The file is damaged. Nothing is recorded until a person has acted and the process was restarted.
    Corrupt(String),
}

impl Health {
    /// Returns true when counts are made durable now.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }

    /// Returns the problem, if there is one.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::Full(why) | Self::Unavailable(why) | Self::Corrupt(why) => Some(why),
        }
    }
}
