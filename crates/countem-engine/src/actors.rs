//! The actors: thin loops around [`Node`] and [`Lane`](crate::lane::Lane). The only module that knows actix.
//!
//! They live on one thread of their own, in an actix `System` that shares our tokio runtime, so a host may run tokio,
//! actix-web or no runtime at all. Store I/O runs on the runtime's workers. Messages carry no counts: a message that gets
//! lost with its actor costs time, nothing else.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use actix::prelude::*;
use actix_rt::{ArbiterHandle, System};
use countem_core::Batch;
use countem_store::{Applied, ErrorKind, Store, StoreError};
use parking_lot::Mutex;
use tokio::{
    runtime::{self, Runtime},
    task::JoinError,
};

use crate::{claim::Claim, deliver::Retry, node::Node, recorder::NotDurable};

/// The thread on which actors live.
#[derive(Debug)]
pub(crate) struct Stage {
    system: System,
    arbiter: ArbiterHandle,
    pub(crate) runtime: runtime::Handle,
}

/// All actors of an engine.
pub(crate) struct Actors {
    stage: Stage,
    node: Arc<Node>,
    /// `None` once the actors have ended.
    store: Mutex<Option<Arc<dyn Store>>>,
    /// Cloned by everything that holds the store on behalf of an actor.
    using_store: Arc<()>,
    claim: Arc<Claim>,
    retry: Retry,
    collectors: Mutex<Vec<Addr<CollectorActor>>>,
    lanes: Mutex<Vec<Addr<StorageActor>>>,
    restarts: AtomicU64,
}

/// Owns one aggregation table: drains it into the lanes when told to.
struct CollectorActor {
    node: Arc<Node>,
    place: usize,
}

/// Owns one lane: sends its batches to the store, one at a time, each until it is resolved.
struct StorageActor {
    node: Arc<Node>,
    lane: usize,
    store: Opened,
    claim: Arc<Claim>,
    runtime: runtime::Handle,
    retry: Retry,
    sending: bool,
    /// The wait before the next attempt.
    waiting: Option<SpawnHandle>,
}

/// The store, in the hands of an actor or of an attempt.
#[derive(Clone)]
struct Opened {
    store: Arc<dyn Store>,
    _in_use: Arc<()>,
}

/// Asks a collector to move what its table holds to the lanes.
#[derive(Message)]
#[rtype(result = "()")]
struct Drain;

/// Tells a collector that threads do not use its table any more.
#[derive(Message)]
#[rtype(result = "()")]
struct Retire;

/// Asks an actor to end.
#[derive(Message)]
#[rtype(result = "()")]
struct End;

/// Asks a storage actor to store what its lane holds.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush {
    /// Do not wait for the end of a backoff.
    at_once: bool,
}

/// Makes an actor panic.
#[cfg(all(test, not(feature = "shuttle")))]
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;

/// How long an end waits for an attempt that the store does not answer.
const PATIENCE: Duration = Duration::from_millis(500);

impl Stage {
    /// Starts the thread and the runtime.
    pub(crate) fn open(workers: usize) -> io::Result<Self> {
        let (ready, opened) = std::sync::mpsc::sync_channel(1);
        thread::Builder::new().name("countem".to_owned()).spawn(move || {
            let built = runtime::Builder::new_multi_thread()
                .worker_threads(workers)
                .thread_name("countem-io")
                .enable_all()
                .build();
            let runtime = match built {
                Ok(runtime) => Arc::new(runtime),
                Err(error) => return drop(ready.send(Err(error))),
            };
            let handle = runtime.handle().clone();
            run(runtime, |system, arbiter| {
                drop(ready.send(Ok(Self { system, arbiter, runtime: handle })));
            });
        })?;
        opened.recv().map_err(|_| io::Error::other("the actor thread ended before it began"))?
    }

    /// Ends the thread and the runtime.
    pub(crate) fn close(&self) {
        self.system.stop();
    }
}

fn run(runtime: Arc<Runtime>, started: impl FnOnce(System, ArbiterHandle)) {
    let runner = System::with_tokio_rt(|| runtime);
    let system = System::current();
    let arbiter = system.arbiter().clone();
    started(system, arbiter);
    if let Err(error) = runner.run() {
        tracing::error!(%error, "actor system ended");
    }
}

impl Actor for CollectorActor {
    type Context = Context<Self>;
}

impl Handler<Drain> for CollectorActor {
    type Result = ();
    fn handle(&mut self, _: Drain, _: &mut Self::Context) {
        self.node.drain(self.place);
    }
}

impl Handler<Retire> for CollectorActor {
    type Result = ();
    fn handle(&mut self, _: Retire, ctx: &mut Self::Context) {
        self.node.drain(self.place);
        ctx.stop();
    }
}

impl Actor for StorageActor {
    type Context = Context<Self>;
}

impl Handler<End> for StorageActor {
    type Result = ();
    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
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

#[cfg(all(test, not(feature = "shuttle")))]
impl Handler<Panic> for CollectorActor {
    type Result = ();
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("a collector actor panics (injected)");
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
impl Handler<Panic> for StorageActor {
    type Result = ();
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("a storage actor panics (injected)");
    }
}

/// What became of one attempt; the inner `None` when there was nothing to send.
type Attempt = Result<Option<Result<Applied, StoreError>>, JoinError>;

impl StorageActor {
    fn send(&mut self, ctx: &mut Context<Self>) {
        if self.sending || self.node.lanes()[self.lane].lock().is_settled() {
            return;
        }
        self.sending = true;
        let (node, opened, lane) = (Arc::clone(&self.node), self.store.clone(), self.lane);
        let claim = Arc::clone(&self.claim);
        // The attempt is a task of its own: the store's future runs to its end whatever happens to the actor.
        let attempt = self.runtime.spawn(async move {
            if let Err(error) = claim.settle(&*opened.store).await {
                return Some(Err(error));
            }
            match next_batch(&node, lane).await {
                Ok(Some(batch)) => Some(attempt(&node, &*opened.store, &batch).await),
                Ok(None) => None,
                Err(error) => Some(Err(error)),
            }
        });
        ctx.spawn(attempt.into_actor(self).map(Self::sent));
    }

    fn sent(attempt: Attempt, actor: &mut Self, ctx: &mut Context<Self>) {
        actor.sending = false;
        let error = match attempt {
            Ok(None) => return,
            Ok(Some(Ok(applied))) => {
                let urgent = {
                    let mut lane = actor.node.lanes()[actor.lane].lock();
                    lane.resolve(applied);
                    lane.is_urgent()
                };
                actor.node.measure();
                actor.retry.reset();
                if urgent {
                    actor.send(ctx);
                }
                return;
            }
            Ok(Some(Err(error))) => error,
            Err(panicked) => StoreError::new(ErrorKind::InDoubt, "the store panicked").with_source(panicked),
        };
        actor.node.lanes()[actor.lane].lock().fail(&error);
        let wait = actor.retry.next_wait();
        tracing::warn!(lane = actor.lane, %error, wait_ms = wait.as_millis(), "batch is not stored yet, trying again");
        actor.waiting = Some(ctx.run_later(wait, |actor, ctx| {
            actor.waiting = None;
            actor.send(ctx);
        }));
    }
}

/// Returns the unresolved batch of a lane, or makes the next one unresolved once the journal has it.
async fn next_batch(node: &Node, index: usize) -> Result<Option<Arc<Batch>>, StoreError> {
    let lane = &node.lanes()[index];
    let in_flight = lane.lock().in_flight();
    if in_flight.is_some() {
        return Ok(in_flight);
    }
    match node.recorder() {
        Some(recorder) => recorder.freeze(node, index).await.map_err(not_journaled)?,
        None => drop(lane.lock().freeze()),
    }
    let _gate = lane.gate.write().await;
    Ok(lane.lock().advance())
}

/// Sends one batch, and tells the journal when the store has it.
async fn attempt(node: &Node, store: &dyn Store, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
    let applied = store.apply(batch).await?;
    if let Some(recorder) = node.recorder() {
        recorder.resolve(batch.id(), &applied.quarantined).await.map_err(not_journaled)?;
    }
    Ok(applied)
}

/// The batch is in the journal's hands: whatever the store has of it, it has once.
fn not_journaled(error: NotDurable) -> StoreError {
    StoreError::new(ErrorKind::NotApplied, "the journal cannot take a batch").with_source(error)
}

impl Actors {
    /// Starts one collector per active table and one storage actor per lane.
    pub(crate) fn start(
        stage: Stage,
        node: Arc<Node>,
        store: Arc<dyn Store>,
        claim: Claim,
        retry: Retry,
    ) -> Self {
        let actors = Self {
            stage,
            node,
            store: Mutex::new(Some(store)),
            using_store: Arc::new(()),
            claim: Arc::new(claim),
            retry,
            collectors: Mutex::default(),
            lanes: Mutex::default(),
            restarts: AtomicU64::new(0),
        };
        *actors.lanes.lock() =
            (0..actors.node.lanes().len()).filter_map(|lane| actors.storage_actor(lane)).collect();
        actors.fit_collectors();
        actors
    }

    fn collector(&self, place: usize) -> Addr<CollectorActor> {
        let node = Arc::clone(&self.node);
        CollectorActor::start_in_arbiter(&self.stage.arbiter, move |_| CollectorActor { node, place })
    }

    /// Starts the storage actor of a lane; `None` once the actors have ended.
    fn storage_actor(&self, lane: usize) -> Option<Addr<StorageActor>> {
        let store = Opened { store: self.store.lock().clone()?, _in_use: Arc::clone(&self.using_store) };
        let (node, claim) = (Arc::clone(&self.node), Arc::clone(&self.claim));
        let (runtime, retry) = (self.stage.runtime.clone(), self.retry.clone());
        let actor = StorageActor::start_in_arbiter(&self.stage.arbiter, move |_| StorageActor {
            node,
            lane,
            store,
            claim,
            runtime,
            retry,
            sending: false,
            waiting: None,
        });
        Some(actor)
    }

    /// Makes the number of collector actors that of the active tables.
    pub(crate) fn fit_collectors(&self) {
        let mut collectors = self.collectors.lock();
        let active = self.node.router().active();
        while collectors.len() > active {
            if let Some(retired) = collectors.pop() {
                // A collector that is dead already has nothing left to drain that the sweep would not find.
                retired.do_send(Retire);
            }
        }
        for place in collectors.len()..active {
            collectors.push(self.collector(place));
        }
    }

    /// Replaces actors that panicked. Their counts are untouched: they never held any.
    pub(crate) fn revive(&self) {
        for (place, collector) in self.collectors.lock().iter_mut().enumerate() {
            if !collector.connected() {
                *collector = self.collector(place);
                self.note_restart("collector", place);
            }
        }
        for (lane, actor) in self.lanes.lock().iter_mut().enumerate() {
            if !actor.connected() {
                // An attempt of the dead actor may still be running: its batch is in doubt.
                self.node.lanes()[lane].lock().ledger.doubts += 1;
                let Some(replacement) = self.storage_actor(lane) else { return };
                *actor = replacement;
                actor.do_send(Flush { at_once: true });
                self.note_restart("storage actor", lane);
            }
        }
    }

    fn note_restart(&self, what: &'static str, index: usize) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(what, index, "actor panicked and was replaced");
    }

    /// Returns how many actors were replaced.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Drains every table and starts a flush of every lane.
    pub(crate) async fn tick(&self) {
        let collectors = self.collectors.lock().clone();
        for (place, collector) in collectors.iter().enumerate() {
            if collector.send(Drain).await.is_err() {
                // The actor died over it. Its table is drained here; the next look replaces the actor.
                self.node.drain(place);
            }
        }
        // Tables of retired collectors: an increment may have met one while it retired.
        (collectors.len()..self.node.router().max()).for_each(|place| self.node.drain(place));
        self.flush(false);
    }

    /// Starts a flush of every lane.
    pub(crate) fn flush(&self, at_once: bool) {
        for lane in self.lanes.lock().iter() {
            lane.do_send(Flush { at_once });
        }
    }

    /// Returns the runtime that runs the store's I/O.
    pub(crate) fn runtime(&self) -> &runtime::Handle {
        &self.stage.runtime
    }

    /// Ends the storage actors and waits until none of them holds the store, but not for an attempt that takes long.
    pub(crate) async fn end(&self) {
        drop(self.store.lock().take());
        let lanes = std::mem::take(&mut *self.lanes.lock());
        for lane in &lanes {
            // One that is dead has let the store go already.
            lane.do_send(End);
        }
        let patience = tokio::time::Instant::now() + PATIENCE;
        while Arc::strong_count(&self.using_store) > 1 && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Ends all actors, their thread and the runtime, a moment from now so that the caller's task can finish first.
    pub(crate) fn stop(&self) {
        let system = self.stage.system.clone();
        self.stage.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            system.stop();
        });
    }

    #[cfg(all(test, not(feature = "shuttle")))]
    pub(crate) fn panic_everywhere(&self) {
        self.collectors.lock().iter().for_each(|actor| actor.do_send(Panic));
        self.lanes.lock().iter().for_each(|actor| actor.do_send(Panic));
    }
}

impl std::fmt::Debug for Actors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actors").field("store", &self.store).finish_non_exhaustive()
    }
}
