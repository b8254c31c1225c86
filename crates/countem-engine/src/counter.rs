//! Pre-resolved handles of single counters.

use std::{collections::HashMap, fmt, sync::Arc};

use countem_core::{Bucket, CollectionName, Delta, MetricName, Table};
use crossbeam_utils::CachePadded;

use crate::{
    calendar::Class,
    node::Node,
    refusal::Refusal,
    router::Intake,
    sync::{Mutex, SpinMutex},
};

/// A handle of one counter: an increment without any look-up, at about the cost of one atomic addition.
///
/// Cheap to clone. Handles of the same counter share their cells, so making one twice costs nothing but the look-up.
#[derive(Clone)]
pub struct Counter {
    node: Arc<Node>,
    cells: Arc<Cells>,
}

/// One cell per collector, so that threads that use the same handle do not meet.
pub(crate) struct Cells {
    collection: CollectionName,
    metric: MetricName,
    class: Arc<Class>,
    cells: Box<[CachePadded<SpinMutex<Cell>>]>,
}

/// What was counted through one handle and collector in one slot.
#[derive(Debug, Clone, Copy)]
struct Cell {
    slot: Bucket,
    n: i64,
    increments: u64,
    intake: Intake,
}

impl Counter {
    /// Adds `n`. Never blocks, never fails: what is refused is counted in the stats and logged.
    #[inline(always)]
    pub fn increment(&self, n: i64) {
        if !self.add_to_cell(n) {
            self.increment_slowly(n);
        }
    }

    /// Adds `n`, or says why not.
    ///
    /// # Errors
    /// [`Refusal`]: the increment was not counted.
    #[inline]
    pub fn try_increment(&self, n: i64) -> Result<(), Refusal> {
        self.add(n).inspect_err(|refusal| self.node.refuse(refusal))
    }

    /// Adds `n` in the usual case: intake is open, the slot goes on, and nobody else is at the cell. Returns false in any other
    /// case; nothing was added then.
    #[inline(always)]
    fn add_to_cell(&self, n: i64) -> bool {
        let Some(mut cell) = self.cells.cells[self.node.router().place()].try_lock() else { return false };
        if cell.slot == self.cells.class.slot()
            && cell.intake == Intake::Open
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
            self.node.refuse(&refusal);
        }
    }

    fn add(&self, n: i64) -> Result<(), Refusal> {
        let place = self.node.router().place();
        let cell = &self.cells.cells[place];
        let mut cell = match cell.try_lock() {
            Some(cell) => cell,
            None => {
                // Threads that only use handles meet as well, and the router has to know.
                self.node.router().note_contention(place);
                cell.lock()
            }
        };
        if cell.slot == self.cells.class.slot()
            && cell.intake == Intake::Open
            && let Some(sum) = cell.n.checked_add(n)
        {
            cell.n = sum;
            cell.increments += 1;
            return Ok(());
        }
        if cell.intake == Intake::NoRoom {
            drop(cell);
            return self.add_without_room(place, n);
        }
        self.turn(&mut cell, n)
    }

    /// The handle was made when there was no room for a new counter: counts by name, and by handle once there is room.
    #[cold]
    fn add_without_room(&self, place: usize, n: i64) -> Result<(), Refusal> {
        if self.node.has_room() {
            let mut cell = self.cells.cells[place].lock();
            if cell.intake == Intake::NoRoom {
                cell.intake = self.node.intake_now();
            }
        }
        self.node.increment(self.cells.collection.as_str(), self.cells.metric.as_str(), n)
    }

    /// Moves what the cell holds to the lanes and begins a new slot with `n`.
    #[cold]
    #[inline(never)]
    fn turn(&self, cell: &mut Cell, n: i64) -> Result<(), Refusal> {
        if cell.intake != Intake::Open {
            return Err(cell.intake.refusal());
        }
        let fresh = Cell { slot: self.cells.class.slot(), n, increments: 1, intake: Intake::Open };
        if cell.increments > 0 {
            self.node.begin_move();
            // The lock of the cell is held meanwhile: a reader that drains the cell waits until the delta has arrived.
            self.node.merge_from_cell(&self.cells.delta(cell));
            *cell = fresh;
            self.node.end_move();
        } else {
            *cell = fresh;
        }
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
            bucket: cell.slot,
            n: cell.n,
            increments: cell.increments,
        }
    }
}

/// Finds the cells of every counter that has a handle.
#[derive(Default)]
pub(crate) struct Registry {
    known: Mutex<HashMap<(CollectionName, MetricName), Arc<Cells>>>,
}

impl Registry {
    /// Returns a handle of the counter, the cells shared with every other handle of it.
    pub(crate) fn counter(
        &self,
        node: &Arc<Node>,
        collection: CollectionName,
        metric: MetricName,
    ) -> Counter {
        let mut known = self.known.lock();
        let has_room = known.len() < node.pending_counters() && node.has_room();
        let intake = if has_room { node.intake_now() } else { Intake::NoRoom };
        let cells = known.entry((collection.clone(), metric.clone())).or_insert_with(|| {
            let class = Arc::clone(node.calendar().class(collection.as_str()));
            let cell = Cell { slot: class.slot(), n: 0, increments: 0, intake };
            let cells = (0..node.router().max()).map(|_| CachePadded::new(SpinMutex::new(cell))).collect();
            Arc::new(Cells { collection, metric, class, cells })
        });
        Counter { node: Arc::clone(node), cells: Arc::clone(cells) }
    }

    /// Moves what the cells at `place` hold into `table`, and forgets counters that have no handle any more. Returns the
    /// number of increments moved.
    pub(crate) fn drain(&self, place: usize, table: &mut Table, node: &Node) -> u64 {
        let cells: Vec<_> = self.known.lock().values().cloned().collect();
        let mut moved = 0;
        for cells in &cells {
            let mut cell = cells.cells[place].lock();
            if cell.increments == 0 {
                continue;
            }
            match table.merge(cells.delta(&cell)) {
                Ok(()) => moved += cell.increments,
                // The sum of both would leave `i64`: the lane decides what becomes of this part.
                Err(_) => node.merge_from_cell(&cells.delta(&cell)),
            }
            (cell.n, cell.increments) = (0, 0);
        }
        drop(cells);
        // Under the lock no new handle can be made; the registry's own reference is then the only one for sure.
        self.known.lock().retain(|_, cells| {
            Arc::strong_count(cells) > 1 || cells.cells.iter().any(|cell| cell.lock().increments > 0)
        });
        moved
    }

    /// Changes whether increments are accepted.
    pub(crate) fn change_intake(&self, to: Intake) {
        for cells in self.known.lock().values() {
            cells.cells.iter().for_each(|cell| cell.lock().intake.change(to));
        }
    }

    /// Returns the number of increments that the cells hold.
    pub(crate) fn pending(&self) -> u64 {
        let known = self.known.lock();
        known.values().flat_map(|cells| cells.cells.iter()).map(|cell| cell.lock().increments).sum()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} counters)", self.known.lock().len())
    }
}
