//! The resizable set of collectors, and the way from a thread to its collector.

use std::cell::Cell;

use countem_core::{Bucket, CounterHasher};
use crossbeam_utils::CachePadded;

use super::collector::CollectorTable;
use crate::sync::{AtomicU32, Ordering, thread_local};

/// All tables an engine may ever use. Threads spread over the first `active` of them; the others are drained like these, so
/// an increment that meets a table while its collector retires is never stranded.
#[derive(Debug)]
pub(crate) struct Router {
    tables: Box<[CachePadded<CollectorTable>]>,
    active: CachePadded<AtomicU32>,
    /// The hasher of all tables.
    hasher: CounterHasher,
}

/// Number of times a thread finds its table locked before it moves to another collector.
const MAX_CONTENDED: u32 = 64;

/// Numbers threads; which one gets which number is of no consequence.
static ORDINALS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

thread_local! {
    static ASSIGNED: Cell<Assignment> =
        const { Cell::new(Assignment { ordinal: u32::MAX, active: 0, index: 0, contended: 0 }) };
}

/// The number of a thread, and its collector index among `active` ones, determined once.
#[derive(Clone, Copy)]
struct Assignment {
    ordinal: u32,
    active: u32,
    index: u32,
    contended: u32,
}

impl Router {
    /// Returns a router of at most `max` collectors, `active` of them in use.
    pub(crate) fn new(active: usize, max: usize, table_counters: usize) -> Self {
        let max = max.max(1);
        let hasher = CounterHasher::default();
        let table = || CachePadded::new(CollectorTable::new(&hasher, table_counters));
        let active = u32::try_from(active.clamp(1, max)).unwrap_or(u32::MAX);
        Self {
            tables: std::iter::repeat_with(table).take(max).collect(),
            active: CachePadded::new(AtomicU32::new(active)),
            hasher,
        }
    }

    /// Returns the collector index of this thread.
    #[inline]
    pub(super) fn index(&self) -> usize {
        let active = self.active.load(Ordering::Relaxed);
        let assigned = ASSIGNED.with(Cell::get);
        if assigned.active == active { assigned.index as usize } else { assign_thread(active) }
    }

    #[inline]
    pub(super) fn table(&self, index: usize) -> &CollectorTable {
        &self.tables[index]
    }

    /// Hashes a counter for any of the tables.
    #[inline(always)]
    pub(super) fn hash(&self, collection: &str, metric: &str, bucket: Bucket) -> u64 {
        self.hasher.hash(collection, metric, bucket)
    }

    /// Returns all tables, used and retired.
    pub(super) fn tables(&self) -> impl Iterator<Item = &CollectorTable> {
        self.tables.iter().map(|table| &**table)
    }

    /// Returns the number of collectors that threads are spread over.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed) as usize
    }

    /// Returns the maximum number of collectors.
    pub(crate) fn max(&self) -> usize {
        self.tables.len()
    }

    /// Spreads threads over `collectors` tables, within the limits, and returns how many that are.
    pub(crate) fn resize(&self, collectors: usize) -> usize {
        let collectors = collectors.clamp(1, self.max());
        self.active.store(u32::try_from(collectors).unwrap_or(u32::MAX), Ordering::Relaxed);
        collectors
    }

    /// Returns how often a thread found a table locked since the last call.
    pub(crate) fn take_contention(&self) -> u64 {
        self.tables().map(CollectorTable::take_contention).sum()
    }
}

#[cold]
fn assign_thread(active: u32) -> usize {
    let mut assigned = ASSIGNED.with(Cell::get);
    if assigned.ordinal == u32::MAX {
        assigned.ordinal = next_ordinal();
    }
    assigned.active = active;
    assigned.index = assigned.ordinal % active;
    ASSIGNED.with(|cell| cell.set(assigned));
    assigned.index as usize
}

/// Gives a thread that keeps meeting another one at its table a new number.
#[cold]
pub(super) fn reassign_thread() {
    let mut assigned = ASSIGNED.with(Cell::get);
    assigned.contended += 1;
    if assigned.contended >= MAX_CONTENDED {
        assigned = Assignment { ordinal: next_ordinal(), active: 0, index: 0, contended: 0 };
    }
    ASSIGNED.with(|cell| cell.set(assigned));
}

fn next_ordinal() -> u32 {
    ORDINALS.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
