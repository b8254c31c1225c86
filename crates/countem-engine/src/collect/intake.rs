//! Folding increments into the table of the calling thread's collector.

use std::sync::Arc;

use countem_core::{Bucket, BucketError, CollectionName, Delta, FoldError, MetricName};
use jiff::{SignedDuration, Timestamp};

use super::{
    Calendar, Clock, Counter, Refusal, Router,
    calendar::BucketCache,
    collector::IntakeState,
    counter::Registry,
    process::Process,
    refusal::{REASONS, warn_on_stderr},
};
use crate::{
    deliver::{Lanes, Upstream},
    sync::{AtomicU64, Mutex, Ordering, RwLock},
};

/// Accepts increments. The counts are here, in no actor: an actor that dies takes nothing with it.
#[derive(Debug)]
pub(crate) struct Intake {
    router: Router,
    calendar: Arc<Calendar>,
    /// The counting bucket of every collection; `None` when some have a schedule of their own, and the calendar has to be asked.
    only_buckets: Option<Arc<BucketCache>>,
    pub(super) registry: Registry,
    pub(super) lanes: Arc<Lanes>,
    clock: Clock,
    limits: IntakeLimits,
    /// Increments that came through handles and have left their cells.
    pub(super) accepted_by_cells: AtomicU64,
    /// Held for reading while a delta moves from a table or cell to a lane, for writing while none may.
    pub(super) moves: RwLock<()>,
    refused: [AtomicU64; REASONS.len()],
    /// The state that new handles begin with.
    state: Mutex<IntakeState>,
    process: Process,
}

/// Sizes of tables, and the window of event times.
#[derive(Debug, Clone)]
pub(crate) struct IntakeLimits {
    pub(crate) collectors_min: usize,
    pub(crate) collectors_max: usize,
    /// Maximum number of counters in one collector's table.
    pub(crate) table_counters: usize,
    /// Maximum number of counters with a handle.
    pub(crate) handles_max: usize,
    pub(crate) past_window: SignedDuration,
    pub(crate) future_window: SignedDuration,
    pub(crate) warn_on_stderr: bool,
}

impl Intake {
    pub(crate) fn new(
        limits: IntakeLimits,
        calendar: Arc<Calendar>,
        clock: Clock,
        lanes: Arc<Lanes>,
    ) -> Self {
        Self {
            router: Router::new(limits.collectors_min, limits.collectors_max, limits.table_counters),
            only_buckets: calendar.only_buckets(),
            calendar,
            registry: Registry::default(),
            lanes,
            clock,
            limits,
            accepted_by_cells: AtomicU64::new(0),
            moves: RwLock::default(),
            refused: Default::default(),
            state: Mutex::new(IntakeState::Open),
            process: Process::current(),
        }
    }

    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    pub(crate) fn calendar(&self) -> &Arc<Calendar> {
        &self.calendar
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Makes the time now the one at which increments are counted, and returns how long that is valid.
    pub(crate) fn advance_clock(&self) -> SignedDuration {
        self.clock.advance(&self.calendar)
    }

    pub(crate) fn counter(self: &Arc<Self>, collection: CollectionName, metric: MetricName) -> Counter {
        self.registry.counter(self, collection, metric)
    }

    /// Tells whether this process is a fork of the one that started the engine. Nothing else here may be used then: locks
    /// may be held by threads that do not exist.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.process.is_forked()
    }

    /// Counts now, or returns the reason why not.
    #[inline]
    pub(crate) fn increment(&self, collection: &str, metric: &str, n: i64) -> Result<(), Refusal> {
        if !self.is_forked() && self.count_known(collection, metric, n) {
            Ok(())
        } else {
            self.count(collection, metric, n)
        }
    }

    /// Counts now in the usual case: intake is open, the counter is known, and no other thread is at the table. Returns false in
    /// any other case; nothing was counted then.
    #[inline(always)]
    pub(crate) fn count_known(&self, collection: &str, metric: &str, n: i64) -> bool {
        let buckets = self.buckets(collection);
        let bucket = buckets.current();
        // Hashed before the lock is taken: the processor does it while the lock before is still being given back.
        let hash = self.router.hash(collection, metric, bucket);
        let Some(mut open) = self.router.table(self.router.index()).try_lock() else { return false };
        let is_counted =
            open.state == IntakeState::Open && open.table.add_known(hash, collection, metric, bucket, n);
        open.accepted += u64::from(is_counted);
        is_counted
    }

    /// Counts now in any case.
    #[cold]
    #[inline(never)]
    pub(crate) fn count(&self, collection: &str, metric: &str, n: i64) -> Result<(), Refusal> {
        let buckets = self.buckets(collection);
        self.fold(collection, metric, n, || Ok(buckets.current()))
    }

    #[inline(always)]
    fn buckets(&self, collection: &str) -> &BucketCache {
        match &self.only_buckets {
            Some(buckets) => buckets,
            None => self.calendar.buckets(collection),
        }
    }

    /// Counts at `timestamp`.
    pub(crate) fn increment_at(
        &self,
        collection: &str,
        metric: &str,
        n: i64,
        timestamp: Timestamp,
    ) -> Result<(), Refusal> {
        self.check_window(timestamp)?;
        if self.calendar.has_expired(collection, timestamp, self.clock.now()) {
            return Err(Refusal::Expired { timestamp });
        }
        self.fold(collection, metric, n, || self.calendar.bucket_at(collection, timestamp))
    }

    pub(super) fn future_window(&self) -> SignedDuration {
        self.limits.future_window
    }

    /// Checks that an event at `timestamp` is neither too old nor too far ahead.
    pub(super) fn check_window(&self, timestamp: Timestamp) -> Result<(), Refusal> {
        let age = self.clock.now().duration_since(timestamp);
        match age > self.limits.past_window || -age > self.limits.future_window {
            true => Err(Refusal::Window { timestamp }),
            false => Ok(()),
        }
    }

    /// Counts in the bucket that `choose` returns. It is asked under the lock under which the increment is counted, so that an
    /// adoption of other schedules knows by which ones that was done.
    fn fold(
        &self,
        collection: &str,
        metric: &str,
        n: i64,
        choose: impl Fn() -> Result<Bucket, BucketError>,
    ) -> Result<(), Refusal> {
        if self.is_forked() {
            return Err(Refusal::Forked);
        }
        let delta = || Ok::<_, Refusal>(Delta { collection, metric, bucket: choose()?, n, increments: 1 });
        let index = self.router.index();
        let mut open = self.router.table(index).lock();
        if open.state != IntakeState::Open {
            return Err(open.state.refusal());
        }
        let counters_max = open.counters_max;
        match open.table.merge_within(delta()?, counters_max) {
            Ok(()) => {
                open.accepted += 1;
                Ok(())
            }
            Err(FoldError::Full) => {
                drop(open);
                self.fold_into_full(index, delta)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The table is full: make room by draining it here and now, unless the lanes are full, too.
    #[cold]
    #[inline(never)]
    fn fold_into_full<'a>(
        &self,
        index: usize,
        delta: impl Fn() -> Result<Delta<'a>, Refusal>,
    ) -> Result<(), Refusal> {
        if self.has_room() {
            self.drain(index);
        } else {
            // A counter that this thread knows may be on its way to its lane, in neither place until it is there.
            drop(self.router.table(index).draining.lock());
        }
        let mut open = self.router.table(index).lock();
        if open.state != IntakeState::Open {
            return Err(open.state.refusal());
        }
        open.counters_max = self.table_counters_max();
        // Other threads may have filled the table again; one counter more than its share does no harm.
        let counters_max = if open.counters_max > 0 { usize::MAX } else { 0 };
        match open.table.merge_within(delta()?, counters_max) {
            Ok(()) => {
                open.accepted += 1;
                return Ok(());
            }
            Err(FoldError::Full) => {}
            Err(error) => return Err(error.into()),
        }
        drop(open);
        // Held so that the schedules stay those by which the bucket is chosen.
        let _moving = self.moves.read();
        self.fold_into_lane(delta()?)
    }

    /// No room for a new counter. One that is pending in its lane already needs none.
    fn fold_into_lane(&self, delta: Delta<'_>) -> Result<(), Refusal> {
        let schedules = self.calendar.schedules();
        let kept = delta.fan_out_kept(schedules.of(delta.collection), self.clock.now());
        let deltas: Vec<_> = kept.collect();
        let mut lane = self.lanes.of(delta.collection).lock();
        // Checked under the lock of the lane: a shutdown takes it after it has closed the intake.
        let state = self.state();
        if state != IntakeState::Open {
            return Err(state.refusal());
        }
        Ok(lane.merge_known(&deltas)?)
    }

    /// Tells whether a new counter is accepted.
    pub(super) fn has_room(&self) -> bool {
        self.lanes.have_room()
    }

    /// Returns the maximum number of counters with a handle.
    pub(super) fn handles_max(&self) -> usize {
        self.limits.handles_max
    }

    pub(super) fn table_counters_max(&self) -> usize {
        if self.has_room() { self.limits.table_counters } else { 0 }
    }

    /// Counts and logs a refused increment.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&self, refusal: &Refusal) {
        let before = self.refused[refusal.index()].fetch_add(1, Ordering::Relaxed);
        // The first of a kind, then every power of two: enough to notice, too little to flood a log.
        if (before + 1).is_power_of_two() {
            tracing::warn!(reason = refusal.reason(), refused = before + 1, error = %refusal, "increment was refused");
        }
        if before == 0 && self.limits.warn_on_stderr {
            warn_on_stderr(format_args!("an increment was refused: {refusal}"));
        }
    }

    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS.iter().zip(&self.refused).map(|(reason, count)| (*reason, count.load(Ordering::Relaxed)))
    }

    /// Refuses every later increment and moves everything accepted to the lanes.
    pub(crate) fn close(&self) {
        self.change_state(IntakeState::Closed);
        self.drain_all();
    }

    fn change_state(&self, to: IntakeState) {
        self.state.lock().change(to);
        self.router.tables().for_each(|collector| collector.lock().state.change(to));
        self.registry.change_state(to);
    }

    pub(super) fn state(&self) -> IntakeState {
        *self.state.lock()
    }
}

impl Upstream for Intake {
    fn drain_all(&self) {
        (0..self.router.max()).for_each(|index| self.drain(index));
    }

    fn refuse_until_room(&self) {
        self.change_state(IntakeState::JournalFull);
    }

    fn accept_again(&self) {
        if self.state() == IntakeState::JournalFull {
            self.change_state(IntakeState::Open);
        }
    }
}
