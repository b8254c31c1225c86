//! Failures of the writing connection.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, time::Duration};

use countem_core::{Batch, BatchId, Table, Writer};
use countem_store::{Applied, ErrorKind, StoreError};
use rusqlite::{TransactionBehavior, ffi};

use super::{connection::WriteConnection, *};
use crate::{
    SqliteConfig, Synchronous,
    open::{self, LOG_LIMIT},
};

const BUSY_TIMEOUT: Duration = Duration::from_millis(20);

fn config(folder: &Path) -> SqliteConfig {
    SqliteConfig { busy_timeout: BUSY_TIMEOUT, ..SqliteConfig::new(folder.join("countem.db")) }
}

fn connection(folder: &Path) -> WriteConnection {
    WriteConnection::open(config(folder)).unwrap()
}

fn batch(seq: u64, metrics: impl IntoIterator<Item = String>) -> Batch {
    let mut table = Table::new();
    for metric in metrics {
        table.fold("web", &metric, "2026-11-20".parse().unwrap(), 1).unwrap();
    }
    let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq };
    Batch::new(id, table.drain())
}

fn one(seq: u64) -> Batch {
    batch(seq, ["a".to_owned()])
}

fn sum(writer: &mut WriteConnection) -> i64 {
    let connection = writer.connection().unwrap();
    connection.query_row("SELECT coalesce(sum(value), 0) FROM counter", [], |row| row.get(0)).unwrap()
}

fn fsync_failure() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None)
}

#[tokio::test]
async fn panic_is_an_error_and_reopens_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let thread = WriteThread::start(config(folder.path())).unwrap();
    let (first, second) = (one(1), one(2));
    thread.ask(move |writer| writer.apply(&first)).await.unwrap();

    let error = thread
        .ask(|writer| -> Result<(), StoreError> {
            writer.connection()?.execute_batch("BEGIN IMMEDIATE; DELETE FROM counter").unwrap();
            panic!("a bug (injected)")
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InDoubt);

    thread.ask(move |writer| writer.apply(&second)).await.unwrap();
    assert_eq!(thread.ask(|writer| Ok(sum(writer))).await.unwrap(), 2);
}

#[test]
fn full_disk_applies_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = connection(folder.path());
    writer.apply(&one(1)).unwrap();
    writer.connection().unwrap().execute_batch("PRAGMA max_page_count = 8").unwrap();

    let large = batch(2, (0..10_000).map(|i| format!("metric {i}")));
    let error = writer.apply(&large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotApplied);
    assert!(error.to_string().ends_with("/countem.db`: there is no space left on the disk"), "{error}");
    assert_eq!(sum(&mut writer), 1);

    writer.connection().unwrap().execute_batch("PRAGMA max_page_count = 100000").unwrap();
    writer.apply(&large).unwrap();
    assert_eq!(sum(&mut writer), 10_001);
}

#[test]
fn commit_that_failed_without_trace_is_not_applied() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = connection(folder.path());
    writer.apply(&one(1)).unwrap();
    writer.connection().unwrap().commit_hook(Some(|| true)).unwrap();

    assert_eq!(writer.apply(&one(2)).unwrap_err().kind(), ErrorKind::Refused);
    assert!(!writer.in_doubt, "the log was emptied, so everything that can be read is on the disk");
    assert_eq!(sum(&mut writer), 1);
    writer.apply(&one(2)).unwrap();
    assert_eq!(sum(&mut writer), 2);
}

#[test]
fn failed_commit_that_took_place_is_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = connection(folder.path());
    let batch = one(1);
    writer.apply(&batch).unwrap();
    let log = folder.path().join("countem.db-wal");
    assert!(log.metadata().unwrap().len() > 0);

    // Stands for an `fsync` that failed after the commit record had been written.
    let kept_open = open::for_reading(&writer.config).unwrap();
    assert_eq!(writer.decide(batch.id(), fsync_failure()).unwrap(), Applied::default());
    assert_eq!(log.metadata().unwrap().len(), 0, "the counts are in the main file now");
    drop(kept_open);
    assert_eq!(sum(&mut writer), 1);
}

#[test]
fn found_batch_is_synced_before_it_is_acknowledged() {
    for (synchronous, looks_again) in [(Synchronous::Full, true), (Synchronous::Normal, false)] {
        let folder = tempfile::tempdir().unwrap();
        let mut writer =
            WriteConnection::open(SqliteConfig { synchronous, ..config(folder.path()) }).unwrap();
        writer.apply(&one(1)).unwrap();
        let log = folder.path().join("countem.db-wal");
        assert!(log.metadata().unwrap().len() > 0);
        // The system refuses to sync this one.
        let refusing = |writer: &mut WriteConnection| writer.file.as_mut().unwrap().log = "/dev/null".into();
        refusing(&mut writer);
        writer.apply(&one(1)).unwrap();
        assert_eq!(log.metadata().unwrap().len() == 0, looks_again, "the second look empties the log");
        assert_eq!(sum(&mut writer), 1);

        refusing(&mut writer);
        assert_eq!(writer.sync_found().is_err(), looks_again);
        assert_eq!(writer.in_doubt, looks_again);
        writer.sync_found().unwrap();
        assert!(!writer.in_doubt);
    }
}

#[test]
fn unreadable_commit_stays_in_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = connection(folder.path());
    writer.apply(&one(1)).unwrap();
    let batch = one(2);
    writer.apply(&batch).unwrap();

    // A reader in the middle of a transaction needs the log, which therefore cannot be emptied.
    let mut other = open::for_reading(&writer.config).unwrap();
    let reading = other.connection.transaction().unwrap();
    let count: i64 = reading.query_row("SELECT count(*) FROM counter", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    assert_eq!(writer.decide(batch.id(), fsync_failure()).unwrap_err().kind(), ErrorKind::InDoubt);
    assert_eq!(writer.apply(&batch).unwrap_err().kind(), ErrorKind::InDoubt, "it may not be on the disk");
    assert_eq!(writer.apply(&one(3)).unwrap_err().kind(), ErrorKind::InDoubt);

    drop(reading);
    writer.apply(&batch).unwrap();
    writer.apply(&one(3)).unwrap();
    assert_eq!(sum(&mut writer), 3);
}

#[test]
fn foreign_lock_is_waited_for_then_nothing_applied() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = connection(folder.path());
    writer.apply(&one(1)).unwrap();
    let mut other = open::for_writing(&writer.config).unwrap();
    let writing = other.connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();

    let began = std::time::Instant::now();
    let error = writer.apply(&one(2)).unwrap_err();
    assert!(began.elapsed() >= BUSY_TIMEOUT);
    assert_eq!(error.kind(), ErrorKind::NotApplied);
    assert!(error.to_string().contains("another process kept it locked"), "{error}");

    drop(writing);
    writer.apply(&one(2)).unwrap();
    assert_eq!(sum(&mut writer), 2);
}

#[test]
fn log_restarts_when_its_reader_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = connection(folder.path());
    let log = folder.path().join("countem.db-wal");
    let apply = |writer: &mut WriteConnection, seq| {
        writer.apply(&batch(seq, (0..1_000).map(|i| format!("metric {i}")))).unwrap();
        writer.shorten_log();
        log.metadata().unwrap().len()
    };
    apply(&mut writer, 1);
    let mut other = open::for_reading(&writer.config).unwrap();
    let reading = other.connection.transaction().unwrap();
    let count: i64 = reading.query_row("SELECT count(*) FROM counter", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1_000);

    writer.log_limit = 0;
    let kept = apply(&mut writer, 2);
    assert_eq!(
        writer.log_limit,
        kept * 2,
        "waiting for the reader was in vain, so it is not repeated at once"
    );
    let grown = apply(&mut writer, 3);
    assert!(grown > kept);

    drop(reading);
    writer.log_limit = 0;
    let longest = apply(&mut writer, 4);
    assert!(longest > grown);
    assert_eq!(writer.log_limit, LOG_LIMIT);
    assert_eq!(apply(&mut writer, 5), longest, "the log was begun anew");
    assert_eq!(sum(&mut writer), 5_000);
}

#[test]
fn forgetting_deletes_the_rows_of_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = connection(folder.path());
    writer.apply(&one(1)).unwrap();
    let mut table = Table::new();
    table.fold("web", "a", "2026-11-20".parse().unwrap(), 1).unwrap();
    let id = BatchId { writer: Writer::new(2, 1), lane: 3, seq: 9 };
    writer.apply(&Batch::new(id, table.drain())).unwrap();

    writer.forget(&Writer::new(1, 1)).unwrap();
    writer.forget(&Writer::new(77, 1)).unwrap();
    let connection = writer.connection().unwrap();
    let left: String =
        connection.query_row("SELECT group_concat(writer) FROM applied", [], |r| r.get(0)).unwrap();
    assert_eq!(left, Writer::new(2, 1).as_str());

    writer.apply(&one(2)).unwrap();
    let connection = writer.connection().unwrap();
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((pragma("synchronous"), pragma("wal_autocheckpoint")), (2, 4000), "FULL, and as before");
}

#[test]
fn failed_forget_leaves_the_file_in_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = connection(folder.path());
    writer.apply(&one(1)).unwrap();
    writer.connection().unwrap().commit_hook(Some(|| true)).unwrap();

    writer.forget(&Writer::new(1, 1)).unwrap_err();
    assert!(writer.in_doubt, "an `fsync` may be what failed");
    writer.apply(&one(1)).unwrap();
    assert!(!writer.in_doubt, "the log was emptied first");
    assert_eq!(sum(&mut writer), 1);
}

/// Counts in a file, keeps it under a second name, and puts the file of another store at its place.
#[cfg(unix)]
fn replaced(folder: &Path) -> WriteConnection {
    let mut writer = connection(folder);
    writer.apply(&one(1)).unwrap();
    std::fs::create_dir(folder.join("other")).unwrap();
    let mut other = connection(&folder.join("other"));
    let mut table = Table::new();
    table.fold("web", "other", "2026-11-20".parse().unwrap(), 7).unwrap();
    other.apply(&Batch::new(BatchId { writer: Writer::new(9, 1), lane: 0, seq: 1 }, table.drain())).unwrap();
    drop(other);
    std::fs::hard_link(folder.join("countem.db"), folder.join("kept.db")).unwrap();
    std::fs::rename(folder.join("other/countem.db"), folder.join("countem.db")).unwrap();
    writer
}

#[cfg(unix)]
fn counters_in(file: &Path) -> Vec<(String, i64)> {
    let file = rusqlite::Connection::open(file).unwrap();
    let sound: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let mut select = file.prepare("SELECT metric, value FROM counter ORDER BY metric").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[cfg(unix)]
#[test]
fn replaced_file_is_refused_and_undamaged() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = replaced(folder.path());
    let error = writer.apply(&one(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotApplied);
    assert!(error.to_string().contains("another file has taken its place"), "{error}");
    drop(writer);
    assert!(!folder.path().join("countem.db-wal").exists());
    assert_eq!(counters_in(&folder.path().join("countem.db")), [("other".to_owned(), 7)]);
    assert_eq!(
        counters_in(&folder.path().join("kept.db")),
        [("a".to_owned(), 1)],
        "with what was in the log"
    );
}

#[cfg(unix)]
#[test]
fn moved_file_is_refused_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = connection(folder.path());
    writer.apply(&one(1)).unwrap();
    let [here, there] = ["countem.db", "old.db"].map(|name| folder.path().join(name));
    std::fs::rename(&here, &there).unwrap();
    let error = writer.apply(&one(2)).unwrap_err();
    assert!(error.to_string().contains("moved or deleted"), "{error}");
    assert!(!here.exists(), "no other file is made in its place");
    std::fs::rename(&there, &here).unwrap();
    writer.apply(&one(2)).unwrap();
    assert_eq!(sum(&mut writer), 2);
}

#[cfg(unix)]
#[test]
fn cut_off_or_overwritten_file_is_refused() {
    for cuts in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = connection(folder.path());
        writer.apply(&one(1)).unwrap();
        writer.file.as_ref().unwrap().empty_log().unwrap();
        let file = folder.path().join("countem.db");
        let older = std::fs::read(&file).unwrap();
        for seq in 2..10 {
            writer.apply(&batch(seq, (0..100).map(|i| format!("metric {seq} {i}")))).unwrap();
            writer.file.as_ref().unwrap().empty_log().unwrap();
        }
        writer.apply(&one(10)).unwrap();
        // The same file gets other content, as by a shell's redirection or `cp`.
        std::fs::write(&file, if cuts { &[] } else { &older[..] }).unwrap();
        let error = writer.apply(&one(11)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotApplied);
        assert!(error.to_string().contains("cut off or replaced"), "{error}");
        drop(writer);
        assert_eq!(std::fs::read(&file).unwrap(), if cuts { Vec::new() } else { older }, "left as it is");
        assert!(folder.path().join("countem.db-wal.displaced").exists());
    }
}
