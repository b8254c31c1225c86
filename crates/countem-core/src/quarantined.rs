//! Deltas that cannot be added to their counters.

use crate::{Bucket, Delta};

/// A delta that could not be added to its counter, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Collection of the counter.
    pub collection: String,
    /// Metric of the counter.
    pub metric: String,
    /// Bucket in which it was counted.
    pub bucket: Bucket,
    /// The amount that is not in the counter.
    pub n: i64,
    /// Number of merged increments.
    pub increments: u64,
    /// The reason, one line.
    pub reason: String,
}

impl Quarantined {
    /// Quarantines `delta` for `reason`.
    pub fn new(delta: Delta<'_>, reason: impl Into<String>) -> Self {
        Self {
            collection: delta.collection.to_owned(),
            metric: delta.metric.to_owned(),
            bucket: delta.bucket,
            n: delta.n,
            increments: delta.increments,
            reason: reason.into(),
        }
    }

    /// Returns the delta.
    pub fn delta(&self) -> Delta<'_> {
        let Self { collection, metric, bucket, n, increments, .. } = self;
        Delta { collection, metric, bucket: *bucket, n: *n, increments: *increments }
    }
}
