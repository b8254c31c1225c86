//! Starting, replacing and addressing actors.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use countem_store::Store;
use parking_lot::Mutex;
use tokio::{runtime, time::Instant};

use super::{
    collector::{CollectorActor, Drain, Retire},
    storage::{Flush, Sender, Stop, StorageActor},
    system::ActorSystem,
};
use crate::{
    agreement::Agreement,
    collect::Intake,
    deliver::{Lanes, Recorder, Register, Retry},
};

/// All actors of an engine.
pub(crate) struct Supervisor {
    system: ActorSystem,
    intake: Arc<Intake>,
    lanes: Arc<Lanes>,
    recorder: Option<Arc<Recorder>>,
    register: Arc<Register>,
    agreement: Arc<Agreement>,
    retry: Retry,
    /// `None` once the actors have stopped.
    store: Mutex<Option<Arc<dyn Store>>>,
    /// Cloned by everything that holds the store on behalf of a storage actor.
    store_in_use: Arc<()>,
    collectors: Mutex<Vec<Addr<CollectorActor>>>,
    storage: Mutex<Vec<Addr<StorageActor>>>,
    restarts: AtomicU64,
}

/// The store, what has to be agreed with it before a batch is sent, and the pace of attempts.
pub(crate) struct StoreAccess {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) register: Register,
    pub(crate) agreement: Agreement,
    pub(crate) retry: Retry,
}

/// Maximum time that a stop waits for an attempt that the store does not answer.
const STORE_RELEASE_TIMEOUT: Duration = Duration::from_millis(500);
/// Interval at which a stop checks whether the store is released.
const STORE_RELEASE_CHECK: Duration = Duration::from_micros(200);

impl Supervisor {
    /// Starts one collector actor per active table and one storage actor per lane.
    pub(crate) fn start(
        system: ActorSystem,
        intake: Arc<Intake>,
        lanes: Arc<Lanes>,
        recorder: Option<Arc<Recorder>>,
        StoreAccess { store, register, agreement, retry }: StoreAccess,
    ) -> Self {
        let supervisor = Self {
            system,
            intake,
            lanes,
            recorder,
            register: Arc::new(register),
            agreement: Arc::new(agreement),
            retry,
            store: Mutex::new(Some(store)),
            store_in_use: Arc::new(()),
            collectors: Mutex::default(),
            storage: Mutex::default(),
            restarts: AtomicU64::new(0),
        };
        *supervisor.storage.lock() =
            (0..supervisor.lanes.len()).filter_map(|lane| supervisor.storage_actor(lane)).collect();
        supervisor.fit_collectors();
        supervisor
    }

    /// Returns the store; `None` once the actors have stopped.
    pub(crate) fn store(&self) -> Option<Arc<dyn Store>> {
        self.store.lock().clone()
    }

    /// Returns the register of the writer.
    pub(crate) fn register(&self) -> Arc<Register> {
        Arc::clone(&self.register)
    }

    /// Returns the agreement with the store on schedules.
    pub(crate) fn agreement(&self) -> &Arc<Agreement> {
        &self.agreement
    }

    /// Returns the runtime that runs the store's I/O.
    pub(crate) fn runtime(&self) -> &runtime::Handle {
        &self.system.runtime
    }

    fn collector(&self, index: usize) -> Addr<CollectorActor> {
        let intake = Arc::clone(&self.intake);
        CollectorActor::start_in_arbiter(&self.system.arbiter, move |_| CollectorActor { intake, index })
    }

    /// Starts the storage actor of a lane; `None` once the actors have stopped.
    fn storage_actor(&self, lane: usize) -> Option<Addr<StorageActor>> {
        let sender = Sender {
            store: self.store()?,
            lanes: Arc::clone(&self.lanes),
            recorder: self.recorder.clone(),
            register: Arc::clone(&self.register),
            agreement: Arc::clone(&self.agreement),
            _in_use: Arc::clone(&self.store_in_use),
        };
        let (runtime, retry) = (self.system.runtime.clone(), self.retry.clone());
        let start = move |_: &mut Context<_>| StorageActor::new(lane, sender, runtime, retry);
        Some(StorageActor::start_in_arbiter(&self.system.arbiter, start))
    }

    /// Spreads threads over `collectors` tables, within the configured limits, and returns how many that are.
    pub(crate) fn resize(&self, collectors: usize) -> usize {
        let active = self.intake.router().resize(collectors);
        self.fit_collectors();
        active
    }

    /// Makes the number of collector actors that of the active tables.
    fn fit_collectors(&self) {
        let mut collectors = self.collectors.lock();
        let active = self.intake.router().active();
        while collectors.len() > active {
            if let Some(retired) = collectors.pop() {
                // One that is dead has nothing left to drain that the next tick would not find.
                retired.do_send(Retire);
            }
        }
        for index in collectors.len()..active {
            collectors.push(self.collector(index));
        }
    }

    /// Replaces actors that panicked. No count is affected: they never hold any.
    pub(crate) fn revive(&self) {
        for (index, collector) in self.collectors.lock().iter_mut().enumerate() {
            if !collector.connected() {
                *collector = self.collector(index);
                self.note_restart("collector", index);
            }
        }
        for (lane, actor) in self.storage.lock().iter_mut().enumerate() {
            if !actor.connected() {
                // An attempt of the dead actor may still be running: its batch is in doubt.
                self.lanes.get(lane).lock().totals.doubts += 1;
                let Some(replacement) = self.storage_actor(lane) else { return };
                *actor = replacement;
                actor.do_send(Flush { at_once: true });
                self.note_restart("storage actor", lane);
            }
        }
    }

    fn note_restart(&self, actor: &'static str, index: usize) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(actor, index, "actor panicked and was replaced");
    }

    /// Returns the number of actors that were replaced.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Drains every table and starts a flush of every lane.
    pub(crate) async fn tick(&self) {
        let collectors = self.collectors.lock().clone();
        for (index, collector) in collectors.iter().enumerate() {
            if collector.send(Drain).await.is_err() {
                // The actor died over it. Its table is drained here; the next revival replaces the actor.
                self.intake.drain(index);
            }
        }
        // Tables without an actor: an increment may have met one while its collector retired.
        (collectors.len()..self.intake.router().max()).for_each(|index| self.intake.drain(index));
        self.flush(false);
    }

    /// Starts a flush of every lane.
    pub(crate) fn flush(&self, at_once: bool) {
        for actor in self.storage.lock().iter() {
            actor.do_send(Flush { at_once });
        }
    }

    /// Stops the storage actors and returns the store once none of them holds it, or after a timeout.
    pub(crate) async fn release_store(&self) -> Option<Arc<dyn Store>> {
        let store = self.store.lock().take();
        for actor in std::mem::take(&mut *self.storage.lock()) {
            // One that is dead has released the store already.
            actor.do_send(Stop);
        }
        let deadline = Instant::now() + STORE_RELEASE_TIMEOUT;
        while Arc::strong_count(&self.store_in_use) > 1 && Instant::now() < deadline {
            tokio::time::sleep(STORE_RELEASE_CHECK).await;
        }
        store
    }

    /// Ends all actors, their thread and the runtime, a moment from now.
    pub(crate) fn stop(&self) {
        self.system.stop_soon();
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Makes an actor panic.
#[cfg(all(test, not(feature = "shuttle")))]
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Panic;

#[cfg(all(test, not(feature = "shuttle")))]
impl Supervisor {
    pub(crate) fn panic_everywhere(&self) {
        self.collectors.lock().iter().for_each(|actor| actor.do_send(Panic));
        self.storage.lock().iter().for_each(|actor| actor.do_send(Panic));
    }
}
