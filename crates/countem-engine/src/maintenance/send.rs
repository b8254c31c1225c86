//! Sending batches of a journal.

use std::sync::Arc;

use countem_core::{Batch, Table};
use countem_journal::Journal;
use countem_store::{Applied, Store, StoreError};
use tokio::{sync::oneshot, time::Instant};

use super::MaintenanceError;
use crate::{
    EngineConfig, Outbox, Retry,
    deliver::{deliver, quarantine_forgotten},
};

/// Sends a batch until it is resolved, for as long as a shutdown may take.
///
/// # Errors
/// The store refuses the batch, or did not take it in time.
pub(super) async fn send(
    store: &dyn Store,
    batch: &Arc<Batch>,
    config: &EngineConfig,
) -> Result<Applied, StoreError> {
    let retry = Retry::new(config.retry_first, config.retry_longest);
    let (applied, _) = deliver(store, batch, retry, Instant::now() + config.shutdown_deadline).await?;
    Ok(applied)
}

/// Sends a frozen batch of the journal until it is resolved, and makes that durable.
///
/// # Errors
/// The batch is not known to be stored, or that could not be recorded. It stays in the journal.
pub(super) async fn send_frozen(
    store: &dyn Store,
    journal: &Journal,
    batch: &Arc<Batch>,
    config: &EngineConfig,
) -> Result<Applied, MaintenanceError> {
    let applied = match quarantine_forgotten(store, batch).await? {
        Some(quarantined) => quarantined,
        None => send(store, batch, config).await?,
    };
    journal.resolve(batch.id(), applied.quarantined.clone(), drop);
    answer(|done| journal.sync(done)).await?;
    Ok(applied)
}

/// Freezes all pending counts of the journal, and returns an outbox for each lane.
///
/// Called at most once per opening of the journal, since batches are numbered from 1.
///
/// # Errors
/// Counts that are in no batch yet stay pending.
pub(super) async fn freeze(
    journal: &Journal,
    config: &EngineConfig,
) -> Result<Vec<Outbox>, MaintenanceError> {
    let mut outboxes = Vec::new();
    for (lane, deltas) in journal.reader()?.pending()? {
        let mut pending = Table::new();
        for delta in deltas.iter() {
            pending.merge(delta)?;
        }
        let mut outbox = Outbox::new(journal.writer(), lane, config.batch_counters);
        outbox.use_journal();
        outbox.freeze(&mut pending);
        answer(|done| journal.freeze(lane, outbox.queued().map(|batch| &**batch), done)).await?;
        outboxes.push(outbox);
    }
    Ok(outboxes)
}

/// Awaits the answer to a request of the journal.
pub(super) async fn answer<T: Send + 'static>(request: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (sender, answered) = oneshot::channel();
    // Fails when the future was dropped.
    request(Box::new(move |outcome| drop(sender.send(outcome))));
    answered.await.expect("the journal answers every request")
}
