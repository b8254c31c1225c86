//! The deltas of one lane that are in no batch yet.

use std::{borrow::Cow, collections::BTreeMap};

use countem_core::{Delta, FoldError, OVERFLOW_METRIC, Table};

use super::{
    cardinality::{Admission, Cardinality},
    lanes::LaneLimits,
    notes::Notes,
};

/// Deltas that are not frozen yet, with the caps on distinct metrics and label sets of a bucket.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) table: Table,
    pub(super) cardinality: Cardinality,
    /// Increments that went to an overflow metric, by limit and collection.
    pub(super) overflowed: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

impl Pending {
    pub(super) fn new(limits: &LaneLimits) -> Self {
        Self {
            table: Table::new(),
            cardinality: Cardinality::new(limits.metrics_per_bucket, limits.label_sets),
            overflowed: BTreeMap::new(),
        }
    }

    /// Returns the metric under which `delta` has to be counted now that its counter is new in the table: its own, or beyond a cap
    /// that of the overflow.
    pub(super) fn admit<'a>(&mut self, delta: &Delta<'a>, notes: &mut Notes) -> Cow<'a, str> {
        let admission = self.cardinality.admit(delta.collection, delta.bucket, delta.metric);
        let (limit, metric): (_, Cow<'a, str>) = match admission {
            Admission::Admitted => return delta.metric.into(),
            Admission::BeyondMetrics => ("limits.metrics_per_bucket", OVERFLOW_METRIC.into()),
            Admission::BeyondLabelSets(overflow) => ("limits.label_sets", overflow.into()),
        };
        let overflowed = self.overflowed.entry(limit).or_default();
        match overflowed.get_mut(delta.collection) {
            Some(increments) => *increments += delta.increments,
            None => {
                notes.overflowed(delta, limit, &metric);
                overflowed.insert(delta.collection.to_owned(), delta.increments);
            }
        }
        metric
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
