//! Reading a journal without changing it, also while another process writes to it.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use countem_core::{Batch, BatchId, Deltas, Writer};
use countem_sqlite::OpenFile;

use crate::{
    disk::file::{BUSY_TIMEOUT, JOURNAL, sizes},
    error::{JournalError, ReadError},
    keyed::KeyedEntry,
    quarantine::QuarantineEntry,
    tables::{
        batches,
        contents::Contents,
        keyed, pending, quarantine,
        schema::{Recognised, check_structure, recognise},
    },
};

/// A journal that is open for reading only. Each call sees the journal as of one moment.
#[derive(Debug)]
pub struct JournalReader {
    file: OpenFile,
    path: PathBuf,
}

/// Statistics: how many counts of a journal are pending, frozen, quarantined and resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The identity under which batches are frozen, or were when it was last open.
    pub writer: Writer,
    /// Number of lanes with which the content was recorded.
    pub lanes: u16,
    /// Number of the newest transaction.
    pub tick: u64,
    /// Deltas accepted and in no batch yet.
    pub pending: Part,
    /// Batches frozen and not known to be in the store.
    pub frozen: Part,
    /// Deltas that could not be added to their counter.
    pub quarantined: Part,
    /// Deltas of requests with idempotency keys that are not decided; not counted yet.
    pub undecided: Part,
    /// Batches in the store that are kept for a while.
    pub resolved: Part,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Size of the write-ahead log in bytes.
    pub log_bytes: u64,
}

/// One part of a journal's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// Number of batches or requests; zero for pending and quarantined deltas.
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
    /// Wall-clock time at which it was resolved.
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
        let open = || -> Result<_, ReadError> {
            let file = OpenFile::for_reading(&path, BUSY_TIMEOUT)?;
            Ok((recognise(&file.connection)?, file))
        };
        match open().map_err(|error| error.of(&path))? {
            (Recognised::Journal, file) => Ok(Self { file, path }),
            (Recognised::Older(version), _) => Err(JournalError::refused(
                &path,
                format_args!(
                    "an earlier countem wrote it (version {version} of the tables); starting on it once brings it up to date"
                ),
            )),
            (Recognised::Empty, _) => Err(JournalError::refused(&path, "it is empty")),
        }
    }

    /// Returns how many counts are pending, frozen, quarantined and resolved.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn summary(&self) -> Result<Summary, JournalError> {
        self.at_one_moment(|| {
            let contents = Contents::read(&self.file.connection)?;
            let state = &contents.state;
            let resolved = self.read_resolved(0)?;
            let (file_bytes, log_bytes) = sizes(&self.path);
            let pending = contents.pending.iter().map(|(_, deltas)| deltas.len() as u64).sum();
            Ok(Summary {
                writer: state.writer(),
                lanes: state.lanes,
                tick: state.tick,
                pending: Part { batches: 0, counters: pending, increments: state.pending_increments() },
                frozen: Part {
                    batches: state.frozen.items,
                    counters: contents.frozen.iter().map(|frozen| frozen.batch.len() as u64).sum(),
                    increments: state.frozen.increments,
                },
                quarantined: Part {
                    batches: 0,
                    counters: state.quarantined.items,
                    increments: state.quarantined.increments,
                },
                undecided: Part {
                    batches: contents.keyed.len() as u64,
                    counters: contents.keyed.iter().map(|entry| entry.counts.len() as u64).sum(),
                    increments: state.keyed.map_or(0, |keyed| keyed.increments),
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

    /// Checks the structure of the file, every number and every batch, including resolved ones.
    ///
    /// # Errors
    /// The content differs from what was written.
    pub fn verify(&self) -> Result<(), JournalError> {
        self.at_one_moment(|| {
            check_structure(&self.file.connection)?;
            Contents::read(&self.file.connection)?;
            for resolved in self.read_resolved(0)? {
                batches::read_one(&self.file.connection, &resolved.id)?;
            }
            Ok(())
        })
    }

    /// Lists the deltas that were accepted and are in no batch yet, by lane.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn pending(&self) -> Result<Vec<(u16, Deltas)>, JournalError> {
        let pending = self.at_one_moment(|| pending::read(&self.file.connection))?;
        Ok(pending.into_iter().map(|(lane, deltas, _)| (lane, deltas)).collect())
    }

    /// Lists the batches that are not known to be in the store, in the order of (epoch, lane, seq).
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn frozen(&self) -> Result<Vec<Batch>, JournalError> {
        let frozen = self.at_one_moment(|| batches::read_frozen(&self.file.connection))?;
        Ok(frozen.into_iter().map(|frozen| frozen.batch).collect())
    }

    /// Lists the requests with idempotency keys that are not decided.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn undecided(&self) -> Result<Vec<KeyedEntry>, JournalError> {
        let entries = self.at_one_moment(|| keyed::read(&self.file.connection))?;
        Ok(entries.into_iter().map(|(entry, _)| entry).collect())
    }

    /// Lists the deltas that could not be added to their counter, oldest first.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn quarantined(&self) -> Result<Vec<QuarantineEntry>, JournalError> {
        self.at_one_moment(|| quarantine::read(&self.file.connection))
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
        self.at_one_moment(|| batches::read_one(&self.file.connection, id))
    }

    fn read_resolved(&self, since: i64) -> Result<Vec<ResolvedBatch>, ReadError> {
        const LIST: &str =
            "SELECT node, epoch, lane, seq, incarnation, at, counters, increments FROM resolved
            JOIN batch ON id = batch WHERE at >= ?1 ORDER BY epoch, lane, seq, id";
        let mut statement = self.file.connection.prepare_cached(LIST)?;
        let rows = statement.query_map([since], |row| {
            let number = |at: usize| row.get::<_, i64>(at).map(i64::cast_unsigned);
            Ok(ResolvedBatch {
                id: batches::read_id(row)?,
                at: UNIX_EPOCH + Duration::from_millis(row.get::<_, i64>(5)?.max(0).cast_unsigned()),
                counters: number(6)?,
                increments: number(7)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn at_one_moment<T>(&self, read: impl FnOnce() -> Result<T, ReadError>) -> Result<T, JournalError> {
        let read = || {
            let _moment = self.file.connection.unchecked_transaction()?;
            read()
        };
        read().map_err(|error| error.of(&self.path))
    }
}
