//! Requests for callers that may wait: programs without a runtime, and tests.

use std::sync::{Arc, mpsc::sync_channel};

use countem_core::{Batch, BatchId, Writer};

use crate::{
    error::JournalError,
    journal::Journal,
    keyed::KeyedEntry,
    quarantine::{QuarantineEntry, Quarantined, Selection},
    record::{Record, Recorded, Refused},
    thread::transaction::Retried,
};

/// Makes a request and waits for its outcome.
fn wait<T: Send + 'static>(request: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (sender, outcome) = sync_channel::<T>(1);
    request(Box::new(move |outcome| sender.send(outcome).expect("the caller waits")));
    outcome.recv().expect("the journal answers every request")
}

/// Twins of the requests that wait for the outcome. Not for asynchronous code, and not for a `done` callback.
impl Journal {
    /// See [`record`](Self::record).
    ///
    /// # Errors
    /// The record is given back with the reason.
    #[allow(clippy::result_large_err, reason = "the error gives the record back")]
    pub fn record_blocking(&self, record: Record) -> Result<Recorded, Refused> {
        wait(|done| self.record(record, done))
    }

    /// See [`accept`](Self::accept).
    ///
    /// # Errors
    /// Nothing was added.
    pub fn accept_blocking(&self, entries: Vec<Arc<KeyedEntry>>) -> Result<(), JournalError> {
        wait(|done| self.accept(entries, done))
    }

    /// See [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// Nothing was frozen.
    pub fn freeze_blocking<'a>(
        &self,
        lane: u16,
        batches: impl IntoIterator<Item = &'a Batch>,
    ) -> Result<(), JournalError> {
        wait(|done| self.freeze(lane, batches, done))
    }

    /// See [`resolve`](Self::resolve); waits until it is durable.
    ///
    /// # Errors
    /// The journal was closed or damaged before that.
    pub fn resolve_blocking(&self, id: &BatchId, quarantined: Vec<Quarantined>) -> Result<(), JournalError> {
        self.resolve(id, quarantined, drop);
        self.sync_blocking()
    }

    /// See [`retry_quarantined`](Self::retry_quarantined).
    ///
    /// # Errors
    /// All of them are still in quarantine.
    pub fn retry_quarantined_blocking(
        &self,
        selection: Selection,
        lane_of: impl Fn(&str) -> u16 + Send + 'static,
    ) -> Result<Vec<Retried>, JournalError> {
        wait(|done| self.retry_quarantined(selection, lane_of, done))
    }

    /// See [`drop_quarantined`](Self::drop_quarantined).
    ///
    /// # Errors
    /// All of them are still in quarantine.
    pub fn drop_quarantined_blocking(
        &self,
        selection: Selection,
    ) -> Result<Vec<QuarantineEntry>, JournalError> {
        wait(|done| self.drop_quarantined(selection, done))
    }

    /// See [`quarantine_pending`](Self::quarantine_pending).
    ///
    /// # Errors
    /// All of them are still pending.
    pub fn quarantine_pending_blocking(&self, reason: impl Into<String>) -> Result<usize, JournalError> {
        wait(|done| self.quarantine_pending(reason, done))
    }

    /// See [`fresh_identity`](Self::fresh_identity).
    ///
    /// # Errors
    /// The identity has not changed.
    pub fn fresh_identity_blocking(&self) -> Result<Writer, JournalError> {
        wait(|done| self.fresh_identity(done))
    }

    /// See [`sync`](Self::sync).
    ///
    /// # Errors
    /// An earlier request may not be durable yet.
    pub fn sync_blocking(&self) -> Result<(), JournalError> {
        wait(|done| self.sync(done))
    }
}
