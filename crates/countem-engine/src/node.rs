//! Everything a node counts with: the plain, shared state behind the handles and the actors.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    thread,
};

use countem_core::{Batch, Bucket, CollectionName, Delta, Deltas, MetricName, Writer};
use countem_journal::Recovered;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::{
    calendar::{Calendar, Class},
    clock::Clock,
    counter::{Counter, Registry},
    lane::{Lane, in_bucket, lane_of},
    recorder::Recorder,
    refusal::{REASONS, Refusal},
    router::{Draining, Intake, Router},
    settings::EngineConfig,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};

/// The counting state of one node. No actor owns a count: an actor that dies takes nothing with it.
#[derive(Debug)]
pub(crate) struct Node {
    router: Router,
    calendar: Arc<Calendar>,
    /// The class of collections without periods of their own; `None` when there are such collections, and the calendar has to
    /// be asked.
    only_class: Option<Arc<Class>>,
    registry: Registry,
    lanes: Box<[Lane]>,
    clock: Clock,
    past_window: SignedDuration,
    future_window: SignedDuration,
    /// Most counters in one collector's table.
    table_counters: usize,
    pending_counters: usize,
    /// Counters in the lanes beyond which no new counter is accepted.
    lane_counters_most: usize,
    /// Counters in the lanes beyond which a flush begins before its time.
    flush_counters: usize,
    lane_counters: AtomicUsize,
    /// Increments that came through handles and have left their cells.
    accepted_by_cells: AtomicU64,
    /// Moves from cells to lanes outside a drain.
    moves_begun: AtomicU64,
    moves_ended: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
    /// What handles that are made from now on begin with.
    intake: Mutex<Intake>,
    recorder: Option<Recorder>,
    /// Asks the ticker for a flush before its time.
    pub(crate) flush_wanted: Notify,
}

impl Node {
    pub(crate) fn new(
        settings: &EngineConfig,
        calendar: Arc<Calendar>,
        clock: Clock,
        writer: &Writer,
        recorder: Option<Recorder>,
    ) -> Self {
        let collectors_max = settings.collectors_most();
        let table_counters =
            settings.flush_counters.min(settings.pending_counters / (2 * collectors_max)).max(1);
        let in_tables = table_counters * collectors_max;
        let lane =
            |index| Lane::new(writer.clone(), index, settings.batch_counters, settings.metrics_per_bucket);
        let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Self {
            router: Router::new(settings.collectors_min, collectors_max, table_counters),
            only_class: calendar.only_class(),
            calendar,
            registry: Registry::default(),
            lanes: (0..settings.lanes.max(1)).map(lane).collect(),
            clock,
            past_window: signed(settings.past_window),
            future_window: signed(settings.future_window),
            table_counters,
            pending_counters: settings.pending_counters,
            lane_counters_most: settings.pending_counters.saturating_sub(in_tables).max(1),
            flush_counters: settings.flush_counters.max(1),
            lane_counters: AtomicUsize::new(0),
            accepted_by_cells: AtomicU64::new(0),
            moves_begun: AtomicU64::new(0),
            moves_ended: AtomicU64::new(0),
            refused: Default::default(),
            intake: Mutex::new(Intake::Open),
            recorder,
            flush_wanted: Notify::new(),
        }
    }

    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    pub(crate) fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Makes the time now the one at which increments are counted, and returns how long that holds.
    pub(crate) fn turn_slots(&self) -> SignedDuration {
        self.clock.turn(&self.calendar)
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    pub(crate) fn lane(&self, collection: &str) -> &Lane {
        &self.lanes[self.lane_index(collection)]
    }

    fn lane_index(&self, collection: &str) -> usize {
        let lanes = u16::try_from(self.lanes.len()).expect("the settings number lanes with 16 bits");
        lane_of(collection, lanes).into()
    }

    pub(crate) fn counter(self: &Arc<Self>, collection: CollectionName, metric: MetricName) -> Counter {
        self.registry.counter(self, collection, metric)
    }

    /// Counts now.
    #[inline]
    pub(crate) fn increment(&self, collection: &str, metric: &str, n: i64) -> Result<(), Refusal> {
        if self.count_known(collection, metric, n) { Ok(()) } else { self.count(collection, metric, n) }
    }

    /// Counts now in the usual case: intake is open, the counter is known, and nobody else is at the table. Returns false in
    /// any other case; nothing was counted then.
    #[inline(always)]
    pub(crate) fn count_known(&self, collection: &str, metric: &str, n: i64) -> bool {
        let slot = self.slot(collection);
        // Hashed before the lock is taken: the processor does it while the lock before is still being given back.
        let hash = self.router.hash(collection, metric, slot);
        let Some(mut open) = self.router.table(self.router.place()).try_lock() else { return false };
        let is_counted =
            open.intake == Intake::Open && open.table.add_known(hash, collection, metric, slot, n);
        open.accepted += u64::from(is_counted);
        is_counted
    }

    /// Counts now in any case.
    #[cold]
    #[inline(never)]
    pub(crate) fn count(&self, collection: &str, metric: &str, n: i64) -> Result<(), Refusal> {
        self.fold(Delta { collection, metric, bucket: self.slot(collection), n, increments: 1 })
    }

    #[inline(always)]
    fn slot(&self, collection: &str) -> Bucket {
        match &self.only_class {
            Some(class) => class.slot(),
            None => self.calendar.class(collection).slot(),
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
        let age = self.clock.now().duration_since(timestamp);
        if age > self.past_window || -age > self.future_window {
            return Err(Refusal::Window { timestamp });
        }
        let slot = self.calendar.schedule(collection).bucket_at(timestamp)?;
        self.fold(Delta { collection, metric, bucket: slot, n, increments: 1 })
    }

    fn fold(&self, delta: Delta<'_>) -> Result<(), Refusal> {
        let hash = self.router.hash(delta.collection, delta.metric, delta.bucket);
        let place = self.router.place();
        let mut open = self.router.table(place).lock();
        if open.intake != Intake::Open {
            return Err(open.intake.refusal());
        }
        let most = open.most;
        match open.table.merge_hashed(hash, delta, most) {
            Ok(()) => {
                open.accepted += 1;
                Ok(())
            }
            Err(countem_core::FoldError::Full) => {
                drop(open);
                self.fold_into_full(place, delta)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The table is full: make room by draining it here and now, unless the lanes are full, too.
    #[cold]
    #[inline(never)]
    fn fold_into_full(&self, place: usize, delta: Delta<'_>) -> Result<(), Refusal> {
        if self.has_room() {
            self.drain(place);
        }
        let mut open = self.router.table(place).lock();
        if open.intake != Intake::Open {
            return Err(open.intake.refusal());
        }
        // Other threads may have filled the table again; one counter more than its share does no harm.
        open.most = if self.has_room() { self.table_counters } else { 0 };
        let most = if open.most > 0 { usize::MAX } else { 0 };
        match open.table.merge_within(delta, most) {
            Ok(()) => {
                open.accepted += 1;
                return Ok(());
            }
            Err(countem_core::FoldError::Full) => {}
            Err(error) => return Err(error.into()),
        }
        drop(open);
        self.fold_into_lane(delta)
    }

    /// No room for a new counter. One that is pending in its lane already needs none.
    fn fold_into_lane(&self, delta: Delta<'_>) -> Result<(), Refusal> {
        let buckets = self.calendar.class(delta.collection).schedule().fan_out(delta.bucket);
        let deltas: Vec<_> =
            buckets.enumerate().map(|(at, bucket)| in_bucket(delta, bucket, at == 0)).collect();
        let mut lane = self.lane(delta.collection).lock();
        // Asked under the lock of the lane: a shutdown looks at the lane after it has closed the intake.
        let intake = self.intake_now();
        if intake != Intake::Open {
            return Err(intake.refusal());
        }
        Ok(lane.merge_known(&deltas)?)
    }

    /// Returns how many counters may be pending.
    pub(crate) fn pending_counters(&self) -> usize {
        self.pending_counters
    }

    /// Tells whether a new counter is accepted.
    pub(crate) fn has_room(&self) -> bool {
        self.lane_counters.load(Ordering::Relaxed) < self.lane_counters_most
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
    }

    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        REASONS.iter().zip(&self.refused).map(|(reason, count)| (*reason, count.load(Ordering::Relaxed)))
    }

    /// Moves everything that collector `place` holds to the lanes.
    pub(crate) fn drain(&self, place: usize) {
        let collector = self.router.table(place);
        // Held to the end: whoever drains after us finds what we took in the lanes, never in between.
        let mut draining = collector.draining.lock();
        self.merge_drained(&mut draining);
        {
            let mut open = collector.lock();
            open.table.swap(&mut draining.table);
            open.most = if self.has_room() { self.table_counters } else { 0 };
        }
        let moved = self.registry.drain(place, &mut draining.table, self);
        self.accepted_by_cells.fetch_add(moved, Ordering::Relaxed);
        self.merge_drained(&mut draining);
    }

    /// Moves everything that any collector holds to the lanes.
    pub(crate) fn drain_all(&self) {
        (0..self.router.max()).for_each(|place| self.drain(place));
    }

    /// Merges a drained table into the lanes, going on where an interrupted attempt ended.
    fn merge_drained(&self, draining: &mut Draining) {
        let Draining { table, merged } = draining;
        let mut fan_out = FanOut::default();
        let mut lane = None;
        for delta in table.iter().skip(*merged) {
            let index = self.lane_index(delta.collection);
            let state = match &mut lane {
                Some((at, state)) if *at == index => state,
                other => {
                    // The lock of the lane before is given back first: two are never held at once.
                    *other = None;
                    &mut other.insert((index, self.lanes[index].lock())).1
                }
            };
            for (at, bucket) in
                fan_out.of(self.calendar.class(delta.collection), delta.bucket).iter().enumerate()
            {
                state.merge(in_bucket(delta, *bucket, at == 0));
            }
            *merged += 1;
        }
        drop(lane);
        if *merged > 0 {
            table.clear();
            *merged = 0;
            self.measure();
        }
    }

    /// Moves what a handle counted in a slot that has ended to its lane.
    ///
    /// The caller empties the cell before it gives back its lock, and calls this between [`begin_move`](Self::begin_move) and
    /// [`end_move`](Self::end_move) unless it drains.
    pub(crate) fn merge_from_cell(&self, delta: &Delta<'_>) {
        let class = self.calendar.class(delta.collection);
        let mut state = self.lane(delta.collection).lock();
        for (at, bucket) in class.schedule().fan_out(delta.bucket).enumerate() {
            state.merge(in_bucket(*delta, bucket, at == 0));
        }
        drop(state);
        self.accepted_by_cells.fetch_add(delta.increments, Ordering::Relaxed);
    }

    /// Looks how many counters the lanes hold and asks for a flush when they are many.
    pub(crate) fn measure(&self) {
        let counters: usize = self.lanes.iter().map(|lane| lane.lock().counters()).sum();
        self.lane_counters.store(counters, Ordering::Relaxed);
        if counters >= self.flush_counters {
            self.flush_wanted.notify_one();
        }
    }

    /// Tells whether enough counters are pending for a flush before its time.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lane_counters.load(Ordering::Relaxed) >= self.flush_counters
    }

    /// Refuses every later increment and moves everything accepted to the lanes.
    pub(crate) fn close(&self) {
        self.change_intake(Intake::Closed);
        self.drain_all();
    }

    /// Refuses increments until the journal has room.
    pub(crate) fn refuse_all(&self) {
        self.change_intake(Intake::JournalFull);
    }

    /// Accepts increments again, unless the node is closed.
    pub(crate) fn reopen(&self) {
        if self.intake_now() == Intake::JournalFull {
            self.change_intake(Intake::Open);
        }
    }

    fn change_intake(&self, to: Intake) {
        self.intake.lock().change(to);
        self.router.tables().for_each(|collector| collector.lock().intake.change(to));
        self.registry.change_intake(to);
    }

    /// Whether increments are accepted.
    pub(crate) fn intake_now(&self) -> Intake {
        *self.intake.lock()
    }

    /// Continues with what an earlier process left in the journal, and returns how many increments that are.
    pub(crate) fn restore(&self, recovered: Recovered) -> u64 {
        let increments = recovered.frozen_totals().increments + recovered.pending_totals().increments;
        let mut frozen: Vec<Vec<Batch>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for batch in recovered.frozen {
            frozen[usize::from(batch.id().lane)].push(batch);
        }
        let mut pending: Vec<Deltas> = self.lanes.iter().map(|_| Deltas::default()).collect();
        for (lane, deltas) in recovered.pending {
            pending[usize::from(lane)] = deltas;
        }
        for ((lane, frozen), pending) in self.lanes.iter().zip(frozen).zip(pending) {
            lane.lock().restore(frozen, &pending);
        }
        self.measure();
        increments
    }

    /// Returns what makes increments durable, at level `journal`.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Notes that increments are about to move from a cell to a lane.
    pub(crate) fn begin_move(&self) {
        self.moves_begun.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that they have moved.
    pub(crate) fn end_move(&self) {
        self.moves_ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Looks at the lanes while nothing moves into them from where it was counted: what is returned is of one moment, and
    /// no increment is seen twice or not at all.
    pub(crate) fn look<T>(&self, mut at_lanes: impl FnMut(&[Lane]) -> T) -> (Counted, T) {
        let mut looks = 0;
        loop {
            // Held to the end of the look: nobody drains meanwhile.
            let draining: Vec<_> = self.router.tables().map(|collector| collector.draining.lock()).collect();
            let begun = self.moves_begun.load(Ordering::SeqCst);
            let is_still = self.moves_ended.load(Ordering::SeqCst) == begun;
            let counted = self.counted(&draining);
            let lanes = at_lanes(&self.lanes);
            looks += 1;
            // Each cell moves once per slot, so this ends soon; a bound is for a clock that runs wild.
            if (is_still && self.moves_begun.load(Ordering::SeqCst) == begun) || looks == MOST_LOOKS {
                return (counted, lanes);
            }
            drop(draining);
            thread::yield_now();
        }
    }

    fn counted(&self, draining: &[MutexGuard<'_, Draining>]) -> Counted {
        let mut counted = Counted::default();
        for (collector, draining) in self.router.tables().zip(draining) {
            let rest = draining.table.iter().skip(draining.merged).map(|delta| delta.increments);
            counted.unmerged += rest.sum::<u64>();
            let open = collector.lock();
            counted.accepted += open.accepted;
            counted.unmerged += open.table.deltas().totals().increments;
        }
        let in_cells = self.registry.pending();
        counted.accepted += self.accepted_by_cells.load(Ordering::Relaxed) + in_cells;
        counted.unmerged += in_cells;
        counted
    }
}

/// What was counted in tables and through handles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Increments accepted so far.
    pub(crate) accepted: u64,
    /// Those of them that have not reached a lane.
    pub(crate) unmerged: u64,
}

/// See [`Node::look`].
const MOST_LOOKS: u32 = 10_000;

/// Remembers the stored buckets of the slot seen last: deltas of one table are nearly always of the same slot.
#[derive(Default)]
struct FanOut {
    last: Option<(*const Class, Bucket)>,
    buckets: Vec<Bucket>,
}

impl FanOut {
    fn of(&mut self, class: &Arc<Class>, slot: Bucket) -> &[Bucket] {
        let wanted = (Arc::as_ptr(class), slot);
        if self.last != Some(wanted) {
            self.buckets.clear();
            self.buckets.extend(class.schedule().fan_out(slot));
            self.last = Some(wanted);
        }
        &self.buckets
    }
}
