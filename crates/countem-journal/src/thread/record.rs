//! Recording accepted deltas.

use countem_core::Deltas;

use crate::{
    error::{Failure, JournalError},
    tables::{
        pending,
        quarantine::{self, Quarantined},
    },
    thread::{
        request::{Done, Request, Urgency},
        transaction::Transaction,
    },
};

/// Deltas accepted since the last record. One transaction makes all of it durable, or none.
#[derive(Debug, Default)]
#[must_use = "a record that is dropped is a count that is not durable"]
pub struct Record {
    /// The new deltas of each lane.
    pub lanes: Vec<(u16, Deltas)>,
    /// Deltas that the caller could not add to its own pending ones.
    pub quarantined: Vec<Quarantined>,
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

/// Unlike a [`Call`](super::request::Call), gives the record back when it fails.
pub(crate) struct RecordRequest {
    pub(crate) record: Record,
    pub(crate) done: Done<Result<Recorded, Refused>>,
}

impl Request for RecordRequest {
    fn point(&self) -> &'static str {
        "record"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Now
    }

    fn execute(&mut self, transaction: &mut Transaction<'_>) -> Result<(), Failure> {
        let connection = transaction.connection;
        for (lane, deltas) in &self.record.lanes {
            transaction.rows += pending::add(connection, transaction.state, *lane, deltas.iter())?;
        }
        for quarantined in &self.record.quarantined {
            quarantine::add(connection, transaction.state, None, quarantined)?;
            transaction.rows += 1;
        }
        transaction.check_room()
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        let Self { record, done } = *self;
        done(match outcome {
            Ok(tick) => Ok(Recorded { tick }),
            Err(error) => Err(Refused { record, error }),
        });
    }
}
