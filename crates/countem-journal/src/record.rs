//! Accepted deltas on their way into the journal.

use countem_core::{BatchId, Deltas, Quarantined};

use crate::error::JournalError;

/// Deltas accepted since the last record. One transaction makes all of it durable, or none.
#[derive(Debug, Default)]
#[must_use = "a record that is dropped is a count that is not durable"]
pub struct Record {
    /// The new deltas of each lane.
    pub lanes: Vec<(u16, Deltas)>,
    /// Deltas that the caller could not add to its own pending ones.
    pub quarantined: Vec<Quarantined>,
    /// Identities of [entries](crate::KeyedEntry) that are decided: `lanes` has the deltas of those that are counted. The journal forgets the
    /// entries.
    pub decided: Vec<BatchId>,
}

/// A record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The number of the transaction. It rises with every transaction of a journal.
    pub tick: u64,
}

/// A record that was not made durable, given back with the reason.
///
/// Nothing of it is in the journal, unless the kind of the error is [`InDoubt`](crate::ErrorKind::InDoubt).
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// The record.
    pub record: Record,
    /// The reason.
    pub error: JournalError,
}
