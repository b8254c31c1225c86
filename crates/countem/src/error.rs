//! What can go wrong when asking a collector.

use countem_core::{BucketError, NameError};
use countem_engine::{NotDurable, Refusal};
use countem_query::ReadError;

/// Says what could not be done, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A date has no bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The increment was not counted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The increment was counted, but it is not durable yet.
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
    /// What was pending at a flush is not in the store: the collector gave up at a shutdown.
    #[error("counted, but not stored: the collector was shut down before the store had everything")]
    NotStored,
    /// Counters could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
