//! All lanes of an engine, and how full they are together.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use countem_core::{Batch, Writer, hash::fnv64};
use countem_journal::Recovered;
use tokio::sync::Notify;

use super::Lane;

/// The lanes of an engine. Each collection has one.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Box<[Lane]>,
    counters: AtomicUsize,
    counters_max: usize,
    flush_counters: usize,
    /// The journal has no room, so batches are sent early.
    pub(crate) journal_is_full: AtomicBool,
    /// Asks the ticker for a flush before its time.
    pub(crate) flush_wanted: Notify,
}

/// Sizes of lanes.
#[derive(Debug, Clone)]
pub(crate) struct LaneLimits {
    pub(crate) lanes: u16,
    /// Maximum number of counters in one batch.
    pub(crate) batch_counters: usize,
    /// Maximum number of distinct metrics in one (collection, bucket).
    pub(crate) metrics_per_bucket: usize,
    /// Maximum number of label sets of one metric in one (collection, bucket).
    pub(crate) label_sets: usize,
    /// Number of counters in all lanes beyond which no new counter is accepted.
    pub(crate) counters_max: usize,
    /// Number of counters in all lanes beyond which a flush begins before its time.
    pub(crate) flush_counters: usize,
}

impl Lanes {
    pub(crate) fn new(writer: &Writer, limits: &LaneLimits) -> Self {
        let lane = |index| Lane::new(writer.clone(), index, limits);
        Self {
            lanes: (0..limits.lanes.max(1)).map(lane).collect(),
            counters: AtomicUsize::new(0),
            counters_max: limits.counters_max.max(1),
            flush_counters: limits.flush_counters.max(1),
            journal_is_full: AtomicBool::new(false),
            flush_wanted: Notify::new(),
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Lane> {
        self.lanes.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(crate) fn get(&self, index: usize) -> &Lane {
        &self.lanes[index]
    }

    /// Returns the lane of a collection.
    pub(crate) fn of(&self, collection: &str) -> &Lane {
        self.get(self.index_of(collection))
    }

    pub(crate) fn index_of(&self, collection: &str) -> usize {
        let lanes = u16::try_from(self.lanes.len()).expect("lanes are numbered with 16 bits");
        lane_of(collection, lanes).into()
    }

    /// Tells whether a new counter is accepted.
    pub(crate) fn have_room(&self) -> bool {
        self.counters.load(Ordering::Relaxed) < self.counters_max
    }

    /// Tells whether enough counters are pending for a flush before its time.
    pub(crate) fn are_crowded(&self) -> bool {
        self.counters.load(Ordering::Relaxed) >= self.flush_counters
    }

    /// Tells whether the store does not take the batches of some lane.
    pub(crate) fn are_failing(&self) -> bool {
        self.iter().any(|lane| lane.lock().totals.consecutive_failures > 0)
    }

    /// Counts the counters in the lanes, and asks for a flush when they are many.
    pub(crate) fn measure(&self) {
        let counters: usize = self.iter().map(|lane| lane.lock().counters()).sum();
        self.counters.store(counters, Ordering::Relaxed);
        if self.are_crowded() {
            self.flush_wanted.notify_one();
        }
    }

    /// Continues with the contents of a journal, and returns the number of increments in it.
    pub(crate) fn restore(&self, mut recovered: Recovered) -> u64 {
        let increments = recovered.frozen_totals().increments + recovered.pending_totals().increments;
        let mut frozen: Vec<Vec<Arc<Batch>>> = self.iter().map(|_| Vec::new()).collect();
        for batch in std::mem::take(&mut recovered.frozen) {
            frozen[usize::from(batch.id().lane)].push(Arc::new(batch));
        }
        let mut pending: Vec<Option<Batch>> = self.iter().map(|_| None).collect();
        for batch in recovered.take_pending() {
            let lane = usize::from(batch.id().lane);
            pending[lane] = Some(batch);
        }
        for ((lane, frozen), pending) in self.iter().zip(frozen).zip(pending) {
            lane.lock().restore(frozen, pending);
        }
        self.measure();
        increments
    }
}

/// Returns the lane, out of `lanes`, that serves `collection`.
///
/// The hash never changes, so that a restarted engine, and a tool that works on its journal, use the same lane: two lanes never
/// touch one document.
pub fn lane_of(collection: &str, lanes: u16) -> u16 {
    let lane = fnv64(collection) % u64::from(lanes.max(1));
    u16::try_from(lane).expect("a remainder is smaller than the number of lanes")
}

#[cfg(test)]
mod tests {
    use super::lane_of;

    /// A journal holds batches by lane: a collection that moved to another one could have two batches under way at once.
    #[test]
    fn collection_keeps_its_lane_in_every_release() {
        // From the published test vectors of 64-bit FNV-1a: af63dc4c8601ec8c and 85944171f73967e8.
        assert_eq!(
            (lane_of("a", 7), lane_of("a", u16::MAX), lane_of("foobar", u16::MAX)),
            (5, 65_086, 9_768)
        );
    }
}
