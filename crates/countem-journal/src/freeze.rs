//! Freezing what is pending, and forgetting what is stored.

use std::time::{SystemTime, UNIX_EPOCH};

use countem_core::BatchId;

use crate::{
    batch::{self, Encoded},
    error::{ErrorKind, JournalError},
    pending,
    quarantine::{self, Quarantined},
    task::{Books, Done, Failure, Place, Task, Urgency},
};

/// Puts batches in the place of what is pending in a lane.
pub(crate) struct FreezeTask {
    pub(crate) lane: u16,
    pub(crate) batches: Vec<Encoded>,
    pub(crate) done: Done<Result<(), JournalError>>,
}

impl Task for FreezeTask {
    fn place(&self) -> Place {
        Place::Freeze
    }

    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure> {
        // First, so that the batches use the pages that this frees.
        pending::clear(&books.file.connection, books.ledger, self.lane)?;
        for batch in &self.batches {
            if !batch::freeze(&books.file.connection, books.ledger, batch)? {
                return Err(Failure::Refused(JournalError::new(
                    ErrorKind::Refused,
                    format!("cannot freeze batch `{}`: its identity was used for something else", batch.id()),
                )));
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        (self.done)(outcome.map(|_| ()));
    }
}

/// Notes that the store has a batch, all but what is quarantined.
pub(crate) struct ResolveTask {
    pub(crate) id: BatchId,
    pub(crate) quarantined: Vec<Quarantined>,
    pub(crate) done: Done<Result<(), JournalError>>,
}

impl Task for ResolveTask {
    fn place(&self) -> Place {
        Place::Resolve
    }

    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure> {
        let now = milliseconds_now();
        let connection = &books.file.connection;
        if batch::resolve(connection, books.ledger, &self.id, now)? {
            for quarantined in &self.quarantined {
                quarantine::add(connection, books.ledger, Some(&self.id), quarantined)?;
            }
        }
        let retention = i64::try_from(books.options.resolved_retention.as_millis()).unwrap_or(i64::MAX);
        let most = books.options.resolved_bytes;
        batch::prune(connection, books.ledger, |at, kept| {
            now.saturating_sub(at) >= retention || kept.bytes > most
        })?;
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        (self.done)(outcome.map(|_| ()));
    }

    fn urgency(&self) -> Urgency {
        // Until it is noted, a crash makes the batch be sent again, which is harmless; but a store need not report what is
        // quarantined for ever.
        if self.quarantined.is_empty() { Urgency::Lazy } else { Urgency::Insistent }
    }
}

fn milliseconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
