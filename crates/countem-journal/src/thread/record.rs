//! Recording accepted deltas.

use crate::{
    error::{Failure, JournalError},
    record::{Record, Recorded, Refused},
    tables::{keyed, pending, quarantine},
    thread::{
        request::{Done, Request, Urgency},
        transaction::Transaction,
    },
};

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
        // First, so that the deltas use the pages that this frees.
        for id in &self.record.decided {
            keyed::remove(connection, transaction.state, id)?;
        }
        for (lane, deltas) in &self.record.lanes {
            transaction.rows += pending::add(connection, transaction.state, *lane, deltas.iter())?;
        }
        for quarantined in &self.record.quarantined {
            quarantine::add(connection, transaction.state, None, quarantined)?;
            transaction.rows += 1;
        }
        // The deltas of an entry take about the room that it had.
        if self.record.decided.is_empty() { transaction.check_room() } else { Ok(()) }
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        let Self { record, done } = *self;
        done(match outcome {
            Ok(tick) => Ok(Recorded { tick }),
            Err(error) => Err(Refused { record, error }),
        });
    }
}
