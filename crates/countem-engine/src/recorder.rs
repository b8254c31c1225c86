//! The level `journal`: what was accepted becomes durable before it is stored.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use countem_core::{BatchId, Quarantined};
use countem_journal::{ErrorKind, Journal, JournalError, Record, Refused, Status};
use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify, oneshot, watch};

use crate::{engine::Core, node::Node};

/// Writes what the lanes have not recorded yet, in rounds: everybody who waits takes part in the next one (group commit).
#[derive(Debug)]
pub(crate) struct Recorder {
    /// `None` after the shutdown, so that the directory is free while handles live on.
    journal: RwLock<Option<Journal>>,
    /// Held while it is decided and written what the journal has of a lane: rounds and freezes do not overlap.
    order: Mutex<()>,
    wanted: Notify,
    /// Rounds begun.
    begun: AtomicU64,
    progress: watch::Sender<Progress>,
}

/// How often those who wait look whether the journal still works.
const HEALTH_LOOK: Duration = Duration::from_millis(200);

/// How far the rounds came.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// The newest round after which everything accepted before it was durable.
    durable: u64,
    /// The newest round that failed, and why.
    failed: Option<(u64, NotDurable)>,
}

/// Says why something is counted, but not durable. It stays counted, and becomes durable as soon as the journal can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("counted, but not durable: {reason}")]
pub struct NotDurable {
    reason: Arc<str>,
    is_full: bool,
}

impl From<JournalError> for NotDurable {
    fn from(error: JournalError) -> Self {
        Self { reason: error.to_string().into(), is_full: error.kind() == ErrorKind::Full }
    }
}

impl NotDurable {
    pub(crate) fn shut_down() -> Self {
        Self { reason: "the collector was shut down before the store had everything".into(), is_full: false }
    }

    fn closed() -> Self {
        Self { reason: "the journal is closed".into(), is_full: false }
    }
}

impl Recorder {
    pub(crate) fn new(journal: Journal) -> Self {
        Self {
            journal: RwLock::new(Some(journal)),
            order: Mutex::new(()),
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            progress: watch::Sender::default(),
        }
    }

    /// Records everything accepted until now. Returns whether all of it is durable.
    pub(crate) async fn round(&self, node: &Node) -> bool {
        let order = self.order.lock().await;
        let round = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        node.drain_all();
        let mut record = Record::default();
        let mut unsaved = None;
        for (index, lane) in (0_u16..).zip(node.lanes()) {
            // A freeze that failed comes first: the journal forgets what it has as pending when it saves the batches. It is
            // repeated here, because the lane's own attempts may be far apart by now.
            let has_unsaved = lane.lock().has_unsaved();
            if has_unsaved && let Err(error) = self.save_frozen(node, usize::from(index)).await {
                unsaved = Some(error);
                continue;
            }
            let mut lane = lane.lock();
            record.quarantined.extend(lane.take_fresh_quarantine());
            let fresh = lane.take_fresh();
            if !fresh.is_empty() {
                record.lanes.push((index, fresh));
            }
        }
        let is_empty = record.lanes.is_empty() && record.quarantined.is_empty();
        let recorded = if is_empty { Ok(()) } else { self.record(node, record).await };
        drop(order);
        let outcome = recorded.and(unsaved.map_or(Ok(()), Err));
        match &outcome {
            Ok(()) => {
                node.reopen();
                self.progress.send_modify(|progress| progress.durable = round);
            }
            Err(error) => {
                if error.is_full {
                    node.refuse_all();
                }
                self.progress.send_modify(|progress| progress.failed = Some((round, error.clone())));
            }
        }
        outcome.is_ok()
    }

    async fn record(&self, node: &Node, record: Record) -> Result<(), NotDurable> {
        let (answer, answered) = oneshot::channel();
        let asked = match &*self.journal.read() {
            Some(journal) => {
                journal.record(record, |outcome| drop(answer.send(outcome)));
                Ok(())
            }
            None => Err(record),
        };
        let (record, error) = match asked {
            Ok(()) => match answered.await.expect("the journal answers every request") {
                Ok(_) => {
                    node.lanes().iter().for_each(|lane| lane.lock().recorded());
                    return Ok(());
                }
                Err(Refused { record, error }) => (record, error.into()),
            },
            Err(record) => (record, NotDurable::closed()),
        };
        for (index, fresh) in &record.lanes {
            node.lanes()[usize::from(*index)].lock().put_back_fresh(fresh);
        }
        for quarantined in record.quarantined {
            node.lane(&quarantined.collection).lock().put_back_quarantine(quarantined);
        }
        Err(error)
    }

    /// Makes the frozen batches of a lane durable if they are not, so that they may be sent.
    pub(crate) async fn freeze(&self, node: &Node, index: usize) -> Result<(), NotDurable> {
        let _order = self.order.lock().await;
        self.save_frozen(node, index).await
    }

    /// The caller holds `order`.
    async fn save_frozen(&self, node: &Node, index: usize) -> Result<(), NotDurable> {
        let lane = &node.lanes()[index];
        let unsaved = lane.lock().freeze();
        if let Some(first) = unsaved.first() {
            let number = first.id().lane;
            let batches = unsaved.iter().map(|batch| &**batch);
            self.ask(|journal, done| journal.freeze(number, batches, done)).await?;
            lane.lock().saved();
        }
        Ok(())
    }

    /// Notes that the store has a batch. Waits only where the next batch must not be sent before: the store reports what it
    /// quarantined of the newest batch only.
    pub(crate) async fn resolve(&self, id: &BatchId, quarantined: &[Quarantined]) -> Result<(), NotDurable> {
        if !quarantined.is_empty() {
            return self.ask(|journal, done| journal.resolve(id, quarantined.to_vec(), done)).await;
        }
        if let Some(journal) = &*self.journal.read() {
            journal.resolve(id, Vec::new(), drop);
        }
        Ok(())
    }

    /// Asks the journal and waits for its answer. Dropping the future does not take the request back.
    async fn ask(&self, request: impl FnOnce(&Journal, Answer)) -> Result<(), NotDurable> {
        let (answer, answered) = oneshot::channel();
        match &*self.journal.read() {
            Some(journal) => request(journal, Box::new(|outcome| drop(answer.send(outcome)))),
            None => return Err(NotDurable::closed()),
        }
        Ok(answered.await.expect("the journal answers every request")?)
    }

    /// Returns once everything accepted before the call is in the journal.
    pub(crate) async fn durable(&self) -> Result<(), NotDurable> {
        // A round that has begun may have drained before the call; the one after it cannot.
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        let mut progress = self.progress.subscribe();
        self.wanted.notify_one();
        loop {
            {
                let progress = progress.borrow_and_update();
                if progress.durable >= wanted {
                    return Ok(());
                }
                if let Some((round, error)) = &progress.failed
                    && *round >= wanted
                {
                    return Err(error.clone());
                }
            }
            tokio::select! {
                // The sender lives as long as this recorder.
                changed = progress.changed() => drop(changed),
                // A commit in doubt answers only once the disk does: whoever waits is told now.
                () = tokio::time::sleep(HEALTH_LOOK) => {
                    if let Some(problem) = self.status().and_then(|status| status.health.problem().map(Arc::from)) {
                        return Err(NotDurable { reason: problem, is_full: false });
                    }
                }
            }
        }
    }

    /// Waits until everything that the journal was told is durable, resolved batches included.
    pub(crate) async fn sync(&self) -> Result<(), NotDurable> {
        self.ask(|journal, done| journal.sync(done)).await
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.journal.read().as_ref().map(Journal::status)
    }

    /// Closes the journal and gives its directory free. May wait for the disk.
    pub(crate) fn close(&self) {
        let journal = self.journal.write().take();
        drop(journal);
    }
}

type Answer = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// Records every `tick`, and at once when somebody waits, until the engine is gone.
pub(crate) async fn run(core: Weak<Core>, tick: Duration) {
    loop {
        let Some(engine) = core.upgrade() else { return };
        let node = Arc::clone(engine.node());
        drop(engine);
        let Some(recorder) = node.recorder() else { return };
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            () = recorder.wanted.notified() => {}
        }
        recorder.round(&node).await;
    }
}
