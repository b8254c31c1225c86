//! Statistics of a running engine.

use std::collections::BTreeMap;

use countem_store::Quarantined;

use crate::{
    collect::Intake,
    deliver::{Lanes, Recorder},
};

/// Statistics: how many increments were accepted, applied, pending, quarantined and dropped, and how flushing goes.
///
/// The law of conservation (I1): `accepted = applied + pending + quarantined + dropped`, in increments.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Increments that were counted.
    pub accepted: u64,
    /// Increments that are in the store.
    pub applied: u64,
    /// Increments that are counted and not known to be in the store.
    pub pending: u64,
    /// Those of the pending increments that are in the journal and survive the end of the process.
    pub journaled: u64,
    /// Health and counters of the journal, at level `journal`.
    pub journal: Option<countem_journal::Status>,
    /// Increments whose counter the store could not add to.
    pub quarantined: u64,
    /// Increments given up at a shutdown whose deadline passed.
    pub dropped: u64,
    /// Increments that were not accepted, by reason: `name`, `closed`, `full`, `overflow`, `time`, `journal_full`,
    /// `forked`.
    pub refused: BTreeMap<&'static str, u64>,
    /// Distinct counters pending in the lanes.
    pub pending_counters: usize,
    /// The quarantined deltas themselves, the newest thousand.
    pub quarantine: Vec<Quarantined>,
    /// Increments that were counted as `__overflow__`, by collection.
    pub overflowed: BTreeMap<String, u64>,
    /// Requests with idempotency keys that are not decided. Their increments are not accepted yet.
    pub requests_in_progress: usize,
    /// Collectors that threads are spread over now.
    pub collectors: usize,
    /// Actors that panicked and were replaced.
    pub actor_restarts: u64,
    /// One entry per storage actor.
    pub lanes: Vec<LaneStats>,
    /// This process is a fork of the one that counts, and all other fields are empty.
    pub is_forked: bool,
}

/// Statistics of one storage actor.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LaneStats {
    /// Batches stored.
    pub batches: u64,
    /// Attempts to store a batch.
    pub attempts: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Failed attempts whose outcome was unknown.
    pub doubts: u64,
    /// Error of the last attempt; `None` once one succeeded.
    pub last_error: Option<String>,
    /// Failed attempts since the last success.
    pub consecutive_failures: u32,
    /// Distinct counters pending.
    pub pending_counters: usize,
}

impl Stats {
    /// Tells whether the law of conservation holds, as it does at every moment.
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.applied + self.pending + self.quarantined + self.dropped
    }

    pub(crate) fn of(
        intake: &Intake,
        lanes: &Lanes,
        recorder: Option<&Recorder>,
        actor_restarts: u64,
    ) -> Self {
        let mut stats = Self {
            refused: intake.refused().collect(),
            collectors: intake.router().active(),
            actor_restarts,
            journal: recorder.and_then(Recorder::status),
            ..Self::default()
        };
        intake.hold_still(|still| {
            let counted = still.counted();
            stats.accepted += counted.accepted;
            stats.pending += counted.unmerged;
            stats.add(lanes);
        });
        stats
    }

    /// Adds the numbers of the lanes. What is pending there is added up from the deltas themselves.
    fn add(&mut self, lanes: &Lanes) {
        for lane in lanes.iter() {
            let lane = lane.lock();
            let totals = &lane.totals;
            self.accepted += totals.direct;
            self.applied += totals.applied;
            self.quarantined += totals.quarantined;
            self.dropped += totals.dropped;
            let pending = lane.pending_increments();
            self.pending += pending;
            if self.journal.is_some() {
                self.journaled += pending.saturating_sub(lane.fresh_increments() + lane.recording());
            }
            self.pending_counters += lane.counters();
            self.quarantine.extend(totals.quarantine.iter().cloned());
            for (collection, increments) in lane.overflowed() {
                *self.overflowed.entry(collection.clone()).or_default() += increments;
            }
            self.lanes.push(LaneStats {
                batches: totals.batches,
                attempts: totals.attempts,
                failures: totals.failures,
                doubts: totals.doubts,
                last_error: totals.last_error.clone(),
                consecutive_failures: totals.consecutive_failures,
                pending_counters: lane.counters(),
            });
        }
    }
}
