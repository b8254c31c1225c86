//! Adding a batch to a SQLite file, each batch waiting for the disk.

use std::{
    env,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use countem::{
    Bucket,
    store::{Batch, BatchId, Store, Writer},
};
use countem_core::Table;
use countem_store_sqlite::{SqliteConfig, SqliteStore};
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    step::Step,
    subject,
    workload::{COLLECTION, names},
};

/// The day on which everything is counted.
const DAY: &str = "2026-11-20";

/// Lets a `SqliteStore` apply batches of counters that exist already, at `synchronous = FULL`.
#[derive(Debug)]
pub struct StoreFlush {
    // Dropped in this order: the file is closed before its folder goes.
    store: SqliteStore,
    runtime: Runtime,
    _folder: TempDir,
    names: Arc<[String]>,
    seq: u64,
    day: Bucket,
}

/// The same additions in one hand-written transaction: same pragmas and table, but on the calling thread, and a lost
/// reply would count twice.
#[derive(Debug)]
pub struct HandWritten {
    connection: Connection,
    _folder: TempDir,
    names: Arc<[String]>,
}

/// Returns a folder beside this program: the disk of the target folder, where `/tmp` may be memory.
pub(crate) fn folder() -> Result<TempDir> {
    let program = env::current_exe().context("cannot find this program")?;
    let beside = program.parent().unwrap_or(Path::new("."));
    tempfile::tempdir_in(beside).with_context(|| format!("cannot make a folder in `{}`", beside.display()))
}

impl StoreFlush {
    /// Makes a file with `counters` counters.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(counters: usize) -> Result<Self> {
        let folder = folder()?;
        let store = SqliteStore::open(SqliteConfig::new(folder.path().join("countem.db")))?;
        let (names, runtime) = (names(counters), subject::runtime());
        let mut flush = Self { store, runtime, _folder: folder, names, seq: 0, day: DAY.parse()? };
        flush.time();
        Ok(flush)
    }

    fn batch(&mut self) -> Arc<Batch> {
        let mut table = Table::new();
        for name in &*self.names {
            table.fold(COLLECTION, name, self.day, 3).expect("the names of the workload are valid");
        }
        self.seq += 1;
        Arc::new(Batch::new(BatchId { writer: Writer::new(1, 1), lane: 0, seq: self.seq }, table.drain()))
    }
}

impl HandWritten {
    /// Makes a file with `counters` counters.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(counters: usize) -> Result<Self> {
        let folder = folder()?;
        let connection = Connection::open(folder.path().join("hand-written.db"))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             CREATE TABLE counter (
                 collection TEXT NOT NULL, bucket TEXT NOT NULL, metric TEXT NOT NULL, value INTEGER NOT NULL,
                 PRIMARY KEY (collection, bucket, metric)
             ) STRICT, WITHOUT ROWID;",
        )?;
        let mut written = Self { connection, _folder: folder, names: names(counters) };
        written.add()?;
        Ok(written)
    }

    fn add(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut add = transaction.prepare_cached(
            "INSERT INTO counter (collection, bucket, metric, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET value = value + excluded.value",
        )?;
        for name in &*self.names {
            add.execute(params![COLLECTION, DAY, name, 3])?;
        }
        drop(add);
        transaction.commit()
    }
}

impl Step for StoreFlush {
    fn label(&self) -> String {
        format!("countem adds a batch to {} counters in SQLite", self.names.len())
    }

    fn time(&mut self) -> Duration {
        let batch = self.batch();
        let began = Instant::now();
        let applied = self.runtime.block_on(self.store.apply(&batch)).expect("the file can be written");
        let took = began.elapsed();
        assert!(applied.quarantined.is_empty(), "no counter overflows");
        took
    }
}

impl Step for HandWritten {
    fn label(&self) -> String {
        format!("hand-written transaction over {} counters", self.names.len())
    }

    fn time(&mut self) -> Duration {
        let began = Instant::now();
        self.add().expect("the file can be written");
        began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use countem::{CollectionName, store::RowQuery};

    use super::*;

    #[test]
    fn both_ways_store_what_they_are_timed_for() {
        let mut ours = StoreFlush::open(10).unwrap();
        let mut written = HandWritten::open(10).unwrap();
        ours.time();
        written.time();
        let query = RowQuery::bucket(CollectionName::new(COLLECTION).unwrap(), ours.day);
        let rows = ours.runtime.block_on(ours.store.read(&query, None)).unwrap();
        assert_eq!(rows[&ours.day].values().map(Result::unwrap).sum::<i64>(), 2 * 10 * 3);
        let sum =
            written.connection.query_row("SELECT sum(value) FROM counter", [], |row| row.get::<_, i64>(0));
        assert_eq!(sum.unwrap(), 2 * 10 * 3);
    }
}
