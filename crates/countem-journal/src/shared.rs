//! State that the handle shares with the journal thread.

use std::sync::{Mutex, MutexGuard, PoisonError};

use countem_core::Writer;

use crate::{status::Status, tables::state::JournalState};

impl Status {
    pub(crate) fn set_state(&mut self, state: &JournalState) {
        self.tick = state.tick;
        self.pending_increments = state.pending_increments();
        self.frozen_batches = state.frozen.items;
        self.frozen_increments = state.frozen.increments;
        self.quarantined = state.quarantined.items;
        self.quarantined_increments = state.quarantined.increments;
        self.resolved_batches = state.resolved.batches;
        self.resolved_bytes = state.resolved.bytes;
    }
}

/// State shared by the handle and the journal thread.
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
        // Plain numbers, which a panic cannot leave inconsistent.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
