//! The handle of a running engine.

mod config;
mod report;
mod shutdown;
mod start;
mod stats;
mod ticker;

use std::{future::Future, sync::Arc, time::Duration};

use countem_core::{CollectionName, IdempotencyKey, MetricName, NameError, Writer};
use countem_query::{ReadError, Reader};
use countem_store::{ErrorKind, StoreError};
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::{runtime, sync::OnceCell};

pub use self::{
    config::{Durability, EngineConfig},
    report::ShutdownReport,
    start::StartError,
    stats::{LaneStats, Stats},
};
use crate::{
    actors::Supervisor,
    collect::{Calendar, Counter, Intake, KeyedIncrement, Refusal},
    corrections::Corrections,
    deliver::{Lanes, NotDurable, Recorder, Stored, Upstream},
    keyed::{Desk, Guarantee, Keyed, KeyedError},
    read::{AgedSource, EngineSource},
};

#[cfg(test)]
pub(crate) use self::start::counting;

/// Maximum time that an acknowledgement waits for the store where the journal cannot be written.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which it checks whether the store still takes batches.
const STORE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A running engine: counts, flushes and reads. Cheap to clone.
///
/// The drop of the last clone shuts the engine down and blocks until everything pending is stored, at most for the shutdown deadline
/// and a few seconds. It does not block on a thread of the engine itself, and does nothing in a forked child.
///
/// # Fork
/// The threads of an engine exist only in the process that started it. In a forked child [`increment`](Self::increment), [`increment_at`](Self::increment_at)
/// and [`Counter::try_increment`] are refused, reads, [`flush`](Self::flush), [`durable`](Self::durable) and [`shutdown`](Self::shutdown) fail at once, and
/// [`Stats::is_forked`] is set. Only [`count`](Self::count) and [`Counter::increment`] do not check it for a counter that the parent counted before: such a count
/// stays in the child's memory.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Beside `last`, which leads to it as well: every pointer on the way to a counter costs a nanosecond.
    intake: Arc<Intake>,
    last: Arc<LastHandle>,
}

/// Shuts the engine down when the last handle is dropped.
#[derive(Debug)]
struct LastHandle {
    state: Arc<EngineState>,
}

/// State shared by handles and periodic work.
#[derive(Debug)]
struct EngineState {
    intake: Arc<Intake>,
    lanes: Arc<Lanes>,
    /// Only at level `journal`.
    recorder: Option<Arc<Recorder>>,
    supervisor: Arc<Supervisor>,
    source: Arc<EngineSource>,
    desk: Arc<Desk>,
    writer: Writer,
    shutdown_deadline: Duration,
    stored_age: Duration,
    /// The store may forget this writer after a clean shutdown: not while resolved batches are kept for a replay, which
    /// needs the bookkeeping to tell what a restored store has.
    may_forget: bool,
    report: OnceCell<ShutdownReport>,
}

impl Engine {
    fn state(&self) -> &Arc<EngineState> {
        &self.last.state
    }

    #[cfg(test)]
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.state().recorder.as_deref()
    }

    /// Counts now, or returns the reason why not. Never blocks on the store.
    ///
    /// # Errors
    /// [`Refusal`]: the increment was not counted, and the stats say so.
    #[inline]
    pub fn increment(&self, collection: &str, metric: &str, n: i64) -> Result<(), Refusal> {
        let intake = &self.intake;
        intake.increment(collection, metric, n).inspect_err(|refusal| intake.refuse(refusal))
    }

    /// Counts now, or counts and logs the refusal. Never blocks on the store.
    #[inline(always)]
    pub fn count(&self, collection: &str, metric: &str, n: i64) {
        if !self.intake.count_known(collection, metric, n) {
            self.count_slowly(collection, metric, n);
        }
    }

    #[cold]
    #[inline(never)]
    fn count_slowly(&self, collection: &str, metric: &str, n: i64) {
        if let Err(refusal) = self.intake.count(collection, metric, n) {
            self.intake.refuse(&refusal);
        }
    }

    /// Counts and logs the refusal of an increment that has no metric, because of its labels.
    pub fn refuse(&self, refusal: &Refusal) {
        self.intake.refuse(refusal);
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
        let intake = &self.intake;
        intake.increment_at(collection, metric, n, timestamp).inspect_err(|refusal| intake.refuse(refusal))
    }

    /// Returns a handle of one counter.
    ///
    /// # Errors
    /// [`NameError`] when a name is not valid.
    pub fn counter(&self, collection: &str, metric: &str) -> Result<Counter, NameError> {
        Ok(self.intake.counter(CollectionName::new(collection)?, MetricName::new(metric)?))
    }

    /// Returns once everything accepted before the call is in the store, and tells whether it is: a shutdown whose deadline
    /// passes ends the wait.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing about what is stored.
    pub async fn flush(&self) -> bool {
        if self.intake.is_forked() {
            return false;
        }
        self.intake.drain_all();
        let stored = join_all(self.state().begin_flush()).await;
        // What is stored has made room by the time the caller counts on.
        self.state().lanes.measure();
        stored.into_iter().all(|is_stored| is_stored)
    }

    /// Returns once everything accepted before the call survives the end of the process: at level `journal` once it is in the
    /// journal, or in the store while the journal has no room, at level `memory` once it is in the store.
    ///
    /// # Errors
    /// [`NotDurable`]: the journal cannot be written. Everything stays counted.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing about what becomes durable.
    pub async fn durable(&self) -> Result<(), NotDurable> {
        if self.intake.is_forked() {
            return Err(NotDurable::new(&Refusal::Forked.to_string()));
        }
        let Some(recorder) = self.state().recorder.clone() else {
            return if self.flush().await { Ok(()) } else { Err(NotDurable::shut_down()) };
        };
        // On our own runtime: the wait checks the journal's health now and then, and the caller's may have no timers.
        let state = Arc::clone(self.state());
        let waiting = self.runtime().spawn(async move {
            match recorder.durable().await {
                Err(error) if !state.is_stored_instead().await => Err(error),
                _ => Ok(()),
            }
        });
        waiting.await.unwrap_or_else(|_| Err(NotDurable::shut_down()))
    }

    /// Counts a request once, however often it is sent, and to which engine on the same store: at least for 24 hours its key stands for
    /// it. `body` is a hash of the whole request. Either all of `increments` are counted, in the buckets of the first arrival, or none.
    ///
    /// At level `memory` the request is in the store when this returns, whatever the guarantee. A request whose key is in progress in this
    /// engine waits for the one before. Requests that wait at the same time share a commit of the journal and a claim.
    ///
    /// The clocks of all engines on a store have to agree within an hour.
    ///
    /// # Errors
    /// [`KeyedError`]: says whether the key is free or in progress. A refused request is not remembered.
    ///
    /// # Cancel safety
    /// Dropping the future decides nothing: a request that was accepted goes on in the background.
    pub async fn increment_keyed(
        &self,
        key: &IdempotencyKey,
        body: [u8; 32],
        increments: &[KeyedIncrement<'_>],
        guarantee: Guarantee,
    ) -> Result<Keyed, KeyedError> {
        let state = self.state();
        let outcome = state.desk.request(key, body, increments).await?;
        let has_to_wait = guarantee == Guarantee::Store && state.recorder.is_some();
        if has_to_wait
            && outcome != Keyed::Mismatch
            && !join_all(state.begin_flush()).await.into_iter().all(|stored| stored)
        {
            return Err(KeyedError::NotStored);
        }
        Ok(outcome)
    }

    /// Returns a reader of the store and the pending counts, each counted exactly once.
    pub fn reader(&self) -> Reader {
        let source = Arc::clone(&self.state().source);
        Reader::new(source)
    }

    /// Returns the same reader, which may take a value of the store that is as old as [`EngineConfig::stored_age`] for single counters.
    /// The counts of this engine are exact nevertheless, stored ones and pending ones.
    pub fn aged_reader(&self) -> Reader {
        let state = self.state();
        Reader::new(Arc::new(AgedSource { source: Arc::clone(&state.source), max_age: state.stored_age }))
    }

    /// Returns the corrections of the store, to be used on the [runtime](Self::runtime) of the engine. They know nothing of pending counts.
    ///
    /// # Errors
    /// [`ReadError::Closed`] after a shutdown.
    pub fn corrections(&self) -> Result<Corrections, ReadError> {
        let store = self.state().supervisor.store().ok_or(ReadError::Closed)?;
        Ok(Corrections::new(store, self.calendar().schedules()))
    }

    /// Returns statistics.
    pub fn stats(&self) -> Stats {
        self.state().stats()
    }

    /// Spreads threads over `collectors` tables, within the configured limits, and returns how many that are. Changes nothing
    /// in a fork of the process.
    pub fn resize(&self, collectors: usize) -> usize {
        if self.intake.is_forked() {
            return self.intake.router().active();
        }
        self.state().supervisor.resize(collectors)
    }

    /// Returns the time by which increments are counted.
    pub fn now(&self) -> Timestamp {
        self.intake.clock().now()
    }

    /// Returns the calendar.
    pub fn calendar(&self) -> &Arc<Calendar> {
        self.intake.calendar()
    }

    /// Returns the runtime on which the store's I/O runs.
    pub fn runtime(&self) -> &runtime::Handle {
        self.state().supervisor.runtime()
    }

    /// Runs a future of this engine on the engine's own runtime, so that any executor may wait for it.
    ///
    /// # Errors
    /// [`ReadError::Closed`] when the engine's runtime has ended.
    pub async fn run<T: Send + 'static, E: From<ReadError> + Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        if self.intake.is_forked() {
            let error = StoreError::new(ErrorKind::Refused, Refusal::Forked.to_string());
            return Err(ReadError::from(error).into());
        }
        self.runtime().spawn(future).await.unwrap_or_else(|_| Err(ReadError::Closed.into()))
    }
}

impl EngineState {
    fn stats(&self) -> Stats {
        if self.intake.is_forked() {
            return Stats { is_forked: true, ..Stats::default() };
        }
        let requests_in_progress = self.desk.in_progress();
        let restarts = self.supervisor.restarts();
        Stats {
            requests_in_progress,
            ..Stats::of(&self.intake, &self.lanes, self.recorder.as_deref(), restarts)
        }
    }

    /// Lets counting follow the store's schedule, in the background.
    fn agree(&self) {
        let Some(store) = self.supervisor.store() else { return };
        let agreement = Arc::clone(self.supervisor.agreement());
        self.supervisor.runtime().spawn(async move {
            if let Err(error) = agreement.ensure(&*store).await {
                tracing::debug!(%error, "the schedule of the store is not known");
            }
        });
    }

    /// Removes expired buckets, in steps between which the store takes batches.
    fn remove_expired(&self) {
        let Some(store) = self.supervisor.store() else { return };
        let now = self.intake.clock().now();
        self.supervisor.runtime().spawn(async move {
            if let Err(error) = countem_store::remove_expired(&*store, now).await {
                tracing::debug!(%error, "expired buckets stay for now");
            }
        });
    }

    /// Compacts closed buckets, in steps between which the store takes batches, and so many at most that what is left behind an outage
    /// does not load the store for long.
    fn compact(&self) {
        const STEP: usize = 8;
        const MAX_STEPS: usize = 128;
        let Some(store) = self.supervisor.store() else { return };
        let now = self.intake.clock().now();
        self.supervisor.runtime().spawn(async move {
            for _ in 0..MAX_STEPS {
                match store.compact(now, STEP).await {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) => return tracing::debug!(%error, "some buckets are compacted later"),
                }
            }
        });
    }

    /// Finishes a correction of the store that was interrupted, in the background.
    fn finish_correction(&self) {
        let Some(store) = self.supervisor.store() else { return };
        let schedules = self.intake.calendar().schedules();
        self.supervisor.runtime().spawn(async move {
            match Corrections::new(store, schedules).finish_open().await {
                Ok(true) => tracing::info!("finished a correction of the store that was interrupted"),
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "it is not known whether a correction is unfinished"),
            }
        });
    }

    /// Waits until everything pending now is stored, as long as the store takes it; for when the journal cannot.
    async fn is_stored_instead(&self) -> bool {
        self.intake.drain_all();
        let mut stored = join_all(self.begin_flush());
        let deadline = tokio::time::Instant::now() + STORE_TIMEOUT;
        while !self.lanes.are_failing() && tokio::time::Instant::now() < deadline {
            if let Ok(stored) = tokio::time::timeout(STORE_CHECK_INTERVAL, &mut stored).await {
                return stored.into_iter().all(|is_stored| is_stored);
            }
        }
        false
    }

    /// Starts a flush, and returns waits for the moment when everything pending now is stored.
    fn begin_flush(&self) -> Vec<impl Future<Output = bool> + use<>> {
        let stored: Vec<_> = self.lanes.iter().filter_map(|lane| lane.lock().when_stored()).collect();
        if !stored.is_empty() {
            self.supervisor.flush(true);
        }
        stored.into_iter().map(Stored::wait).collect()
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
impl Engine {
    /// Returns the number of callers that wait until something is stored.
    pub(crate) fn waits(&self) -> usize {
        self.state().lanes.iter().map(|lane| lane.lock().waits()).sum()
    }

    pub(crate) fn panic_everywhere(&self) {
        self.state().supervisor.panic_everywhere();
    }
}
