//! The deltas of one lane that are in no batch yet.

use std::collections::BTreeMap;

use countem_core::{Delta, FoldError, OVERFLOW_METRIC, Table};

use super::{cardinality::Cardinality, notes::Notes};

/// Deltas that are not frozen yet, with the cap on distinct metrics of a bucket.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) table: Table,
    pub(super) cardinality: Cardinality,
    /// Increments that went to the overflow metric, by collection.
    pub(super) overflowed: BTreeMap<String, u64>,
}

impl Pending {
    pub(super) fn new(metrics_per_bucket: usize) -> Self {
        Self {
            table: Table::new(),
            cardinality: Cardinality::new(metrics_per_bucket),
            overflowed: BTreeMap::new(),
        }
    }

    /// Returns the delta as it has to be counted now that its counter is new in the table: beyond the cap under the overflow
    /// metric.
    pub(super) fn admit<'a>(&mut self, delta: Delta<'a>, notes: &mut Notes) -> Delta<'a> {
        if self.cardinality.admits(delta.collection, delta.bucket, delta.metric) {
            return delta;
        }
        match self.overflowed.get_mut(delta.collection) {
            Some(increments) => *increments += delta.increments,
            None => {
                notes.overflowed(delta.collection, delta.bucket);
                self.overflowed.insert(delta.collection.to_owned(), delta.increments);
            }
        }
        Delta { metric: OVERFLOW_METRIC, ..delta }
    }

    /// Checks that adding `delta` to the table cannot leave `i64`; a counter that is not there has room.
    ///
    /// # Errors
    /// [`FoldError::Overflow`].
    pub(super) fn check_sum(table: &Table, delta: &Delta<'_>) -> Result<(), FoldError> {
        let before = table.get(delta.collection, delta.metric, delta.bucket).unwrap_or(0);
        before.checked_add(delta.n).map(drop).ok_or(FoldError::Overflow)
    }

    pub(super) fn increments(&self) -> u64 {
        self.table.deltas().totals().increments
    }
}
