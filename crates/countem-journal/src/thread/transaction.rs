//! The running transaction: what requests read and write.

use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use countem_core::{BatchId, Writer};
use rusqlite::Connection;

use crate::{
    config::JournalConfig,
    disk::file::{FRAME_BYTES, PAGE_BYTES, pages},
    error::{ErrorKind, Failure, JournalError, ReadError},
    keyed::KeyedEntry,
    quarantine::{QuarantineEntry, Quarantined, Selection},
    tables::{
        batches::{self, Encoded},
        keyed, pending, quarantine,
        state::JournalState,
    },
};

/// An entry that [`retry_quarantined`](crate::Journal::retry_quarantined) made pending again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the caller has to count this delta as pending, too"]
pub struct Retried {
    /// The lane in which it is pending now. It is in the journal already.
    pub lane: u16,
    /// The entry, which is not in quarantine any more.
    pub entry: QuarantineEntry,
}

/// The running transaction.
pub(crate) struct Transaction<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) path: &'a Path,
    /// State after the transaction.
    pub(crate) state: &'a mut JournalState,
    pub(crate) config: &'a JournalConfig,
    pub(crate) history_bytes: u64,
    /// Pages in the log before this transaction.
    pub(crate) log_pages: u64,
    /// Bytes of the log before this transaction.
    pub(crate) log_bytes: u64,
    /// Rows of the table `pending` that the transaction has changed so far.
    pub(crate) rows: u64,
}

/// Pages that a transaction writes beside those of its rows: the state and the upper levels of trees.
const SPARE_PAGES: u64 = 8;

impl Transaction<'_> {
    /// Replaces all pending deltas of `lane` by `batches`.
    pub(crate) fn freeze(&mut self, lane: u16, batches: &[Encoded]) -> Result<(), Failure> {
        let connection = self.connection;
        // First, so that the batches use the pages that this frees.
        pending::clear(connection, self.state, lane)?;
        let writer = self.state.writer();
        self.state.numbers.0.retain(|of, (known, _)| *of != lane || *known == writer);
        for batch in batches {
            if batch.id().writer == writer {
                self.state.numbers.raise(lane, &writer, batch.id().seq);
            }
            if !batches::freeze(connection, self.state, batch)? {
                return Err(Failure::Refused(JournalError::new(
                    ErrorKind::Refused,
                    format!("cannot freeze batch `{}`: its identity was used for something else", batch.id()),
                )));
            }
        }
        Ok(())
    }

    /// Deletes all pending deltas of `lane`, whose numbers are used up to `last`.
    pub(crate) fn forget_pending(&mut self, lane: u16, last: &BatchId) -> Result<(), Failure> {
        pending::clear(self.connection, self.state, lane)?;
        self.state.numbers.0.retain(|of, (known, _)| *of != lane || *known == last.writer);
        self.state.numbers.raise(lane, &last.writer, last.seq);
        Ok(())
    }

    /// Marks the batch `id` as resolved except for `quarantined`, and deletes batches that were resolved long ago.
    pub(crate) fn resolve(&mut self, id: &BatchId, quarantined: &[Quarantined]) -> Result<(), Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let connection = self.connection;
        if batches::resolve(connection, self.state, id, now)? {
            for quarantined in quarantined {
                quarantine::add(connection, self.state, Some(id), quarantined)?;
            }
        }
        let retention = i64::try_from(self.config.resolved_retention.as_millis()).unwrap_or(i64::MAX);
        let max_bytes = self.history_bytes;
        batches::prune(connection, self.state, |at, kept| {
            now.saturating_sub(at) >= retention || kept.bytes > max_bytes
        })?;
        Ok(())
    }

    /// Adds entries, if there is room for all of them.
    pub(crate) fn accept(&mut self, entries: &[Arc<KeyedEntry>]) -> Result<(), Failure> {
        for entry in entries {
            keyed::add(self.connection, self.state, entry)?;
            self.rows += 1;
        }
        self.check_room()
    }

    /// Makes the selected quarantined deltas pending in the lanes of their collections.
    pub(crate) fn retry_quarantined(
        &mut self,
        selection: &Selection,
        lane_of: &dyn Fn(&str) -> u16,
    ) -> Result<Vec<Retried>, Failure> {
        let mut retried = Vec::new();
        for entry in self.quarantined(selection)? {
            let lane = lane_of(&entry.quarantined.collection);
            match pending::add(self.connection, self.state, lane, [entry.quarantined.delta()]) {
                Ok(_) => {}
                // It overflows even its pending counter, and stays in quarantine.
                Err(Failure::Refused(_)) => continue,
                Err(failure) => return Err(failure),
            }
            quarantine::remove(self.connection, self.state, &entry)?;
            retried.push(Retried { lane, entry });
        }
        Ok(retried)
    }

    /// Deletes the selected quarantined deltas, and returns them.
    pub(crate) fn drop_quarantined(
        &mut self,
        selection: &Selection,
    ) -> Result<Vec<QuarantineEntry>, Failure> {
        let dropped = self.quarantined(selection)?;
        for entry in &dropped {
            quarantine::remove(self.connection, self.state, entry)?;
        }
        Ok(dropped)
    }

    /// Moves all pending deltas and those of all entries into quarantine, and returns their number.
    pub(crate) fn quarantine_pending(&mut self, reason: &str) -> Result<usize, Failure> {
        let connection = self.connection;
        let pending = pending::read(connection).map_err(|error| self.unreadable(error))?;
        let pending = pending.iter().map(|(lane, deltas, _)| (*lane, deltas));
        let moved = quarantine::add_pending(connection, self.state, pending, reason)?;
        let keyed = keyed::read(connection).map_err(|error| self.unreadable(error))?;
        let keyed = keyed.iter().map(|(entry, _)| entry);
        Ok(moved + keyed::quarantine_all(connection, self.state, keyed, reason)?)
    }

    /// Draws a new node identity.
    pub(crate) fn renew_identity(&mut self) -> Writer {
        self.state.node = rand::random();
        // Raised, so that batches frozen before are still recognised as older.
        self.state.epoch += 1;
        // What is recorded from now on has numbers of the new identity.
        let pending = &self.state.pending;
        self.state.numbers.0.retain(|lane, _| pending.contains_key(lane));
        self.state.writer()
    }

    /// Checks that the files would keep within their bound if the transaction were committed now.
    ///
    /// # Errors
    /// [`Failure::NoRoom`] when they would not.
    pub(crate) fn check_room(&self) -> Result<(), Failure> {
        let pages = pages(self.connection)?;
        // Every row changes at most one page of the table, and a new one now and then the pages above it; and however many
        // rows there are, no page is written twice.
        let written = (self.rows + SPARE_PAGES).min(pages);
        let log = self.log_bytes.max((self.log_pages + written) * FRAME_BYTES);
        if pages * PAGE_BYTES + log <= self.config.max_bytes { Ok(()) } else { Err(Failure::NoRoom) }
    }

    fn quarantined(&self, selection: &Selection) -> Result<Vec<QuarantineEntry>, Failure> {
        let mut entries = quarantine::read(self.connection).map_err(|error| self.unreadable(error))?;
        entries.retain(|entry| selection.includes(entry));
        Ok(entries)
    }

    fn unreadable(&self, error: ReadError) -> Failure {
        Failure::Refused(error.of(self.path))
    }
}
