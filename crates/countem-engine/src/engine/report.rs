//! The result of a shutdown.

use std::{fmt, time::Duration};

/// Numbers of increments after a shutdown: `accepted = applied + quarantined + journaled + dropped + in_doubt`, where accepted
/// includes those that an earlier process had left in the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Increments that were counted.
    pub accepted: u64,
    /// Increments that are in the store.
    pub applied: u64,
    /// Increments whose counter the store could not add to.
    pub quarantined: u64,
    /// Increments that are not known to be in the store and stay in the journal for the next start.
    pub journaled: u64,
    /// Increments that never reached the store before the deadline, nor any journal.
    pub dropped: u64,
    /// Increments of batches that were sent and never confirmed: stored or not, wholly or in part.
    pub in_doubt: u64,
    /// Duration of the shutdown.
    pub took: Duration,
    /// Last errors of the store where something is missing, and errors of the shutdown itself.
    pub errors: Vec<String>,
}

impl ShutdownReport {
    /// Returns the report of a shutdown that did not take place.
    pub(crate) fn failed(error: &str) -> Self {
        Self { errors: vec![error.to_owned()], ..Self::default() }
    }

    /// Tells whether the shutdown took place and every accepted increment is in the store.
    pub fn is_complete(&self) -> bool {
        self.accepted == self.applied && self.errors.is_empty()
    }

    /// Tells whether every batch is resolved and nothing is left to send.
    pub(crate) fn is_resolved(&self) -> bool {
        self.journaled + self.dropped + self.in_doubt == 0
    }

    /// Tells whether the report accounts for every accepted increment.
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.applied + self.quarantined + self.journaled + self.dropped + self.in_doubt
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} increments accepted, {} stored", self.accepted, self.applied)?;
        for (count, what) in [
            (self.quarantined, "quarantined"),
            (self.journaled, "kept in the journal"),
            (self.dropped, "not stored"),
            (self.in_doubt, "in doubt"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        write!(f, " in {:.1?}", self.took)?;
        match self.errors.first() {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}
