//! Errors of reads.

use countem_core::{Bucket, CollectionName, Period};
use countem_store::StoreError;

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
    /// The derived value leaves the range of `i64`.
    #[error("sum of `{metric}` over `{bucket}` exceeds the range of a 64-bit integer")]
    Overflow {
        /// The metric.
        metric: String,
        /// The requested bucket.
        bucket: Bucket,
    },
    /// The source was shut down.
    #[error("collector is shut down")]
    Closed,
}
