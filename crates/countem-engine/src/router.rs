//! The resizable set of collectors, and how a thread finds one.

use std::cell::Cell;

use countem_core::{Bucket, CounterHasher, Table};
use crossbeam_utils::CachePadded;

use crate::refusal::Refusal;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, SpinMutex, SpinMutexGuard, thread_local};

/// All tables a node may ever use. Threads spread over the first `active` of them; the others are drained like these, so
/// an increment that meets a table while it retires is never stranded.
#[derive(Debug)]
pub(crate) struct Router {
    tables: Box<[CachePadded<CollectorTable>]>,
    active: CachePadded<AtomicU32>,
    /// The hasher of all tables.
    hasher: CounterHasher,
}

/// The in-memory aggregation table of one collector.
///
/// The lock is a spin lock that yields: it is held for some ten nanoseconds, and giving it back is a plain store where a
/// mutex needs a second locked instruction (measured: 12 ns against 16 ns for a whole increment).
#[derive(Debug)]
pub(crate) struct CollectorTable {
    open: SpinMutex<OpenTable>,
    /// How often a thread found the table locked by another one.
    contended: AtomicU64,
    /// Belongs to whoever drains this collector, one at a time.
    pub(crate) draining: Mutex<Draining>,
}

/// What is behind the lock.
#[derive(Debug)]
pub(crate) struct OpenTable {
    pub(crate) table: Table,
    /// Most counters before the table has to be drained; 0 while the lanes have no room.
    pub(crate) most: usize,
    /// Increments folded so far.
    pub(crate) accepted: u64,
    pub(crate) intake: Intake,
}

/// Whether increments are accepted. Kept behind the same lock as what they are folded into, so that the answer is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    Open,
    /// Until there is room for a new counter; only for a handle that was made when there was none.
    NoRoom,
    /// Until the journal has room again.
    JournalFull,
    /// For good.
    Closed,
}

impl Intake {
    /// The refusal of an increment that came while intake was not open.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::JournalFull => Refusal::JournalFull,
            Self::NoRoom => Refusal::Full,
            _ => Refusal::Closed,
        }
    }

    /// Changes to `to`, unless intake is closed for good.
    pub(crate) fn change(&mut self, to: Self) {
        if *self != Self::Closed {
            *self = to;
        }
    }
}

/// A table that was taken out and is being merged into the lanes. It outlives a panic in the middle: the next drain goes
/// on behind the last merged delta.
#[derive(Debug)]
pub(crate) struct Draining {
    pub(crate) table: Table,
    pub(crate) merged: usize,
}

/// How many times a thread finds its table locked before it looks for another place.
const PATIENCE: u32 = 64;

/// Numbers threads; which one gets which number is of no consequence.
static ORDINALS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

thread_local! {
    /// The thread's number, and its place among `of` tables, worked out once.
    static PLACE: Cell<Place> = const { Cell::new(Place { ordinal: u32::MAX, of: 0, at: 0, contended: 0 }) };
}

#[derive(Clone, Copy)]
struct Place {
    ordinal: u32,
    of: u32,
    at: u32,
    contended: u32,
}

impl Router {
    /// Returns a router of at most `max` collectors, `active` of them in use.
    pub(crate) fn new(active: usize, max: usize, table_counters: usize) -> Self {
        let max = max.max(1);
        let hasher = CounterHasher::default();
        let table = || {
            let open = OpenTable {
                table: Table::with_hasher(hasher.clone()),
                most: table_counters,
                accepted: 0,
                intake: Intake::Open,
            };
            CachePadded::new(CollectorTable {
                open: SpinMutex::new(open),
                contended: AtomicU64::new(0),
                draining: Mutex::new(Draining { table: Table::with_hasher(hasher.clone()), merged: 0 }),
            })
        };
        let active = u32::try_from(active.clamp(1, max)).unwrap_or(u32::MAX);
        Self {
            tables: std::iter::repeat_with(table).take(max).collect(),
            active: CachePadded::new(AtomicU32::new(active)),
            hasher,
        }
    }

    /// Returns the place of this thread: an index into the tables.
    #[inline]
    pub(crate) fn place(&self) -> usize {
        let active = self.active.load(Ordering::Relaxed);
        let place = PLACE.with(Cell::get);
        if place.of == active { place.at as usize } else { settle(active) }
    }

    #[inline]
    pub(crate) fn table(&self, at: usize) -> &CollectorTable {
        &self.tables[at]
    }

    /// Hashes a counter for any of the tables.
    #[inline(always)]
    pub(crate) fn hash(&self, collection: &str, metric: &str, bucket: Bucket) -> u64 {
        self.hasher.hash(collection, metric, bucket)
    }

    /// Notes that a thread found what belongs to collector `at` locked by another one.
    #[cold]
    pub(crate) fn note_contention(&self, at: usize) {
        self.tables[at].contended.fetch_add(1, Ordering::Relaxed);
        yield_place();
    }

    /// Returns all tables, used and retired.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &CollectorTable> {
        self.tables.iter().map(|table| &**table)
    }

    /// Returns the number of collectors that threads are spread over.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed) as usize
    }

    /// Returns how many collectors there can be.
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
        self.tables().map(|table| table.contended.swap(0, Ordering::Relaxed)).sum()
    }
}

#[cold]
fn settle(active: u32) -> usize {
    let mut place = PLACE.with(Cell::get);
    if place.ordinal == u32::MAX {
        place.ordinal = ORDINALS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    place.of = active;
    place.at = place.ordinal % active;
    PLACE.with(|cell| cell.set(place));
    place.at as usize
}

/// Gives a thread that keeps meeting another one at its table a new number.
#[cold]
fn yield_place() {
    let mut place = PLACE.with(Cell::get);
    place.contended += 1;
    if place.contended >= PATIENCE {
        place = Place {
            ordinal: ORDINALS.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            of: 0,
            at: 0,
            contended: 0,
        };
    }
    PLACE.with(|cell| cell.set(place));
}

impl CollectorTable {
    #[inline(always)]
    pub(crate) fn try_lock(&self) -> Option<SpinMutexGuard<'_, OpenTable>> {
        self.open.try_lock()
    }

    #[inline]
    pub(crate) fn lock(&self) -> SpinMutexGuard<'_, OpenTable> {
        match self.open.try_lock() {
            Some(open) => open,
            None => self.lock_contended(),
        }
    }

    #[cold]
    fn lock_contended(&self) -> SpinMutexGuard<'_, OpenTable> {
        self.contended.fetch_add(1, Ordering::Relaxed);
        yield_place();
        self.open.lock()
    }
}
