//! Pre-resolved handles of single counters.

use std::{collections::HashMap, fmt, sync::Arc};

use countem_core::{Bucket, CollectionName, Delta, MetricName, Table};
use crossbeam_utils::CachePadded;

use super::{Intake, Refusal, calendar::BucketCache, collector::IntakeState};
use crate::sync::{AtomicBool, Mutex, Ordering, SpinMutex};

/// A handle of one counter: an increment without any look-up, at about the cost of one atomic addition.
///
/// Cheap to clone. Handles of the same counter share their cells, so making one twice costs nothing but the look-up.
#[derive(Clone)]
pub struct Counter {
    intake: Arc<Intake>,
    cells: Arc<Cells>,
}

/// One cell per collector, so that threads that use the same handle do not meet.
pub(super) struct Cells {
    collection: CollectionName,
    metric: MetricName,
    buckets: Arc<BucketCache>,
    /// Counts in its cells, and not by name alone.
    has_room: AtomicBool,
    cells: Box<[CachePadded<SpinMutex<Cell>>]>,
}

/// The sum counted through one handle and collector in one bucket.
#[derive(Debug, Clone, Copy)]
struct Cell {
    bucket: Bucket,
    n: i64,
    increments: u64,
    state: IntakeState,
}

impl Counter {
    /// Adds `n`. Never blocks, never fails: a refused increment is counted in the stats and logged.
    ///
    /// In a forked child this may count into memory that is never stored; see [`try_increment`](Self::try_increment).
    #[inline(always)]
    pub fn increment(&self, n: i64) {
        if !self.add_to_cell(n) {
            self.increment_slowly(n);
        }
    }

    /// Adds `n`, or returns the reason why not.
    ///
    /// # Errors
    /// [`Refusal`]: the increment was not counted.
    #[inline]
    pub fn try_increment(&self, n: i64) -> Result<(), Refusal> {
        self.add(n).inspect_err(|refusal| self.intake.refuse(refusal))
    }

    /// Adds `n` in the usual case: intake is open, the bucket is current, and no other thread is at the cell. Returns false in any
    /// other case; nothing was added then.
    #[inline(always)]
    fn add_to_cell(&self, n: i64) -> bool {
        let Some(mut cell) = self.cells.cells[self.intake.router().index()].try_lock() else { return false };
        if cell.bucket == self.cells.buckets.current()
            && cell.state == IntakeState::Open
            && let Some(sum) = cell.n.checked_add(n)
        {
            cell.n = sum;
            cell.increments += 1;
            return true;
        }
        false
    }

    #[cold]
    #[inline(never)]
    fn increment_slowly(&self, n: i64) {
        if let Err(refusal) = self.add(n) {
            self.intake.refuse(&refusal);
        }
    }

    fn add(&self, n: i64) -> Result<(), Refusal> {
        if self.intake.is_forked() {
            return Err(Refusal::Forked);
        }
        let index = self.intake.router().index();
        let cell = &self.cells.cells[index];
        let mut cell = match cell.try_lock() {
            Some(cell) => cell,
            None => {
                // Threads that only use handles meet as well, and the router has to know.
                self.intake.router().table(index).note_contention();
                cell.lock()
            }
        };
        if cell.bucket == self.cells.buckets.current()
            && cell.state == IntakeState::Open
            && let Some(sum) = cell.n.checked_add(n)
        {
            cell.n = sum;
            cell.increments += 1;
            return Ok(());
        }
        if cell.state == IntakeState::NoRoom {
            drop(cell);
            return self.add_without_room(index, n);
        }
        drop(cell);
        self.roll_over(index, n)
    }

    /// The handle was made when there was no room for a new counter: counts by name, and by handle once there is room.
    #[cold]
    fn add_without_room(&self, index: usize, n: i64) -> Result<(), Refusal> {
        if self.intake.registry.gives_room(&self.intake, &self.cells) {
            let mut cell = self.cells.cells[index].lock();
            if cell.state == IntakeState::NoRoom {
                cell.state = self.intake.state();
            }
        }
        self.intake.increment(self.cells.collection.as_str(), self.cells.metric.as_str(), n)
    }

    /// Moves the sum of the cell to the lanes and begins another one with `n`.
    #[cold]
    #[inline(never)]
    fn roll_over(&self, index: usize, n: i64) -> Result<(), Refusal> {
        // Taken before the lock of the cell, as everywhere.
        let _moving = self.intake.moves.read();
        let mut cell = self.cells.cells[index].lock();
        if cell.state != IntakeState::Open {
            return Err(cell.state.refusal());
        }
        if cell.increments > 0 {
            // The lock of the cell is held meanwhile: a drain of the cell waits until the delta has arrived.
            self.intake.merge_from_cell(&self.cells.delta(&cell), &self.intake.calendar().schedules());
        }
        *cell = Cell { bucket: self.cells.buckets.current(), n, increments: 1, state: IntakeState::Open };
        Ok(())
    }

    /// Returns the collection.
    pub fn collection(&self) -> &CollectionName {
        &self.cells.collection
    }

    /// Returns the metric.
    pub fn metric(&self) -> &MetricName {
        &self.cells.metric
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counter({:?}, {:?})", self.cells.collection, self.cells.metric)
    }
}

impl Cells {
    fn delta(&self, cell: &Cell) -> Delta<'_> {
        Delta {
            collection: self.collection.as_str(),
            metric: self.metric.as_str(),
            bucket: cell.bucket,
            n: cell.n,
            increments: cell.increments,
        }
    }
}

/// The cells of every counter that has a handle.
#[derive(Default)]
pub(super) struct Registry {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    counters: HashMap<(CollectionName, MetricName), Arc<Cells>>,
    /// Number of counters that have room in their cells.
    roomy: usize,
}

impl Registry {
    /// Returns a handle of the counter, the cells shared with every other handle of it.
    pub(super) fn counter(
        &self,
        intake: &Arc<Intake>,
        collection: CollectionName,
        metric: MetricName,
    ) -> Counter {
        let new = |collection: CollectionName, metric, state| {
            let buckets = Arc::clone(intake.calendar().buckets(collection.as_str()));
            let cell = Cell { bucket: buckets.current(), n: 0, increments: 0, state };
            let cells = (0..intake.router().max()).map(|_| CachePadded::new(SpinMutex::new(cell))).collect();
            let has_room = AtomicBool::new(state != IntakeState::NoRoom);
            Arc::new(Cells { collection, metric, buckets, has_room, cells })
        };
        if intake.is_forked() {
            // The lock may be held by a thread of the parent.
            let cells = new(collection, metric, IntakeState::Forked);
            return Counter { intake: Arc::clone(intake), cells };
        }
        let mut known = self.known.lock();
        let Known { counters, roomy } = &mut *known;
        let has_room = *roomy < intake.handles_max() && intake.has_room();
        let state = if has_room { intake.state() } else { IntakeState::NoRoom };
        let cells = counters.entry((collection.clone(), metric.clone())).or_insert_with(|| {
            *roomy += usize::from(has_room);
            new(collection, metric, state)
        });
        Counter { intake: Arc::clone(intake), cells: Arc::clone(cells) }
    }

    /// Gives a counter that was made while there was no room its cells, if there is room now. Returns whether it has them.
    fn gives_room(&self, intake: &Intake, cells: &Cells) -> bool {
        let mut known = self.known.lock();
        if cells.has_room.load(Ordering::Relaxed) {
            return true;
        }
        let has_room = known.roomy < intake.handles_max() && intake.has_room();
        known.roomy += usize::from(has_room);
        cells.has_room.store(has_room, Ordering::Relaxed);
        has_room
    }

    /// Moves the sums of collector `index` into `table`, and forgets counters without a handle. Returns the number of increments
    /// moved. A sum that would leave `i64` there goes to `refused` instead.
    pub(super) fn drain(&self, index: usize, table: &mut Table, refused: impl Fn(&Delta<'_>)) -> u64 {
        let cells: Vec<_> = self.known.lock().counters.values().cloned().collect();
        let mut moved = 0;
        for cells in &cells {
            let mut cell = cells.cells[index].lock();
            if cell.increments == 0 {
                continue;
            }
            match table.merge(cells.delta(&cell)) {
                Ok(()) => moved += cell.increments,
                Err(_) => refused(&cells.delta(&cell)),
            }
            (cell.n, cell.increments) = (0, 0);
        }
        drop(cells);
        // Under the lock no new handle can be made; the registry's own reference is then the only one for sure.
        let mut known = self.known.lock();
        let Known { counters, roomy } = &mut *known;
        counters.retain(|_, cells| {
            let is_used =
                Arc::strong_count(cells) > 1 || cells.cells.iter().any(|cell| cell.lock().increments > 0);
            *roomy -= usize::from(!is_used && cells.has_room.load(Ordering::Relaxed));
            is_used
        });
        moved
    }

    /// Calls `observe` with the sum of every cell that holds increments of a collection that `is_wanted`.
    pub(super) fn observe(&self, is_wanted: impl Fn(&str) -> bool, mut observe: impl FnMut(Delta<'_>)) {
        for cells in self.known.lock().counters.values().filter(|cells| is_wanted(cells.collection.as_str()))
        {
            for cell in &cells.cells {
                let cell = *cell.lock();
                if cell.increments > 0 {
                    observe(cells.delta(&cell));
                }
            }
        }
    }

    /// Changes whether increments are accepted.
    pub(super) fn change_state(&self, to: IntakeState) {
        for cells in self.known.lock().counters.values() {
            cells.cells.iter().for_each(|cell| cell.lock().state.change(to));
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} counters)", self.known.lock().counters.len())
    }
}
