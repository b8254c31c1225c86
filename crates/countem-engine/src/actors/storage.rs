//! Storage actors.

use std::sync::Arc;

use actix::prelude::*;
use countem_core::Batch;
use countem_store::{Applied, ErrorKind, Store, StoreError};
use tokio::{runtime, task::JoinError};

use crate::{
    agreement::Agreement,
    deliver::{Lanes, NotDurable, Recorder, Register, Retry},
};

/// Sends the batches of one lane to the store, one at a time, each until it is resolved.
///
/// The actor only decides when: the batches belong to the lane, and every attempt is a task of its own on the runtime's workers.
pub(super) struct StorageActor {
    lane: usize,
    sender: Sender,
    runtime: runtime::Handle,
    retry: Retry,
    is_sending: bool,
    /// The wait before the next attempt.
    waiting: Option<SpawnHandle>,
}

/// Everything that an attempt needs. Holds the store open.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) store: Arc<dyn Store>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) recorder: Option<Arc<Recorder>>,
    pub(super) register: Arc<Register>,
    pub(super) agreement: Arc<Agreement>,
    /// Counted by the supervisor, which waits until no attempt holds the store.
    pub(super) _in_use: Arc<()>,
}

/// Asks a storage actor to store the deltas of its lane.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Flush {
    /// Do not wait for the end of a backoff.
    pub(super) at_once: bool,
}

/// Asks a storage actor to stop, whatever it waits for.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stop;

/// The result of one attempt; the inner `None` when there was nothing to send.
type Attempt = Result<Option<Result<Applied, StoreError>>, JoinError>;

impl Actor for StorageActor {
    type Context = Context<Self>;
}

impl Handler<Stop> for StorageActor {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.terminate();
    }
}

impl Handler<Flush> for StorageActor {
    type Result = ();
    fn handle(&mut self, flush: Flush, ctx: &mut Self::Context) {
        if flush.at_once {
            self.retry.reset();
        }
        match self.waiting {
            Some(waiting) if flush.at_once => {
                ctx.cancel_future(waiting);
                self.waiting = None;
                self.send(ctx);
            }
            Some(_) => {}
            None => self.send(ctx),
        }
    }
}

impl StorageActor {
    pub(super) fn new(lane: usize, sender: Sender, runtime: runtime::Handle, retry: Retry) -> Self {
        Self { lane, sender, runtime, retry, is_sending: false, waiting: None }
    }

    fn send(&mut self, ctx: &mut Context<Self>) {
        if self.is_sending || self.sender.lanes.get(self.lane).lock().is_empty() {
            return;
        }
        self.is_sending = true;
        let (sender, lane) = (self.sender.clone(), self.lane);
        // A task of its own: the store's future runs to its end whatever happens to the actor.
        let attempt = self.runtime.spawn(async move { sender.attempt(lane).await.transpose() });
        ctx.spawn(attempt.into_actor(self).map(Self::sent));
    }

    fn sent(attempt: Attempt, actor: &mut Self, ctx: &mut Context<Self>) {
        actor.is_sending = false;
        let lanes = &actor.sender.lanes;
        let error = match attempt {
            Ok(None) => return,
            Ok(Some(Ok(applied))) => {
                let is_urgent = {
                    let mut lane = lanes.get(actor.lane).lock();
                    lane.resolve(applied);
                    lane.is_urgent()
                };
                lanes.get(actor.lane).log();
                lanes.measure();
                actor.retry.reset();
                if is_urgent {
                    actor.send(ctx);
                }
                return;
            }
            Ok(Some(Err(error))) => error,
            Err(panicked) => StoreError::new(ErrorKind::InDoubt, "the store panicked").with_source(panicked),
        };
        lanes.get(actor.lane).lock().fail(&error);
        let wait = actor.retry.next_wait();
        tracing::warn!(lane = actor.lane, %error, wait_ms = wait.as_millis(), "batch is not stored yet, trying again");
        actor.waiting = Some(ctx.run_later(wait, |actor, ctx| {
            actor.waiting = None;
            actor.send(ctx);
        }));
    }
}

impl Sender {
    /// Sends the unresolved batch of a lane, or the next one; `None` when there is none.
    async fn attempt(&self, lane: usize) -> Result<Option<Applied>, StoreError> {
        self.agreement.ensure(&*self.store).await?;
        let Some(batch) = self.next_batch(lane).await? else { return Ok(None) };
        let may_be_stored = self.lanes.get(lane).lock().is_in_doubt;
        let quarantined = match self.agreement.quarantine_counted_otherwise(&batch) {
            Some(quarantined) => Some(quarantined),
            None => self.register.quarantine_forgotten(&*self.store, &batch, may_be_stored).await?,
        };
        let applied = match quarantined {
            Some(quarantined) => quarantined,
            None => {
                if !self.lanes.get(lane).lock().begin_attempt() {
                    return Ok(None);
                }
                self.store.apply(&batch).await?
            }
        };
        let is_unsaved = self.lanes.get(lane).lock().is_stale();
        if let Some(recorder) = self.recorder.as_ref().filter(|_| !is_unsaved) {
            recorder.resolve(batch.id(), &applied.quarantined).await.map_err(not_journaled)?;
        }
        Ok(Some(applied))
    }

    /// Returns the unresolved batch of a lane, or makes the next one unresolved once the journal has it.
    async fn next_batch(&self, index: usize) -> Result<Option<Arc<Batch>>, StoreError> {
        let lane = self.lanes.get(index);
        let in_flight = lane.lock().in_flight();
        if in_flight.is_some() {
            return Ok(in_flight);
        }
        self.register.ensure(&*self.store).await?;
        if let Some(recorder) = &self.recorder {
            self.register.retire_predecessors(&*self.store, &self.lanes, recorder).await;
        }
        match &self.recorder {
            Some(recorder) => {
                if let Err(error) = recorder.freeze(index).await {
                    // The journal's loss need not be the store's.
                    if self.store.check().await.is_err() {
                        return Err(not_journaled(error));
                    }
                    recorder.freeze_or_give_up(index).await.map_err(not_journaled)?;
                }
            }
            None => drop(lane.lock().freeze()),
        }
        let _gate = lane.gate.write().await;
        Ok(lane.lock().advance())
    }
}

/// The journal keeps the batch, so it is sent again: the store applies it once whatever it has of it.
fn not_journaled(error: NotDurable) -> StoreError {
    StoreError::new(ErrorKind::NotApplied, "the journal cannot take a batch").with_source(error)
}

#[cfg(all(test, not(feature = "shuttle")))]
impl Handler<super::supervisor::Panic> for StorageActor {
    type Result = ();
    fn handle(&mut self, _: super::supervisor::Panic, _: &mut Self::Context) {
        panic!("a storage actor panics (injected)");
    }
}
