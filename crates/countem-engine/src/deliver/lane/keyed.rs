//! Deltas of requests with idempotency keys, which come into a lane by no table.

use std::borrow::Cow;

use countem_core::Delta;
use countem_store::Quarantined;

use super::LaneState;
use crate::deliver::pending::Pending;

impl LaneState {
    /// Tells whether the counter of `delta` is pending, so that another delta of it needs no room.
    pub(crate) fn has_pending(&self, delta: &Delta<'_>) -> bool {
        self.pending.table.get(delta.collection, delta.metric, delta.bucket).is_some()
            || self.outbox.batches().any(|batch| batch.contains(delta))
    }

    /// Returns the metric under which `delta` has to be counted, as [`merge`](Self::merge) chooses it.
    pub(crate) fn admitted<'a>(&mut self, delta: &Delta<'a>) -> Cow<'a, str> {
        match self.pending.table.get(delta.collection, delta.metric, delta.bucket) {
            Some(_) => delta.metric.into(),
            None => self.pending.admit(delta, &mut self.notes),
        }
    }

    /// Tells whether the pending amount with `delta` stays in the range of `i64`.
    pub(crate) fn fits(&self, delta: &Delta<'_>) -> bool {
        Pending::check_sum(&self.pending.table, delta).is_ok()
    }

    /// Adds a delta of a request that the journal has as pending already, so that it needs no record.
    pub(crate) fn merge_recorded(&mut self, delta: Delta<'_>) {
        match self.pending.table.merge(delta) {
            Ok(()) => {
                self.totals.merged += delta.increments;
                self.totals.direct += delta.increments;
            }
            Err(error) => self.quarantine_recorded(delta, &error.to_string()),
        }
    }

    /// Quarantines a delta of a request that the journal has as pending.
    pub(crate) fn quarantine_recorded(&mut self, delta: Delta<'_>, reason: &str) {
        let quarantined = Quarantined::new(delta, reason);
        if let Some(backlog) = &mut self.backlog {
            backlog.quarantine(quarantined.clone());
        }
        self.quarantine_request(quarantined);
    }

    /// Quarantines a delta of a request that no table had.
    pub(crate) fn quarantine_request(&mut self, quarantined: Quarantined) {
        self.totals.merged += quarantined.increments;
        self.totals.direct += quarantined.increments;
        self.quarantine(quarantined);
    }

    /// Notes a delta of a request that was added to the store together with its claim.
    pub(crate) fn note_applied(&mut self, delta: &Delta<'_>) {
        self.totals.merged += delta.increments;
        self.totals.direct += delta.increments;
        self.totals.applied += delta.increments;
    }
}
