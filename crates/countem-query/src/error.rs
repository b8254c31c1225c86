//! Errors of reads.

use countem_core::{Bucket, BucketError, CollectionName, NameError, NotExact, Period, jiff::Timestamp};
use countem_store::{StoreError, Unreadable};

use crate::TimeRangeError;

/// An error of a read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The period is neither stored nor the sum of stored buckets.
    #[error("`{collection}` stores no {period} buckets, and {stored} do not add up to them")]
    NotStored {
        /// The collection.
        collection: CollectionName,
        /// The requested period.
        period: Period,
        /// The stored periods.
        stored: String,
    },
    /// The stored periods changed, and those of before or after do not add up to the bucket.
    #[error("`{bucket}` of `{collection}` is not stored as a whole: its stored periods changed at {since}")]
    PeriodsChanged {
        /// The collection.
        collection: CollectionName,
        /// The first requested bucket that is not exact.
        bucket: Bucket,
        /// The beginning of the new periods.
        since: Timestamp,
    },
    /// The zone changed inside the bucket.
    #[error("`{bucket}` of `{collection}` is not one span of time: the zone of the store changed at {since}")]
    ZoneChanged {
        /// The collection.
        collection: CollectionName,
        /// The first requested bucket.
        bucket: Bucket,
        /// The beginning of the new zone.
        since: Timestamp,
    },
    /// The bucket, or a stored one that is part of it, has expired and may have been removed.
    #[error(
        "`{bucket}` of `{collection}` has expired: the first of its {period} buckets that is kept is `{kept_from}`{}",
        if bucket.period() == *period { String::new() } else { format!("; store {} buckets to keep their sums", bucket.period()) }
    )]
    Expired {
        /// The collection.
        collection: CollectionName,
        /// The first requested bucket.
        bucket: Bucket,
        /// The stored period.
        period: Period,
        /// The first bucket of that period that is kept.
        kept_from: Bucket,
    },
    /// The requested bucket lies outside the years 0001 to 9999.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The metric was counted, and has no exact value.
    #[error("`{metric}` cannot be read in `{bucket}`: {why}")]
    Unreadable {
        /// The metric.
        metric: String,
        /// The requested bucket.
        bucket: Bucket,
        /// The reason.
        why: Unreadable,
    },
    /// The source was shut down.
    #[error("collector is shut down")]
    Closed,
}

/// An error of a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The counters could not be read, or have no exact sum.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The range of time is none, or the step does not divide it.
    #[error(transparent)]
    Range(#[from] TimeRangeError),
    /// The name of a collection is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The answer would be larger than a limit allows.
    #[error("the answer exceeds the limit `{limit}` of {max}: {}", remedy(limit))]
    Limit {
        /// Name of the limit, as in [`Limits`](crate::Limits).
        limit: &'static str,
        /// Its value.
        max: u64,
    },
    /// Parts of the query contradict each other.
    #[error("{why}")]
    Contradiction {
        /// The reason.
        why: &'static str,
    },
}

fn remedy(limit: &str) -> &'static str {
    match limit {
        "buckets" => "ask for a shorter range or a coarser step",
        "points" => "ask for fewer metrics, a shorter range or a coarser step",
        _ => "select fewer metrics, or ask for the first ones by a limit",
    }
}

impl ReadError {
    pub(crate) fn not_exact(collection: &CollectionName, bucket: Bucket, why: NotExact) -> Self {
        let collection = collection.clone();
        match why {
            NotExact::ZoneChanged { since } => Self::ZoneChanged { collection, bucket, since },
            NotExact::PeriodsChanged { since } => Self::PeriodsChanged { collection, bucket, since },
            NotExact::NotStored { stored } => {
                let stored = stored.iter().map(|period| format!("{period} buckets"));
                let stored = stored.collect::<Vec<_>>().join(", ");
                Self::NotStored { collection, period: bucket.period(), stored }
            }
        }
    }
}
