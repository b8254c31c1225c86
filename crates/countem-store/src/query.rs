//! Queries, and the rows that answer them.

use std::{collections::BTreeMap, num::NonZeroUsize};

use countem_core::{Bucket, BucketRange, CollectionName, Delta, MetricName};

use crate::Counters;

/// The answer to a query: the counters of every bucket that has any.
pub type Rows = BTreeMap<Bucket, Counters>;

/// Returns the buckets from the first to the last of `rows`, `None` where there is none.
pub fn extent(rows: &Rows) -> Option<BucketRange> {
    BucketRange::new(*rows.first_key_value()?.0, *rows.last_key_value()?.0)
}

/// A selection of counters: some metrics of one collection in a range of buckets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowQuery {
    /// The collection.
    pub collection: CollectionName,
    /// The buckets.
    pub range: BucketRange,
    /// The metrics.
    pub select: Select,
}

/// A selection of metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Select {
    /// Every metric.
    All,
    /// One metric.
    One(MetricName),
    /// In each bucket, the first `limit` metrics in byte order, of those that begin with `prefix`.
    ///
    /// The pages of several buckets make up the page of their sum: a metric among the first `limit` of all buckets is among the
    /// first `limit` of each bucket that has it.
    Page {
        /// Beginning of the metrics; empty for every metric.
        prefix: String,
        /// Position: only metrics that sort after this text. Need not be a metric.
        after: Option<String>,
        /// Maximum number of metrics.
        limit: NonZeroUsize,
    },
}

impl Select {
    /// Returns the first page of `limit` metrics.
    pub fn first(limit: NonZeroUsize) -> Self {
        Self::Page { prefix: String::new(), after: None, limit }
    }
}

impl RowQuery {
    /// Returns a query for all metrics of one bucket.
    pub fn bucket(collection: CollectionName, bucket: Bucket) -> Self {
        Self { collection, range: BucketRange::one(bucket), select: Select::All }
    }

    /// Returns a query for one metric of every bucket of `range`, which is enough to tell the buckets that hold any.
    pub fn any_metric(collection: CollectionName, range: BucketRange) -> Self {
        Self { collection, range, select: Select::first(NonZeroUsize::MIN) }
    }

    /// Returns true when the counter of `delta` is in the collection and range, and its metric is [selected](Self::selects).
    pub fn asks_for(&self, delta: &Delta<'_>) -> bool {
        delta.collection == self.collection.as_str()
            && self.range.contains(delta.bucket)
            && self.selects(delta.metric)
    }

    /// Returns true when `metric` belongs to the answer, or to a page after it.
    pub fn selects(&self, metric: &str) -> bool {
        match &self.select {
            Select::All => true,
            Select::One(one) => one.as_str() == metric,
            Select::Page { prefix, after, .. } => {
                metric.starts_with(prefix) && after.as_deref().is_none_or(|after| metric > after)
            }
        }
    }

    /// Returns the maximum number of metrics in a bucket of the answer.
    pub fn limit(&self) -> usize {
        match &self.select {
            Select::Page { limit, .. } => limit.get(),
            Select::All | Select::One(_) => usize::MAX,
        }
    }

    /// Cuts each bucket of `rows`, which hold selected metrics only, to the [limit](Self::limit).
    pub fn cut(&self, rows: &mut Rows) {
        if let Select::Page { limit, .. } = &self.select {
            rows.values_mut().for_each(|counters| counters.truncate(limit.get()));
        }
    }
}
