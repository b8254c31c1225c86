//! How a running journal fares.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use countem_core::Writer;

use crate::ledger::Ledger;

/// How a running journal fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it makes counts durable now.
    pub health: Health,
    /// Number of the newest transaction.
    pub tick: u64,
    /// Transactions since it was opened.
    pub commits: u64,
    /// Requests that these transactions carried out.
    pub requests: u64,
    /// How long the newest transaction took, the wait for the disk included.
    pub last_commit: Duration,
    /// How long all transactions together took.
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
    /// Batches that are resolved and kept.
    pub resolved_batches: u64,
    /// Bytes of these batches.
    pub resolved_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the write-ahead log.
    pub log_bytes: u64,
}

/// Whether a journal makes counts durable now, and if not, why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    #[default]
    Ready,
    /// The last record found no room. The next one is tried again.
    Full(String),
    /// The last transaction failed. The journal repairs itself as soon as the disk lets it.
    Unavailable(String),
    /// The file is damaged. Nothing is recorded until a person has acted and the process was started anew.
    Corrupt(String),
}

impl Health {
    /// Tells whether counts are made durable now.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }

    /// Returns what is wrong.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::Full(why) | Self::Unavailable(why) | Self::Corrupt(why) => Some(why),
        }
    }
}

impl Status {
    pub(crate) fn of_ledger(&mut self, ledger: &Ledger) {
        self.tick = ledger.tick;
        self.pending_increments = ledger.pending_increments();
        self.frozen_batches = ledger.frozen.items;
        self.frozen_increments = ledger.frozen.increments;
        self.quarantined = ledger.quarantined.items;
        self.quarantined_increments = ledger.quarantined.increments;
        self.resolved_batches = ledger.resolved.batches;
        self.resolved_bytes = ledger.resolved.bytes;
    }
}

/// What the handle sees of the writing thread.
#[derive(Debug)]
pub(crate) struct Shared {
    writer: Mutex<Writer>,
    status: Mutex<Status>,
}

impl Shared {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { writer: Mutex::new(writer), status: Mutex::default() }
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_writer(&self, writer: Writer) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = writer;
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        // Plain numbers: there is no state in which a panic could leave them half done.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
