//! A running node.

mod end;
mod source;
mod start;

use std::{future::Future, sync::Arc, time::Duration};

use countem_core::{CollectionName, MetricName, NameError, Writer};
use countem_query::{ReadError, Reader};
use countem_store::Store;
use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{runtime, sync::OnceCell, sync::oneshot};

use self::source::NodeSource;
pub use self::start::StartError;
use crate::{
    actors::Actors, calendar::Calendar, counter::Counter, node::Node, recorder::NotDurable, refusal::Refusal,
    shutdown::ShutdownReport, stats::Stats,
};

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
    /// Whether the bookkeeping of a clean end may leave the store: not while resolved batches are kept for a replay, which
    /// needs it to tell what a restored store has.
    may_retire: bool,
    report: OnceCell<ShutdownReport>,
}

impl Engine {
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
        Reader::new(Arc::new(source), Arc::clone(self.core().calendar.schedules()))
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
            // The runtime ends only after a shutdown has left its report, unless it panicked.
            Err(_) => self.core().report.get().cloned().unwrap_or_else(|| self.core().broken_report()),
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

    /// Starts a flush and returns what tells when everything pending now is stored.
    fn settle(&self) -> Vec<oneshot::Receiver<()>> {
        let settled: Vec<_> = self.node.lanes().iter().filter_map(|lane| lane.lock().settled()).collect();
        if !settled.is_empty() {
            self.actors.flush(true);
        }
        settled
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
