//! The level `journal`: accepted increments become durable before they are stored.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use countem_core::{BatchId, Quarantined};
use countem_journal::{ErrorKind, Journal, JournalError, KeyedEntry, Record, Refused, Status};
use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify, oneshot, watch};

use super::{Lanes, lane::Save};

/// Records the deltas that the journal does not have yet, in rounds: all callers that wait share the next one (group commit).
#[derive(Debug)]
pub(crate) struct Recorder {
    lanes: Arc<Lanes>,
    /// `None` after the shutdown, so that the directory is free while handles live on.
    journal: RwLock<Option<Journal>>,
    /// Held while it is decided and written what the journal has of a lane: rounds and freezes do not overlap.
    order: Mutex<()>,
    wanted: Notify,
    /// Rounds begun.
    begun: AtomicU64,
    progress: watch::Sender<Progress>,
}

/// The intake, as a recorder sees it.
pub(crate) trait Upstream: Sync {
    /// Moves every accepted delta to the lanes.
    fn drain_all(&self);
    /// Refuses increments until the journal has room.
    fn refuse_until_room(&self);
    /// Accepts increments again after [`refuse_until_room`](Self::refuse_until_room).
    fn accept_again(&self);
}

/// Interval at which a waiting caller checks whether the journal still works.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Results of the rounds so far.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// The newest round after which everything accepted before it was durable.
    durable: u64,
    /// The newest round that failed, and its error.
    failed: Option<(u64, NotDurable)>,
}

/// An increment is counted, but not durable. It stays counted, and becomes durable as soon as the journal can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("counted, but not durable: {reason}")]
pub struct NotDurable {
    reason: Arc<str>,
    is_full: bool,
    /// The journal does not have it, and will not.
    is_certain: bool,
}

impl From<JournalError> for NotDurable {
    fn from(error: JournalError) -> Self {
        let kind = error.kind();
        Self {
            is_full: kind == ErrorKind::Full,
            is_certain: matches!(kind, ErrorKind::Full | ErrorKind::Unavailable | ErrorKind::Corrupt),
            ..Self::new(&error.to_string())
        }
    }
}

impl NotDurable {
    /// Tells whether the journal does not have it, and will not.
    pub(crate) fn is_certain(&self) -> bool {
        self.is_certain
    }

    /// Returns the reason alone, for what is not counted.
    pub(crate) fn reason(&self) -> &Arc<str> {
        &self.reason
    }

    pub(crate) fn new(reason: &str) -> Self {
        Self { reason: reason.into(), is_full: false, is_certain: false }
    }

    pub(crate) fn shut_down() -> Self {
        Self::new("the collector was shut down before the store had everything")
    }

    fn closed() -> Self {
        Self::new("the journal is closed")
    }
}

impl Recorder {
    pub(crate) fn new(journal: Journal, lanes: Arc<Lanes>) -> Self {
        Self {
            lanes,
            journal: RwLock::new(Some(journal)),
            order: Mutex::new(()),
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            progress: watch::Sender::default(),
        }
    }

    /// Records everything accepted until now, and tells whether all of it is durable.
    pub(crate) async fn round(&self, upstream: &impl Upstream) -> bool {
        let order = self.order.lock().await;
        let round = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        upstream.drain_all();
        let mut record = Record::default();
        let mut unsaved = None;
        for (index, lane) in (0_u16..).zip(self.lanes.iter()) {
            // A freeze that failed comes first: the journal forgets its pending deltas when it saves the batches. It is
            // repeated here, because the lane's own attempts may be far apart by now.
            let has_unsaved = lane.lock().has_unsaved();
            if has_unsaved && let Err(error) = self.save(index.into()).await {
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
        let recorded = if is_empty { Ok(()) } else { self.record(record).await };
        drop(order);
        let outcome = recorded.and(unsaved.map_or(Ok(()), Err));
        match &outcome {
            Ok(()) => {
                self.lanes.journal_is_full.store(false, Ordering::Relaxed);
                upstream.accept_again();
                self.progress.send_modify(|progress| progress.durable = round);
            }
            Err(error) => {
                if error.is_full {
                    // The store may take what the journal cannot.
                    self.lanes.journal_is_full.store(true, Ordering::Relaxed);
                    self.lanes.flush_wanted.notify_one();
                    if self.lanes.are_failing() {
                        upstream.refuse_until_room();
                    } else {
                        upstream.accept_again();
                    }
                }
                self.progress.send_modify(|progress| progress.failed = Some((round, error.clone())));
            }
        }
        outcome.is_ok()
    }

    async fn record(&self, record: Record) -> Result<(), NotDurable> {
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
                    self.lanes.iter().for_each(|lane| lane.lock().recorded());
                    return Ok(());
                }
                Err(Refused { record, error }) => (record, error.into()),
            },
            Err(record) => (record, NotDurable::closed()),
        };
        for (index, fresh) in &record.lanes {
            self.lanes.get(usize::from(*index)).lock().put_back_fresh(fresh);
        }
        for quarantined in record.quarantined {
            self.lanes.of(&quarantined.collection).lock().put_back_quarantine(quarantined);
        }
        Err(error)
    }

    /// Adds requests with idempotency keys to the journal, all or none.
    pub(crate) async fn accept(&self, entries: Vec<Arc<KeyedEntry>>) -> Result<(), NotDurable> {
        self.ask(|journal, done| journal.accept(entries, done)).await
    }

    /// Records that requests are decided, together with their deltas, and calls `merge`, which adds these deltas to what is pending in the
    /// lanes: no batch is frozen in between.
    pub(crate) async fn decide(&self, record: Record, merge: impl FnOnce()) -> Result<(), NotDurable> {
        let _order = self.order.lock().await;
        for (index, _) in &record.lanes {
            // As in a round: the journal forgets what it has pending when it saves these batches.
            let has_unsaved = self.lanes.get(usize::from(*index)).lock().has_unsaved();
            if has_unsaved {
                self.save(usize::from(*index)).await?;
            }
        }
        let without_record = |outcome: Result<_, Refused>| outcome.map(drop).map_err(|refused| refused.error);
        self.ask(|journal, done| journal.record(record, move |outcome| done(without_record(outcome))))
            .await?;
        merge();
        Ok(())
    }

    /// Freezes what is pending in a lane, and makes its frozen batches durable if they are not, so that they may be sent.
    pub(crate) async fn freeze(&self, lane: usize) -> Result<(), NotDurable> {
        let _order = self.order.lock().await;
        self.freeze_in_order(lane).await
    }

    /// Does what [`freeze`](Self::freeze) does, and lets the next batch be sent even if the journal cannot have it. Only while the
    /// store takes batches: until it has this one, a killed process loses what it accepted since the journal last worked.
    ///
    /// # Errors
    /// Whether the journal has it is not known.
    pub(crate) async fn freeze_or_give_up(&self, lane: usize) -> Result<(), NotDurable> {
        let _order = self.order.lock().await;
        match self.freeze_in_order(lane).await {
            Err(error) if error.is_certain => self.lanes.get(lane).lock().give_up_saving(),
            frozen => frozen?,
        }
        Ok(())
    }

    async fn freeze_in_order(&self, lane: usize) -> Result<(), NotDurable> {
        if self.lanes.get(lane).lock().is_stale() {
            // Should this fail, then the batches that are frozen now are saved in place of what is pending.
            self.save(lane).await.ok();
        }
        self.lanes.get(lane).lock().freeze();
        self.save(lane).await
    }

    /// Saves the frozen batches of a lane if the journal does not have them. The caller holds `order`.
    async fn save(&self, index: usize) -> Result<(), NotDurable> {
        let lane = self.lanes.get(index);
        let Some(save) = lane.lock().begin_saving() else { return Ok(()) };
        let saved = match save {
            Save::Batches(unsaved) => {
                let number = unsaved.first().map_or(0, |batch| batch.id().lane);
                let batches = unsaved.iter().map(|batch| &**batch);
                self.ask(|journal, done| journal.freeze(number, batches, done)).await
            }
            Save::Nothing(last) => self.ask(|journal, done| journal.forget_pending(&last, done)).await,
            Save::Later => {
                return Err(NotDurable::new("a batch on its way to the store is not in the journal"));
            }
        };
        lane.lock().end_saving(saved.is_ok());
        saved
    }

    /// Notes that the store has a batch. Waits only where the next batch must not be sent before: the store reports the
    /// quarantined counters of its newest batch only.
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
        let target = self.begun.load(Ordering::SeqCst) + 1;
        let mut progress = self.progress.subscribe();
        self.wanted.notify_one();
        loop {
            {
                let progress = progress.borrow_and_update();
                if progress.durable >= target {
                    return Ok(());
                }
                if let Some((round, error)) = &progress.failed
                    && *round >= target
                {
                    return Err(error.clone());
                }
            }
            tokio::select! {
                // The sender lives as long as this recorder.
                changed = progress.changed() => drop(changed),
                // A commit in doubt is answered only once the disk answers: callers are told of it now.
                () = tokio::time::sleep(HEALTH_CHECK_INTERVAL) => {
                    if let Some(problem) = self.status().and_then(|status| status.health.problem().map(Arc::from)) {
                        return Err(NotDurable { reason: problem, is_full: false, is_certain: false });
                    }
                }
            }
        }
    }

    /// Waits until a caller asks for a round.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Waits until everything that the journal was told is durable, resolved batches included.
    pub(crate) async fn sync(&self) -> Result<(), NotDurable> {
        self.ask(|journal, done| journal.sync(done)).await
    }

    /// Returns the identity under which batches are frozen.
    #[cfg(test)]
    pub(crate) fn writer(&self) -> Option<countem_core::Writer> {
        self.journal.read().as_ref().map(Journal::writer)
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.journal.read().as_ref().map(Journal::status)
    }

    /// Closes the journal and frees its directory. May wait for the disk.
    pub(crate) fn close(&self) {
        let journal = self.journal.write().take();
        drop(journal);
    }
}

type Answer = Box<dyn FnOnce(Result<(), JournalError>) + Send>;
