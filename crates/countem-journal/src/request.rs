//! The rarer requests: quarantine, identity, and waiting for what was asked before.

use std::sync::Arc;

use countem_core::Writer;

use crate::{
    batch,
    error::JournalError,
    pending,
    quarantine::{self, QuarantineEntry, Quarantined, Selection},
    status::Shared,
    task::{Books, Done, Failure, Place, Task},
};

/// An entry that [`retry_quarantined`](crate::Journal::retry_quarantined) made pending again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the caller has to count this delta as pending, too"]
pub struct Retried {
    /// The lane in which it is pending now. It is in the journal already.
    pub lane: u16,
    /// What was quarantined.
    pub entry: QuarantineEntry,
}

/// Makes quarantined deltas pending again.
pub(crate) struct RetryTask {
    pub(crate) selection: Selection,
    pub(crate) lane_of: Box<dyn Fn(&str) -> u16 + Send>,
    pub(crate) retried: Vec<Retried>,
    pub(crate) done: Done<Result<Vec<Retried>, JournalError>>,
}

impl Task for RetryTask {
    fn place(&self) -> Place {
        Place::Other
    }

    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure> {
        self.retried.clear();
        let connection = &books.file.connection;
        for entry in quarantine::read(connection, books.path).map_err(Failure::Refused)? {
            if !self.selection.includes(&entry) {
                continue;
            }
            let lane = (self.lane_of)(&entry.quarantined.collection);
            match pending::add(connection, books.ledger, lane, [entry.quarantined.delta()]) {
                Ok(_) => {}
                // Not even what is pending can take it: it stays where it is.
                Err(Failure::Refused(_)) => continue,
                Err(failure) => return Err(failure),
            }
            quarantine::remove(connection, books.ledger, &entry)?;
            self.retried.push(Retried { lane, entry });
        }
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        let Self { retried, done, .. } = *self;
        done(outcome.map(|_| retried));
    }
}

/// Gives quarantined deltas up.
pub(crate) struct DropTask {
    pub(crate) selection: Selection,
    pub(crate) dropped: Vec<QuarantineEntry>,
    pub(crate) done: Done<Result<Vec<QuarantineEntry>, JournalError>>,
}

impl Task for DropTask {
    fn place(&self) -> Place {
        Place::Other
    }

    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure> {
        self.dropped = quarantine::take(&books.file.connection, books.ledger, books.path, &self.selection)
            .map_err(Failure::Refused)?;
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        let Self { dropped, done, .. } = *self;
        done(outcome.map(|_| dropped));
    }
}

/// Quarantines everything that is pending.
pub(crate) struct QuarantinePendingTask {
    pub(crate) reason: String,
    pub(crate) moved: usize,
    pub(crate) done: Done<Result<usize, JournalError>>,
}

impl Task for QuarantinePendingTask {
    fn place(&self) -> Place {
        Place::Other
    }

    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure> {
        self.moved = quarantine_pending(books, &self.reason)?;
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        let Self { moved, done, .. } = *self;
        done(outcome.map(|_| moved));
    }
}

/// Moves everything pending into quarantine, and returns how many deltas that were.
pub(crate) fn quarantine_pending(books: &mut Books<'_>, reason: &str) -> Result<usize, Failure> {
    let connection = &books.file.connection;
    let mut moved = 0;
    for (lane, deltas, _) in pending::read(connection, books.path).map_err(Failure::Refused)? {
        for delta in deltas.iter() {
            quarantine::add(connection, books.ledger, None, &Quarantined::new(delta, reason))?;
            moved += 1;
        }
        pending::clear(connection, books.ledger, lane)?;
    }
    Ok(moved)
}

/// Gives the node a new identity.
pub(crate) struct IdentityTask {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Option<Writer>,
    pub(crate) done: Done<Result<Writer, JournalError>>,
}

impl Task for IdentityTask {
    fn place(&self) -> Place {
        Place::Other
    }

    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure> {
        books.ledger.node = rand::random();
        // Rises on, so that what was frozen before is still recognised as older.
        books.ledger.epoch += 1;
        self.writer = Some(books.ledger.writer());
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        let Self { shared, writer, done } = *self;
        done(outcome.map(|_| {
            let writer = writer.expect("the transaction that was committed has chosen a writer");
            shared.set_writer(writer.clone());
            writer
        }));
    }
}

/// Frees room by giving up resolved batches, which are kept only in case of need.
pub(crate) struct RoomTask {
    /// Bytes of them that may stay.
    pub(crate) keep: u64,
}

impl Task for RoomTask {
    fn place(&self) -> Place {
        Place::Resolve
    }

    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure> {
        batch::prune(&books.file.connection, books.ledger, |_, kept| kept.bytes > self.keep)?;
        Ok(())
    }

    fn finish(self: Box<Self>, _: Result<u64, JournalError>) {}
}

/// Finds out whether a record would succeed again.
pub(crate) struct ProbeTask;

impl Task for ProbeTask {
    fn place(&self) -> Place {
        Place::Other
    }

    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure> {
        books.rows += 1;
        if books.has_room()? { Ok(()) } else { Err(Failure::NoRoom) }
    }

    fn finish(self: Box<Self>, _: Result<u64, JournalError>) {}
}

/// Waits until everything that was asked before is durable.
pub(crate) struct SyncTask {
    pub(crate) done: Done<Result<(), JournalError>>,
}

impl Task for SyncTask {
    fn place(&self) -> Place {
        Place::Other
    }

    fn execute(&mut self, _: &mut Books<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>) {
        (self.done)(outcome.map(|_| ()));
    }
}
