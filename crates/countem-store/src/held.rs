//! Quarantine of a store: counts that no journal keeps.

use countem_core::{BatchId, Quarantined};

/// A count that a store could not add, and that it keeps until it is [released](crate::Store::release).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The batch of which it is a part. No other entry has the same batch and counter.
    pub batch: BatchId,
    /// The count and the reason.
    pub quarantined: Quarantined,
}

/// Way out of the quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Add the count to its counter.
    Retry,
    /// Give it up.
    Drop,
}

/// Result of a [release](crate::Store::release).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// The count is in its counter, or given up, and left the quarantine in the same step.
    Done,
    /// The counter still cannot take it, for this reason.
    Kept(String),
    /// It is not in quarantine: it was released before.
    Gone,
}
