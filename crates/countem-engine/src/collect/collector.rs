//! The table of one collector.

use countem_core::{CounterHasher, Delta, Table};

use super::{Refusal, router::reassign_thread};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, SpinMutex, SpinMutexGuard};

/// The in-memory aggregation table of one collector.
///
/// The lock is a spin lock that yields: it is held for some ten nanoseconds, and giving it back is a plain store where a
/// mutex needs a second locked instruction (measured: 12 ns against 16 ns for a whole increment).
#[derive(Debug)]
pub(crate) struct CollectorTable {
    open: SpinMutex<OpenTable>,
    /// Number of times a thread found the table locked by another one.
    contended: AtomicU64,
    /// The table is being read: a thread that finds it locked meets no other thread that counts.
    observed: AtomicBool,
    /// Held while this collector is drained.
    pub(super) draining: Mutex<Draining>,
}

/// The contents of the lock of a [`CollectorTable`].
#[derive(Debug)]
pub(crate) struct OpenTable {
    pub(super) table: Table,
    /// Maximum number of counters before the table has to be drained; 0 while the lanes have no room.
    pub(super) counters_max: usize,
    /// Increments folded so far.
    pub(super) accepted: u64,
    pub(super) state: IntakeState,
}

/// Tells whether increments are accepted. Kept behind the same lock as the counts, so that the answer is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntakeState {
    Open,
    /// Until there is room for a new counter; only for a handle that was made when there was none.
    NoRoom,
    /// Until the journal has room again.
    JournalFull,
    /// For good.
    Closed,
    /// For good: this process is a fork of the one that counts.
    Forked,
}

impl IntakeState {
    /// Returns the refusal of an increment that came while intake was not open.
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::JournalFull => Refusal::JournalFull,
            Self::NoRoom => Refusal::Full,
            Self::Forked => Refusal::Forked,
            Self::Open | Self::Closed => Refusal::Closed,
        }
    }

    /// Changes to `to`, unless intake is closed for good, or the handle has no room: that is decided for each.
    pub(super) fn change(&mut self, to: Self) {
        match (*self, to) {
            (Self::Closed, _) | (Self::NoRoom, Self::Open | Self::JournalFull) => {}
            _ => *self = to,
        }
    }
}

/// A table that was taken out and is being merged into the lanes. It outlives a panic in the middle: the next drain goes
/// on behind the last merged delta.
#[derive(Debug)]
pub(crate) struct Draining {
    pub(super) table: Table,
    pub(super) merged: usize,
}

/// Maximum number of deltas that are read without giving back the lock of a table.
const OBSERVED_AT_ONCE: usize = 64;

impl CollectorTable {
    pub(super) fn new(hasher: &CounterHasher, counters_max: usize) -> Self {
        let open = OpenTable {
            table: Table::with_hasher(hasher.clone()),
            counters_max,
            accepted: 0,
            state: IntakeState::Open,
        };
        Self {
            open: SpinMutex::new(open),
            contended: AtomicU64::new(0),
            observed: AtomicBool::new(false),
            draining: Mutex::new(Draining { table: Table::with_hasher(hasher.clone()), merged: 0 }),
        }
    }

    #[inline(always)]
    pub(super) fn try_lock(&self) -> Option<SpinMutexGuard<'_, OpenTable>> {
        self.open.try_lock()
    }

    #[inline]
    pub(super) fn lock(&self) -> SpinMutexGuard<'_, OpenTable> {
        match self.open.try_lock() {
            Some(open) => open,
            None => self.lock_contended(),
        }
    }

    #[cold]
    fn lock_contended(&self) -> SpinMutexGuard<'_, OpenTable> {
        self.note_contention();
        self.open.lock()
    }

    /// Notes that a thread found the table, or a cell of this collector, locked by another one.
    #[cold]
    pub(super) fn note_contention(&self) {
        if !self.observed.load(Ordering::Relaxed) {
            self.contended.fetch_add(1, Ordering::Relaxed);
            reassign_thread();
        }
    }

    /// Returns how often a thread found the table locked since the last call.
    pub(super) fn take_contention(&self) -> u64 {
        self.contended.swap(0, Ordering::Relaxed)
    }

    /// Calls `observe` with every delta in the table. Threads that count are held up for a short moment at a time only. The
    /// caller ensures that the table is not drained meanwhile.
    pub(super) fn observe(&self, mut observe: impl FnMut(Delta<'_>)) {
        self.observed.store(true, Ordering::Relaxed);
        let (mut from, mut len) = (0, None);
        loop {
            let open = self.open.lock();
            let deltas = open.table.deltas();
            // Counters that are added from now on are counted by increments that have not returned yet.
            let len = *len.get_or_insert(deltas.len());
            let to = len.min(from + OBSERVED_AT_ONCE);
            deltas.range(from..to).for_each(&mut observe);
            drop(open);
            if to == len {
                break;
            }
            from = to;
        }
        self.observed.store(false, Ordering::Relaxed);
    }
}
