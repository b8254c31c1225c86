//! A running node.

use std::{
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use countem_core::{CollectionName, MetricName, NameError, ScheduleError, Writer};
use countem_journal::{Journal, JournalError, JournalOptions, Recovered};
use countem_store::{ErrorKind, Query, Registration, Rows, Store, StoreError, async_trait, overlay};
use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{runtime, sync::OnceCell};

use crate::{
    actors::{Actors, Stage},
    calendar::Calendar,
    clock::Clock,
    counter::Counter,
    lane::Lane,
    node::Node,
    reader::{ReadError, Reader, Source},
    recorder::{self, NotDurable, Recorder},
    refusal::Refusal,
    retry::Retry,
    settings::{Durability, Settings},
    shutdown::ShutdownReport,
    stats::Stats,
    ticker,
};

/// Says why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Threads or the runtime could not be made.
    #[error("could not start the threads of the collector")]
    Threads(#[from] io::Error),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A collection stores no period.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

/// A running node: counts, flushes and reads. Cheap to clone; the last clone that is dropped shuts down in the background.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Beside `alive`, which leads to it as well: every pointer on the way to a counter costs a nanosecond.
    node: Arc<Node>,
    alive: Arc<Alive>,
}

/// Ends the engine with its last handle.
#[derive(Debug)]
struct Alive {
    core: Arc<Core>,
}

/// What handles, ticker and background tasks share.
#[derive(Debug)]
pub(crate) struct Core {
    node: Arc<Node>,
    actors: Actors,
    /// `None` after the shutdown, which closes the store.
    store: Mutex<Option<Arc<dyn Store>>>,
    calendar: Arc<Calendar>,
    writer: Writer,
    shutdown_deadline: Duration,
    /// Increments that an earlier process had left in the journal.
    recovered: u64,
    /// Whether the bookkeeping of a clean end may leave the store: not while resolved batches are kept for a replay, which
    /// needs it to tell what a restored store has.
    may_retire: bool,
    report: OnceCell<ShutdownReport>,
}

/// How long a start waits for the store to say whether an identity is taken.
const CLAIM: Duration = Duration::from_secs(2);

/// Worker threads for store I/O. Lanes and reads mostly wait, so two are plenty.
const WORKERS: usize = 2;

impl Engine {
    /// Starts a node whose store is opened by `open`, on the engine's own runtime.
    ///
    /// Works in every host: tokio, actix-web, or no runtime at all (with any executor that polls the future).
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
    pub async fn start<F>(settings: Settings, clock: Clock, open: F) -> Result<Self, StartError>
    where
        F: Future<Output = Result<Arc<dyn Store>, StoreError>> + Send + 'static,
    {
        let calendar =
            Calendar::new(&settings.zone, &settings.periods, &settings.collection_periods, clock.now())?;
        let calendar = Arc::new(calendar);
        clock.drive(&calendar);
        let stage = Stage::open(WORKERS)?;
        let required = settings.store_required;
        let open = async move {
            let store = open.await?;
            if required {
                store.check().await?;
            }
            Ok::<_, StoreError>(store)
        };
        // Nothing is left running when one of them fails.
        let stage = StageGuard(Some(stage));
        let journal = stage.open_journal(&settings).await?;
        let store = stage.runtime().spawn(open).await.map_err(io::Error::other)??;
        let journal = match journal {
            Some((journal, recovered)) => Some(stage.claim_identity(&store, journal, recovered).await?),
            None => None,
        };
        let (writer, recorder, recovered) = match journal {
            Some((journal, recovered)) => (journal.writer(), Some(Recorder::new(journal)), Some(recovered)),
            None => (Writer::new(rand::random(), 1), None, None),
        };
        let mut settings = settings;
        if let Some(recovered) = &recovered {
            settings.lanes = recovered.lanes;
        }
        let node = Arc::new(Node::new(&settings, Arc::clone(&calendar), clock, &writer, recorder));
        let recovered = recovered.map_or(0, |recovered| node.restore(recovered));
        let stage = stage.keep();
        let retry = Retry::new(settings.retry_first, settings.retry_longest);
        let actors = Actors::start(stage, Arc::clone(&node), Arc::clone(&store), retry);
        let core = Arc::new(Core {
            node,
            actors,
            store: Mutex::new(Some(store)),
            calendar,
            writer,
            shutdown_deadline: settings.shutdown_deadline,
            recovered,
            may_retire: match &settings.durability {
                Durability::Memory => true,
                Durability::Journal { options, .. } => options.resolved_retention.is_zero(),
            },
            report: OnceCell::new(),
        });
        if let Durability::Journal { tick, .. } = settings.durability {
            core.actors.runtime().spawn(recorder::run(Arc::downgrade(&core), tick));
        }
        if recovered > 0 {
            core.actors.flush(true);
        }
        core.actors.runtime().spawn(ticker::run(Arc::downgrade(&core), settings));
        Ok(Self { node: Arc::clone(&core.node), alive: Arc::new(Alive { core }) })
    }

    fn core(&self) -> &Arc<Core> {
        &self.alive.core
    }

    #[inline]
    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Counts now. Never blocks on the store.
    ///
    /// # Errors
    /// [`Refusal`]: the increment was not counted, and the stats say so.
    #[inline]
    pub fn increment(&self, collection: &str, metric: &str, n: i64) -> Result<(), Refusal> {
        let node = self.node();
        node.increment(collection, metric, n).inspect_err(|refusal| node.refuse(refusal))
    }

    /// Counts now, or counts and logs the refusal. Never blocks on the store.
    #[inline(always)]
    pub fn count(&self, collection: &str, metric: &str, n: i64) {
        if !self.node.count_known(collection, metric, n) {
            self.count_slowly(collection, metric, n);
        }
    }

    #[cold]
    #[inline(never)]
    fn count_slowly(&self, collection: &str, metric: &str, n: i64) {
        if let Err(refusal) = self.node.count(collection, metric, n) {
            self.node.refuse(&refusal);
        }
    }

    /// Counts at `timestamp`, which has to lie in the configured window.
    ///
    /// # Errors
    /// [`Refusal`]: the increment was not counted, and the stats say so.
    pub fn increment_at(
        &self,
        collection: &str,
        metric: &str,
        n: i64,
        timestamp: Timestamp,
    ) -> Result<(), Refusal> {
        let node = self.node();
        node.increment_at(collection, metric, n, timestamp).inspect_err(|refusal| node.refuse(refusal))
    }

    /// Returns a handle of one counter.
    ///
    /// # Errors
    /// [`NameError`] when a name is not valid.
    pub fn counter(&self, collection: &str, metric: &str) -> Result<Counter, NameError> {
        Ok(self.node().counter(CollectionName::new(collection)?, MetricName::new(metric)?))
    }

    /// Returns once everything accepted before the call is in the store, and tells whether it is: a shutdown whose deadline
    /// passes ends the wait.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing about what is stored.
    pub async fn flush(&self) -> bool {
        let core = self.core();
        core.node.drain_all();
        let settled = core.settle();
        join_all(settled).await.iter().all(Result::is_ok)
    }

    /// Returns once everything accepted before the call survives the end of the process: at level `journal` once it is in the
    /// journal, at level `memory` once it is in the store.
    ///
    /// # Errors
    /// [`NotDurable`]: the journal cannot be written. Everything stays counted.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing about what becomes durable.
    pub async fn durable(&self) -> Result<(), NotDurable> {
        if self.node().recorder().is_none() {
            return if self.flush().await { Ok(()) } else { Err(NotDurable::shut_down()) };
        }
        let node = Arc::clone(self.node());
        // On our own runtime: the wait looks at the journal's health now and then, and the caller's may have no timers.
        let waiting = self.runtime().spawn(async move {
            match node.recorder() {
                Some(recorder) => recorder.durable().await,
                None => Ok(()),
            }
        });
        waiting.await.unwrap_or_else(|_| Err(NotDurable::shut_down()))
    }

    /// Reads counters, this node's pending deltas included exactly once.
    pub fn reader(&self) -> Reader {
        let source = NodeSource { core: Arc::clone(self.core()) };
        Reader::of_source(Arc::new(source), Arc::clone(&self.core().calendar))
    }

    /// Returns where every increment is.
    pub fn stats(&self) -> Stats {
        Stats::of(self.node(), self.core().actors.restarts())
    }

    /// Spreads threads over `collectors` tables, within the configured limits, and returns how many that are.
    pub fn resize(&self, collectors: usize) -> usize {
        self.core().resize(collectors)
    }

    /// Returns the time by which increments are counted.
    pub fn now(&self) -> Timestamp {
        self.node().clock().now()
    }

    /// Returns the calendar.
    pub fn calendar(&self) -> &Arc<Calendar> {
        &self.core().calendar
    }

    /// Returns the runtime on which the store's I/O runs.
    pub fn runtime(&self) -> &runtime::Handle {
        self.core().actors.runtime()
    }

    /// Stops intake, stores everything pending, and says where every increment is. Further calls return the same report.
    ///
    /// # Cancel safety
    /// The shutdown goes on when the future is dropped.
    pub async fn shutdown(&self) -> ShutdownReport {
        let core = Arc::clone(self.core());
        if let Some(report) = core.report.get() {
            return report.clone();
        }
        let runtime = core.actors.runtime().clone();
        let task = runtime.spawn(async move { core.shutdown().await });
        match task.await {
            Ok(report) => report,
            // The runtime ends only after a shutdown has left its report.
            Err(_) => self.core().report.get().cloned().unwrap_or_default(),
        }
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
impl Engine {
    pub(crate) fn panic_everywhere(&self) {
        self.core().actors.panic_everywhere();
    }
}

impl Core {
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Returns the store, until it is closed.
    fn store(&self) -> Result<Arc<dyn Store>, ReadError> {
        self.store.lock().clone().ok_or(ReadError::Closed)
    }

    pub(crate) fn actors(&self) -> &Actors {
        &self.actors
    }

    pub(crate) fn resize(&self, collectors: usize) -> usize {
        let active = self.node.router().resize(collectors);
        self.actors.fit_collectors();
        active
    }

    /// Returns once no batch of an earlier process is unresolved in `lane`: before, nobody can say what the store has of them.
    async fn resolve_past(&self, lane: &Lane) -> Result<(), StoreError> {
        let attempts_before = lane.lock().ledger.attempts;
        loop {
            {
                let lane = lane.lock();
                if !lane.has_unresolved_past() {
                    return Ok(());
                }
                // A batch that was stored since then is an attempt, too, but leaves no error.
                if lane.ledger.attempts > attempts_before
                    && let Some(error) = &lane.ledger.last_error
                {
                    let text =
                        format!("counts of an earlier process have to be stored before a read: {error}");
                    return Err(StoreError::new(ErrorKind::NotApplied, text));
                }
            }
            self.actors.flush(true);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts a flush and returns what tells when everything pending now is stored.
    fn settle(&self) -> Vec<tokio::sync::oneshot::Receiver<()>> {
        let settled: Vec<_> = self.node.lanes().iter().filter_map(|lane| lane.lock().settled()).collect();
        if !settled.is_empty() {
            self.actors.flush(true);
        }
        settled
    }

    async fn shutdown(&self) -> ShutdownReport {
        self.report.get_or_init(|| self.shut_down()).await.clone()
    }

    async fn shut_down(&self) -> ShutdownReport {
        let began = Instant::now();
        self.node.close();
        let deadline = tokio::time::Instant::now() + self.shutdown_deadline;
        let mut settled = join_all(self.settle());
        // Every second a new attempt at once: a backoff grown over an outage must not eat the deadline.
        let mut nudge = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = &mut settled => break,
                () = tokio::time::sleep_until(deadline) => break,
                _ = nudge.tick() => self.actors.flush(true),
            }
        }
        let report = self.report(began).await;
        if report.is_balanced() && report.is_settled() {
            self.leave().await;
        }
        self.node.lanes().iter().for_each(|lane| lane.lock().end());
        self.actors.end().await;
        let store = self.store.lock().take();
        let node = Arc::clone(&self.node);
        // Closing waits for the disk.
        let closing = tokio::task::spawn_blocking(move || {
            drop(store);
            if let Some(recorder) = node.recorder() {
                recorder.close();
            }
        });
        if closing.await.is_err() {
            tracing::error!("closing the store or the journal panicked");
        }
        tracing::info!(%report, "collector is shut down");
        self.actors.stop();
        report
    }

    fn was_ever_in_doubt(&self) -> bool {
        self.node.lanes().iter().any(|lane| lane.lock().ledger.doubts > 0)
    }

    /// Lets the store forget this writer: at once after a life in which nothing was ever in doubt, else when no late copy can
    /// exist any more.
    async fn leave(&self) {
        let Ok(store) = self.store() else { return };
        // Without the journal's word it might send batches again that the store no longer recognises.
        let settled = match self.node.recorder() {
            Some(recorder) => recorder.sync().await.map_err(|error| error.to_string()),
            None => Ok(()),
        };
        let left = match settled {
            Ok(()) if self.may_retire && !self.was_ever_in_doubt() => {
                match store.retire(&self.writer).await {
                    // The store itself was in doubt on the way, without our noticing.
                    Err(_) => store.release(&self.writer).await,
                    retired => retired,
                }
            }
            Ok(()) => store.release(&self.writer).await,
            Err(reason) => Err(StoreError::new(ErrorKind::NotApplied, reason)),
        };
        if let Err(error) = left {
            tracing::debug!(%error, "bookkeeping of this writer stays in the store");
        }
    }

    async fn report(&self, began: Instant) -> ShutdownReport {
        let has_journal = match self.node.recorder() {
            Some(recorder) => {
                recorder.round(&self.node).await;
                true
            }
            None => false,
        };
        let (accepted, _) = self.node.intake();
        let mut report = ShutdownReport { accepted: accepted + self.recovered, ..ShutdownReport::default() };
        for lane in self.node.lanes() {
            let mut lane = lane.lock();
            if has_journal {
                let unsaved = lane.fresh_increments();
                report.dropped += unsaved;
                report.journaled += lane.pending_increments().saturating_sub(unsaved);
            } else {
                report.dropped += lane.drop_unsent();
                report.in_doubt += lane.in_flight_increments();
            }
            report.applied += lane.ledger.applied;
            report.quarantined += lane.ledger.quarantined;
            match &lane.ledger.last_error {
                Some(error) => report.errors.push(error.clone()),
                None if !lane.is_settled() => {
                    report.errors.push("the store has not answered in time".to_owned())
                }
                None => {}
            }
        }
        report.took = began.elapsed();
        report
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if self.core.report.initialized() {
            return;
        }
        let stats = Stats::of(&self.core.node, 0);
        if stats.pending > 0 {
            tracing::warn!(
                pending = stats.pending,
                "collector was dropped without a shutdown, storing what is pending in the background"
            );
        }
        let core = Arc::clone(&self.core);
        self.core.actors.runtime().spawn(async move { core.shutdown().await });
    }
}

/// Ends the threads of an engine that does not come about.
struct StageGuard(Option<Stage>);

impl StageGuard {
    fn runtime(&self) -> &runtime::Handle {
        &self.0.as_ref().expect("the stage is there until it is kept").runtime
    }

    /// Opens the journal that the settings ask for; waits for the disk on a thread that may.
    async fn open_journal(&self, settings: &Settings) -> Result<Option<(Journal, Recovered)>, StartError> {
        let Durability::Journal { options, .. } = &settings.durability else { return Ok(None) };
        let options = JournalOptions { lanes: settings.lanes, ..options.clone() };
        let opened = self.runtime().spawn_blocking(move || Journal::open(options)).await;
        let (journal, recovered) = opened.map_err(io::Error::other)??;
        tracing::info!(writer = %journal.writer(), %recovered, "journal is open");
        Ok(Some((journal, recovered)))
    }

    /// Asks the store whether another process has the identity of the journal, which then was copied, and takes a fresh one if so.
    ///
    /// A store that is away or slow cannot say. The journal itself notices most copies, so counting begins all the same.
    async fn claim_identity(
        &self,
        store: &Arc<dyn Store>,
        journal: Journal,
        mut recovered: Recovered,
    ) -> Result<(Journal, Recovered), StartError> {
        let (asked, writer) = (Arc::clone(store), journal.writer());
        // All of it on our own runtime: the caller's may have no timers. The claim is a task of its own, because a store's
        // future runs to its end.
        let claim = self.runtime().spawn(async move {
            let claim = tokio::spawn(async move { asked.register(&writer).await });
            tokio::time::timeout(CLAIM, claim).await
        });
        match claim.await {
            Ok(Ok(Ok(Ok(Registration::Cloned)))) => {}
            Ok(Ok(Ok(Ok(Registration::Fresh)))) => return Ok((journal, recovered)),
            unknown => {
                tracing::warn!(
                    ?unknown,
                    "store cannot say yet whether another process has the identity of this journal"
                );
                return Ok((journal, recovered));
            }
        }
        let renewed = self.runtime().spawn_blocking(move || {
            journal.quarantine_pending_blocking("found in a copy of another node's journal")?;
            let writer = journal.fresh_identity_blocking()?;
            tracing::warn!(%writer, "journal is a copy of another node's: it has a new identity now");
            Ok::<_, JournalError>(journal)
        });
        let journal = renewed.await.map_err(io::Error::other)??;
        recovered.pending.clear();
        Ok((journal, recovered))
    }

    fn keep(mut self) -> Stage {
        self.0.take().expect("the stage is kept once")
    }
}

impl Drop for StageGuard {
    fn drop(&mut self) {
        if let Some(stage) = &self.0 {
            stage.close();
        }
    }
}

/// The store and what this node has pending.
#[derive(Debug)]
struct NodeSource {
    core: Arc<Core>,
}

#[async_trait]
impl Source for NodeSource {
    async fn rows(&self, query: &Query) -> Result<Rows, ReadError> {
        let core = &self.core;
        let lane = core.node.lane(query.collection.as_str());
        let store = core.store()?;
        core.resolve_past(lane).await?;
        // While the gate is held no further batch is sent: what the snapshot calls unsent stays unsent.
        let _gate = lane.gate.read().await;
        core.node.drain_all();
        let snapshot = lane.lock().snapshot(query);
        let mut rows = store.read(query, snapshot.in_flight.as_deref()).await?;
        for (bucket, counters) in &snapshot.unsent {
            let deltas = counters.iter().map(|(metric, n)| countem_core::Delta {
                collection: query.collection.as_str(),
                metric,
                bucket: *bucket,
                n: *n,
                increments: 0,
            });
            overlay(&mut rows, query, deltas);
        }
        Ok(rows)
    }

    async fn names(&self) -> Result<Vec<CollectionName>, ReadError> {
        let store = self.core.store()?;
        // What is pending first: what is stored meanwhile is then seen twice, and never not at all.
        self.core.node.drain_all();
        let mut names = Vec::new();
        for lane in self.core.node.lanes() {
            names.extend(lane.lock().collections().filter_map(|name| CollectionName::new(name).ok()));
        }
        names.extend(store.collections().await?);
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

impl Engine {
    /// Runs a future of this engine on the engine's own runtime, so that any executor may wait for it.
    ///
    /// # Errors
    /// [`ReadError::Closed`] when the engine's runtime has ended.
    pub async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.runtime().spawn(future).await.unwrap_or(Err(ReadError::Closed))
    }
}
