//! Looking into a journal without changing it, also while another process writes to it.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use countem_core::{Batch, BatchId, Deltas, Writer};
use rusqlite::Connection;

use crate::{
    batch,
    connection::{JOURNAL, OpenFile, sizes},
    error::JournalError,
    ledger::Contents,
    open::check_structure,
    pending,
    quarantine::{self, QuarantineEntry},
    schema::{Recognised, at_open, recognise},
};

/// A journal that is open for reading only. Each call sees the journal as of one moment.
#[derive(Debug)]
pub struct JournalReader {
    connection: Connection,
    path: PathBuf,
}

/// Where the counts of a journal are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The identity under which batches are frozen, or were when it was last open.
    pub writer: Writer,
    /// The number of lanes with which everything in it was recorded.
    pub lanes: u16,
    /// Number of the newest transaction.
    pub tick: u64,
    /// What was accepted and is in no batch yet.
    pub pending: Part,
    /// What is frozen and not known to be in the store.
    pub frozen: Part,
    /// What could not be added to its counter.
    pub quarantined: Part,
    /// What is in the store and kept for a while.
    pub resolved: Part,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the write-ahead log.
    pub log_bytes: u64,
}

/// One part of a journal's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// Number of batches; zero where there are none by nature.
    pub batches: u64,
    /// Number of deltas.
    pub counters: u64,
    /// Number of increments merged into them.
    pub increments: u64,
}

/// A batch that is in the store and is kept for a store that is restored to an older point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedBatch {
    /// Its identity.
    pub id: BatchId,
    /// When it was resolved, by the clock of that moment.
    pub at: SystemTime,
    /// Number of its deltas.
    pub counters: u64,
    /// Number of increments merged into them.
    pub increments: u64,
}

impl JournalReader {
    /// Opens the journal in `dir`.
    ///
    /// # Errors
    /// There is no journal, or it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let path = std::path::absolute(dir)
            .map_err(|error| JournalError::io(dir, "find the journal directory", &error))?
            .join(JOURNAL);
        if !path.exists() {
            return Err(JournalError::refused(&path, "there is none"));
        }
        let file = OpenFile::open_read_only(&path).map_err(|error| at_open(&path, &error))?;
        match recognise(&file.connection, &path)? {
            Recognised::Journal => Ok(Self { connection: file.connection, path }),
            Recognised::Empty => Err(JournalError::refused(&path, "it is empty")),
        }
    }

    /// Says where the counts are.
    ///
    /// # Errors
    /// The file cannot be read, or not be believed.
    pub fn summary(&self) -> Result<Summary, JournalError> {
        self.at_one_moment(|| {
            let contents = Contents::read(&self.connection, &self.path)?;
            let ledger = &contents.ledger;
            let resolved = self.read_resolved(0)?;
            let (file_bytes, log_bytes) = sizes(&self.path);
            let pending = contents.pending.iter().map(|(_, deltas)| deltas.len() as u64).sum();
            Ok(Summary {
                writer: ledger.writer(),
                lanes: ledger.lanes,
                tick: ledger.tick,
                pending: Part { batches: 0, counters: pending, increments: ledger.pending_increments() },
                frozen: Part {
                    batches: ledger.frozen.items,
                    counters: contents.frozen.iter().map(|frozen| frozen.batch.len() as u64).sum(),
                    increments: ledger.frozen.increments,
                },
                quarantined: Part {
                    batches: 0,
                    counters: ledger.quarantined.items,
                    increments: ledger.quarantined.increments,
                },
                resolved: Part {
                    batches: resolved.len() as u64,
                    counters: resolved.iter().map(|batch| batch.counters).sum(),
                    increments: resolved.iter().map(|batch| batch.increments).sum(),
                },
                file_bytes,
                log_bytes,
            })
        })
    }

    /// Checks everything: the structure of the file, every number, every batch, resolved ones included.
    ///
    /// # Errors
    /// Something is not as it was written.
    pub fn verify(&self) -> Result<(), JournalError> {
        self.at_one_moment(|| {
            check_structure(&self.connection, &self.path)?;
            Contents::read(&self.connection, &self.path)?;
            for resolved in self.read_resolved(0)? {
                batch::read_one(&self.connection, &self.path, &resolved.id)?;
            }
            Ok(())
        })
    }

    /// Lists what was accepted and is in no batch yet, by lane.
    ///
    /// # Errors
    /// The file cannot be read, or not be believed.
    pub fn pending(&self) -> Result<Vec<(u16, Deltas)>, JournalError> {
        let pending = self.at_one_moment(|| pending::read(&self.connection, &self.path))?;
        Ok(pending.into_iter().map(|(lane, deltas, _)| (lane, deltas)).collect())
    }

    /// Lists the batches that are not known to be in the store, in the order of (epoch, lane, seq).
    ///
    /// # Errors
    /// The file cannot be read, or not be believed.
    pub fn frozen(&self) -> Result<Vec<Batch>, JournalError> {
        let frozen = self.at_one_moment(|| batch::read_frozen(&self.connection, &self.path))?;
        Ok(frozen.into_iter().map(|frozen| frozen.batch).collect())
    }

    /// Lists what could not be added to its counter, oldest first.
    ///
    /// # Errors
    /// The file cannot be read, or not be believed.
    pub fn quarantined(&self) -> Result<Vec<QuarantineEntry>, JournalError> {
        self.at_one_moment(|| quarantine::read(&self.connection, &self.path))
    }

    /// Lists the kept batches that were resolved at `since` or later, in the order in which they were frozen.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn resolved(&self, since: SystemTime) -> Result<Vec<ResolvedBatch>, JournalError> {
        let since = since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        self.at_one_moment(|| self.read_resolved(i64::try_from(since).unwrap_or(i64::MAX)))
    }

    /// Returns one batch, frozen or resolved; `None` when it is not kept.
    ///
    /// # Errors
    /// The file cannot be read, or the batch is not as it was frozen.
    pub fn batch(&self, id: &BatchId) -> Result<Option<Batch>, JournalError> {
        self.at_one_moment(|| batch::read_one(&self.connection, &self.path, id))
    }

    fn read_resolved(&self, since: i64) -> Result<Vec<ResolvedBatch>, JournalError> {
        const LIST: &str = "SELECT node, epoch, lane, seq, at, counters, increments FROM resolved
            JOIN batch ON id = batch WHERE at >= ?1 ORDER BY epoch, lane, seq, id";
        let list = || -> rusqlite::Result<Vec<ResolvedBatch>> {
            let mut statement = self.connection.prepare_cached(LIST)?;
            let rows = statement.query_map([since], |row| {
                let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
                Ok(ResolvedBatch {
                    id: batch::read_id(row)?,
                    at: UNIX_EPOCH + Duration::from_millis(row.get::<_, i64>(4)?.max(0).cast_unsigned()),
                    counters: number(5)?,
                    increments: number(6)?,
                })
            })?;
            rows.collect()
        };
        list().map_err(|error| at_open(&self.path, &error))
    }

    fn at_one_moment<T>(&self, read: impl FnOnce() -> Result<T, JournalError>) -> Result<T, JournalError> {
        let moment = self.connection.unchecked_transaction().map_err(|error| at_open(&self.path, &error))?;
        let found = read();
        // It changed nothing, so there is nothing to end but the reading.
        drop(moment);
        found
    }
}
