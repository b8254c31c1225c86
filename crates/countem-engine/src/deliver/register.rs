//! The identity of a writer and the store that knows it.

use std::sync::atomic::{AtomicBool, Ordering};

use countem_core::{Batch, Quarantined, Writer};
use countem_store::{Applied, ErrorKind, Registration, Store, StoreError};

use super::{Lane, Lanes, Recorder};

/// Ensures that no other process uses the identity of this writer: two processes that go on from one journal would count what
/// is pending in it twice.
#[derive(Debug)]
pub(crate) struct Register {
    /// `None` for a writer without a journal: its identity lies on no disk, so no other process has it.
    writer: Option<Writer>,
    /// The earlier writers of the node are retired.
    has_succeeded: AtomicBool,
}

impl Register {
    pub(crate) fn new(writer: Option<Writer>) -> Self {
        Self { writer, has_succeeded: AtomicBool::new(false) }
    }

    /// Registers the writer unless it is registered already. Asked before every batch is frozen: a copy of the journal that
    /// was started in the meantime takes over what is pending.
    ///
    /// # Errors
    /// The writer is not known to be registered. Nothing may be frozen.
    pub(crate) async fn ensure(&self, store: &dyn Store) -> Result<(), StoreError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        match store.register(writer).await? {
            Registration::Fresh => Ok(()),
            Registration::Cloned => Err(StoreError::new(
                ErrorKind::NotApplied,
                "another process counts under the identity of this journal: start this process again, it will take a new one",
            )),
        }
    }

    /// Retires the earlier writers of the node, once the lanes have resolved what those left. A failure is tried again.
    pub(crate) async fn retire_predecessors(&self, store: &dyn Store, lanes: &Lanes, recorder: &Recorder) {
        let Some(writer) = self.writer.as_ref().filter(|_| !self.has_succeeded.load(Ordering::Relaxed))
        else {
            return;
        };
        let has_left = |lane: &Lane| {
            let lane = lane.lock();
            lane.is_stale() || lane.batch_ids().iter().any(|id| id.writer != *writer)
        };
        // Unless the journal has it durably, batches would be sent again after the next start.
        if lanes.iter().any(has_left) || recorder.sync().await.is_err() {
            return;
        }
        match store.retire_predecessors(writer).await {
            Ok(()) => self.has_succeeded.store(true, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "bookkeeping of earlier writers stays in the store"),
        }
    }

    /// Quarantines a batch that the store would not recognise, see [`quarantine_forgotten`], if it is of another writer or
    /// `may_be_stored`.
    ///
    /// A store may have forgotten this very writer: the journal was copied, the copy retired all writers before its own, and this
    /// process was cut off for two days with a batch in doubt. The first attempt needs no look, because a batch that was never sent is
    /// in no store.
    ///
    /// # Errors
    /// It is not known whether the store recognises it.
    pub(crate) async fn quarantine_forgotten(
        &self,
        store: &dyn Store,
        batch: &Batch,
        may_be_stored: bool,
    ) -> Result<Option<Applied>, StoreError> {
        match &self.writer {
            Some(writer) if may_be_stored || *writer != batch.id().writer => {
                quarantine_forgotten(store, batch).await
            }
            _ => Ok(None),
        }
    }
}

/// Returns the whole batch as quarantined if the store may have added and forgotten it, as after an old backup of a journal
/// was restored: sent again, it would be added a second time.
///
/// # Errors
/// It is not known whether the store recognises it.
pub(crate) async fn quarantine_forgotten(
    store: &dyn Store,
    batch: &Batch,
) -> Result<Option<Applied>, StoreError> {
    if store.remembers(&batch.id().writer).await? {
        return Ok(None);
    }
    let reason = format!("batch {} is so old that the store may have added and forgotten it", batch.id());
    let quarantined = batch.deltas().map(|delta| Quarantined::new(delta, reason.as_str())).collect();
    Ok(Some(Applied { quarantined }))
}
