//! Recording what was accepted.

use countem_core::Deltas;

use crate::{
    error::JournalError,
    pending,
    quarantine::{self, Quarantined},
    task::{Books, Done, Failure, Place, Task},
};

/// What was accepted since the last record: one transaction makes all of it durable, or none.
#[derive(Debug, Default)]
#[must_use = "a record that is dropped is a count that is not durable"]
pub struct Record {
    /// The new deltas of each lane.
    pub lanes: Vec<(u16, Deltas)>,
    /// What the caller itself could not add to what is pending.
    pub quarantined: Vec<Quarantined>,
}

/// A record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The number of the transaction. It rises with every transaction of a journal.
    pub tick: u64,
}

/// A record that did not take place, given back with the reason.
///
/// Nothing of it is in the journal, unless the kind of the error is [`InDoubt`](crate::ErrorKind::InDoubt).
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// What was to be recorded.
    pub record: Record,
    /// Why it was not.
    pub error: JournalError,
}

pub(crate) struct RecordTask {
    pub(crate) record: Record,
    pub(crate) done: Done<Result<Recorded, Refused>>,
}

impl Task for RecordTask {
    fn place(&self) -> Place {
        Place::Record
    }

    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure> {
        for (lane, deltas) in &self.record.lanes {
            books.rows += pending::add(&books.file.connection, books.ledger, *lane, deltas.iter())?;
        }
        for quarantined in &self.record.quarantined {
            quarantine::add(&books.file.connection, books.ledger, None, quarantined)?;
            books.rows += 1;
        }
        if books.has_room()? { Ok(()) } else { Err(Failure::NoRoom) }
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        let Self { record, done } = *self;
        done(match outcome {
            Ok(tick) => Ok(Recorded { tick }),
            Err(error) => Err(Refused { record, error }),
        });
    }
}
