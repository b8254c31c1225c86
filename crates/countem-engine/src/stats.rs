//! Where every increment is.

use std::collections::BTreeMap;

use countem_store::Quarantined;

use crate::{lane::Lane, node::Node, recorder::Recorder};

/// Where every increment of a node is, and how flushing goes.
///
/// The law of conservation (I1): `accepted = applied + pending + quarantined + dropped`, in increments.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Increments that were counted.
    pub accepted: u64,
    /// Increments that are in the store.
    pub applied: u64,
    /// Increments that are counted and not known to be in the store.
    pub pending: u64,
    /// Those of the pending increments that are in the journal and survive the end of the process.
    pub journaled: u64,
    /// How the journal fares, at level `journal`.
    pub journal: Option<countem_journal::Status>,
    /// Increments whose counter the store could not add to.
    pub quarantined: u64,
    /// Increments given up at a shutdown whose deadline passed.
    pub dropped: u64,
    /// Increments that were not accepted, by reason: `name`, `closed`, `full`, `overflow`, `time`, `journal_full`.
    pub refused: BTreeMap<&'static str, u64>,
    /// Distinct counters pending in the lanes.
    pub pending_counters: usize,
    /// The quarantined deltas themselves, the newest thousand.
    pub quarantine: Vec<Quarantined>,
    /// Increments that were counted as `__overflow__`, by collection.
    pub overflowed: BTreeMap<String, u64>,
    /// Collectors that threads are spread over now.
    pub collectors: usize,
    /// Actors that panicked and were replaced.
    pub actor_restarts: u64,
    /// One entry per storage actor.
    pub lanes: Vec<LaneStats>,
}

/// How one storage actor fares.
#[derive(Debug, Clone, Default)]
pub struct LaneStats {
    /// Batches stored.
    pub batches: u64,
    /// Attempts to store one.
    pub attempts: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Failed attempts whose outcome was unknown.
    pub doubts: u64,
    /// Why the last attempt failed; `None` while all is well.
    pub last_error: Option<String>,
    /// Failed attempts since the last success.
    pub consecutive_failures: u32,
    /// Distinct counters pending.
    pub pending_counters: usize,
}

impl Stats {
    /// Tells whether the books balance, as they do at every moment.
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.applied + self.pending + self.quarantined + self.dropped
    }

    pub(crate) fn of(node: &Node, actor_restarts: u64) -> Self {
        let mut stats = Self {
            refused: node.refused().collect(),
            collectors: node.router().active(),
            actor_restarts,
            ..Self::default()
        };
        stats.journal = node.recorder().and_then(Recorder::status);
        let (counted, stats) = node.look(|lanes| stats.clone().with(lanes));
        Self {
            accepted: stats.accepted + counted.accepted,
            pending: stats.pending + counted.unmerged,
            ..stats
        }
    }

    /// Adds what the lanes say. Each is looked at under its lock, and what is pending there is added up from the deltas
    /// themselves.
    fn with(mut self, lanes: &[Lane]) -> Self {
        let stats = &mut self;
        for lane in lanes {
            let lane = lane.lock();
            let ledger = &lane.ledger;
            stats.accepted += ledger.direct;
            stats.applied += ledger.applied;
            stats.quarantined += ledger.quarantined;
            stats.dropped += ledger.dropped;
            let pending = lane.pending_increments();
            stats.pending += pending;
            if stats.journal.is_some() {
                stats.journaled += pending.saturating_sub(lane.fresh_increments() + lane.recording());
            }
            stats.pending_counters += lane.counters();
            stats.quarantine.extend(ledger.quarantine.iter().cloned());
            for (collection, increments) in &ledger.overflowed {
                *stats.overflowed.entry(collection.clone()).or_default() += increments;
            }
            stats.lanes.push(LaneStats {
                batches: ledger.batches,
                attempts: ledger.attempts,
                failures: ledger.failures,
                doubts: ledger.doubts,
                last_error: ledger.last_error.clone(),
                consecutive_failures: ledger.consecutive_failures,
                pending_counters: lane.counters(),
            });
        }
        self
    }
}
