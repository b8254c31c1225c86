//! Batches that move a mark of their own.

use std::{sync::Arc, time::Duration};

use countem_core::{Deltas, Mark, Writer};
use countem_engine::{EngineConfig, Outbox, Retry, deliver};
use countem_store::{ErrorKind, Quarantined, Store, StoreError};
use tokio::time::Instant;

/// Time for which a store may be away.
const OUTAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Stores counters, each batch in one step with the mark that says how far they are stored.
pub(crate) struct Sender {
    store: Arc<dyn Store>,
    outbox: Outbox,
    writer: Writer,
    retry: Retry,
    was_in_doubt: bool,
    /// Counts that the store could not add.
    pub(crate) quarantined: Vec<Quarantined>,
}

impl Sender {
    /// Returns a sender under a new random identity.
    pub(crate) fn new(store: Arc<dyn Store>, config: &EngineConfig) -> Self {
        let writer = Writer::new(rand::random(), 1);
        Self {
            store,
            outbox: Outbox::new(writer.clone(), 0, config.batch_counters),
            writer,
            retry: Retry::new(config.retry_first, config.retry_longest),
            was_in_doubt: false,
            quarantined: Vec::new(),
        }
    }

    /// Stores `deltas` as they are, and moves the mark.
    ///
    /// # Errors
    /// The store refuses the batch or did not take it in time; a [`Conflict`](ErrorKind::Conflict) where another process moved the mark.
    pub(crate) async fn send(&mut self, deltas: Deltas, mark: Mark) -> Result<(), StoreError> {
        self.outbox.freeze_whole(deltas, Some(mark));
        while let Some(batch) = self.outbox.advance() {
            let deadline = Instant::now() + OUTAGE_TIMEOUT;
            let sent = deliver(&*self.store, &batch, self.retry.clone(), deadline).await;
            let (applied, was_in_doubt) = sent.map_err(|error| match error.kind() {
                ErrorKind::Conflict => StoreError::new(
                    ErrorKind::Conflict,
                    "another process writes the same counters at the same time: run the command again once it has ended",
                ),
                _ => error,
            })?;
            self.was_in_doubt |= was_in_doubt;
            self.outbox.resolve(&applied);
            self.quarantined.extend(applied.quarantined);
        }
        Ok(())
    }

    /// Removes the bookkeeping of the sender where nothing can be sent again.
    pub(crate) async fn finish(&mut self) {
        // Bookkeeping that stays is harmless.
        if self.outbox.has_frozen()
            && !self.was_in_doubt
            && let Err(error) = self.store.forget(&self.writer).await
        {
            tracing::debug!(%error, "the bookkeeping of this run stays in the store");
        }
    }
}
