//! Adopting changed schedules while counting.

use std::sync::Arc;

use countem_core::{Delta, Schedules};
use jiff::{SignedDuration, Timestamp};

use super::{Intake, calendar::Advanced};

/// Reason of a quarantine.
pub(crate) const COUNTED_OTHERWISE: &str = "counted by another schedule than the store has";

impl Intake {
    /// Returns the latest time that an increment may have, where event times are at most `ahead` of the clock.
    pub(crate) fn latest_event(&self, ahead: SignedDuration) -> Timestamp {
        self.clock().now().saturating_add(ahead).unwrap_or(Timestamp::MAX)
    }

    /// Returns the latest time that an increment may have now.
    pub(crate) fn latest_possible_event(&self) -> Timestamp {
        self.latest_event(self.future_window())
    }

    /// Calls `merge` with the schedules, which stay the same meanwhile, to move counts to the lanes.
    pub(crate) fn moving(&self, merge: impl FnOnce(&Arc<Schedules>)) {
        let _moving = self.moves.read();
        merge(&self.calendar().schedules());
    }

    /// Counts by `recorded`, the schedules of the store, from now on. No count so far is of a time after `latest`.
    ///
    /// A change that has not taken effect yet moves no count. Where the schedules differ already, what is pending and was counted
    /// otherwise is quarantined: it can be counted in no bucket of the store any more.
    pub(crate) fn adopt(&self, recorded: Schedules, latest: Timestamp) {
        let current = self.calendar().schedules();
        if *current == recorded {
            return;
        }
        let recorded = Arc::new(recorded);
        tracing::info!(schedules = %recorded, "the schedule of the store is adopted");
        let advanced = if recorded.agree_until(&current, latest) {
            self.calendar().adopt(recorded, self.clock().now())
        } else {
            self.adopt_late(&current, &recorded, latest)
        };
        advanced.log();
    }

    /// Counts by `recorded` from now on, and quarantines what is pending and was counted by `counted`, where `recorded` would have
    /// counted otherwise.
    ///
    /// A counter gets its bucket under the lock of the table or handle that counts it. So what a table holds when it is drained here was
    /// counted by `counted`, or a moment ago by `recorded` and is judged alike; what it holds afterwards was counted by `recorded`.
    fn adopt_late(&self, counted: &Schedules, recorded: &Arc<Schedules>, latest: Timestamp) -> Advanced {
        // Held so that no delta moves meanwhile.
        let _still = self.moves.write();
        let advanced = self.calendar().adopt(Arc::clone(recorded), self.clock().now());
        (0..self.router().max()).for_each(|index| self.drain_held(index, counted));
        let is_stale = |delta: &Delta<'_>| {
            let (counted, recorded) = (counted.of(delta.collection), recorded.of(delta.collection));
            !recorded.counts_like(counted, delta.bucket, latest)
        };
        for lane in self.lanes.iter() {
            lane.lock().quarantine_pending(is_stale, COUNTED_OTHERWISE);
        }
        self.lanes.measure();
        advanced
    }
}
