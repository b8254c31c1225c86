//! Errors of reads.

use countem_core::{Bucket, CollectionName, Period};
use countem_store::{StoreError, Unreadable};

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
