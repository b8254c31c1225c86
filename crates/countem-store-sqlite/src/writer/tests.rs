//! What whoever writes does when something fails that it cannot help.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, time::Duration};

use countem_core::{Batch, Table};
use rusqlite::ffi;

use super::*;
use crate::Synchronous;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
use crate::turn::{Turns, tests::until_queued};

const PATIENCE: Duration = Duration::from_millis(20);

fn options(folder: &Path) -> SqliteConfig {
    SqliteConfig { busy_timeout: PATIENCE, ..SqliteConfig::new(folder.join("countem.db")) }
}

fn session(folder: &Path) -> Session {
    Session::new(options(folder))
}

fn batch(seq: u64, metrics: impl IntoIterator<Item = String>) -> OwnedBatch {
    let mut table = Table::new();
    for metric in metrics {
        table.fold("web", &metric, "2026-11-20".parse().unwrap(), 1).unwrap();
    }
    let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq };
    OwnedBatch::new(&Batch::new(id, table.drain()))
}

fn one(seq: u64) -> OwnedBatch {
    batch(seq, ["a".to_owned()])
}

fn sum(session: &mut Session) -> i64 {
    let connection = session.connection().unwrap();
    connection.query_row("SELECT coalesce(sum(value), 0) FROM counter", [], |row| row.get(0)).unwrap()
}

fn fsync_failure() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None)
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_next_call_opens_the_file_anew() {
    for one_shot in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let worker = WriteWorker::start(SqliteConfig { one_shot, ..options(folder.path()) }).unwrap();
        let (first, second) = (one(1), one(2));
        worker.ask(move |session| session.apply(&first)).await.unwrap();

        let error = worker
            .ask(|session| -> Result<(), StoreError> {
                session.connection()?.execute_batch("BEGIN IMMEDIATE; DELETE FROM counter").unwrap();
                panic!("a bug (injected)")
            })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InDoubt);

        worker.ask(move |session| session.apply(&second)).await.unwrap();
        assert_eq!(worker.ask(|session| Ok(sum(session))).await.unwrap(), 2);
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[tokio::test]
async fn a_one_shot_keeps_its_turn_until_it_closes_unless_something_fails() {
    for (one_shot, places) in [(false, 0), (true, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("countem.db-wal");
        let options = SqliteConfig { one_shot, ..options(folder.path()) };
        let worker = WriteWorker::start(options.clone()).unwrap();
        let (first, second, again) = (one(1), one(2), one(2));
        worker.ask(move |session| session.apply(&first)).await.unwrap();
        until_queued(&log, places);

        let mut other = OpenFile::for_writing(&options).unwrap();
        let writing = other.connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let failed = worker.ask(move |session| session.apply(&second)).await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::NotApplied);
        until_queued(&log, 0);

        drop(writing);
        worker.ask(move |session| session.apply(&again)).await.unwrap();
        until_queued(&log, places);
        drop(worker);
        until_queued(&log, 0);
    }
}

#[test]
fn a_full_disk_applies_nothing_and_the_same_batch_fits_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(folder.path());
    session.apply(&one(1)).unwrap();
    session.connection().unwrap().execute_batch("PRAGMA max_page_count = 8").unwrap();

    let large = batch(2, (0..10_000).map(|i| format!("metric {i}")));
    let error = session.apply(&large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotApplied);
    assert!(error.to_string().ends_with("/countem.db`: there is no space left"), "{error}");
    assert_eq!(sum(&mut session), 1);

    session.connection().unwrap().execute_batch("PRAGMA max_page_count = 100000").unwrap();
    session.apply(&large).unwrap();
    assert_eq!(sum(&mut session), 10_001);
}

#[test]
fn a_commit_that_failed_without_a_trace_is_not_applied() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(folder.path());
    session.apply(&one(1)).unwrap();
    session.connection().unwrap().commit_hook(Some(|| true)).unwrap();

    assert_eq!(session.apply(&one(2)).unwrap_err().kind(), ErrorKind::Refused);
    assert!(!session.suspect, "the log was emptied, so everything that can be read is on the disk");
    assert_eq!(sum(&mut session), 1);
    session.apply(&one(2)).unwrap();
    assert_eq!(sum(&mut session), 2);
}

#[test]
fn a_commit_that_took_place_although_it_failed_is_applied_and_written_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(folder.path());
    let batch = one(1);
    session.apply(&batch).unwrap();
    let log = folder.path().join("countem.db-wal");
    assert!(log.metadata().unwrap().len() > 0);

    // Stands for an `fsync` that failed after the commit record had been written.
    let kept_open = OpenFile::for_reading(&session.options).unwrap();
    assert_eq!(session.decide(batch.id(), fsync_failure()).unwrap(), Applied::default());
    assert_eq!(log.metadata().unwrap().len(), 0, "the counts are in the main file now");
    drop(kept_open);
    assert_eq!(sum(&mut session), 1);
}

#[test]
fn what_is_found_waits_for_the_disk_unless_it_is_told_not_to_and_a_failure_of_that_leads_to_a_second_look() {
    for (synchronous, looks_again) in [(Synchronous::Full, true), (Synchronous::Normal, false)] {
        let folder = tempfile::tempdir().unwrap();
        let mut session = Session::new(SqliteConfig { synchronous, ..options(folder.path()) });
        session.apply(&one(1)).unwrap();
        let log = folder.path().join("countem.db-wal");
        assert!(log.metadata().unwrap().len() > 0);
        // The system refuses to sync this one.
        let refusing = |session: &mut Session| session.file.as_mut().unwrap().log = "/dev/null".into();
        refusing(&mut session);
        session.apply(&one(1)).unwrap();
        assert_eq!(log.metadata().unwrap().len() == 0, looks_again, "the second look empties the log");
        assert_eq!(sum(&mut session), 1);

        refusing(&mut session);
        assert_eq!(session.keep_found().is_err(), looks_again);
        assert_eq!(session.suspect, looks_again);
        session.keep_found().unwrap();
        assert!(!session.suspect);
    }
}

#[test]
fn a_commit_about_which_nothing_can_be_known_is_in_doubt_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(folder.path());
    session.apply(&one(1)).unwrap();
    let batch = one(2);
    session.apply(&batch).unwrap();

    // A reader in the middle of a transaction needs the log, which therefore cannot be emptied.
    let mut other = OpenFile::for_reading(&session.options).unwrap();
    let reading = other.connection.transaction().unwrap();
    let count: i64 = reading.query_row("SELECT count(*) FROM counter", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    assert_eq!(session.decide(batch.id(), fsync_failure()).unwrap_err().kind(), ErrorKind::InDoubt);
    assert_eq!(session.apply(&batch).unwrap_err().kind(), ErrorKind::InDoubt, "it may not be on the disk");
    assert_eq!(session.apply(&one(3)).unwrap_err().kind(), ErrorKind::InDoubt);

    drop(reading);
    session.apply(&batch).unwrap();
    session.apply(&one(3)).unwrap();
    assert_eq!(sum(&mut session), 3);
}

#[test]
fn a_lock_that_others_hold_is_waited_for_and_then_nothing_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(folder.path());
    session.apply(&one(1)).unwrap();
    let mut other = OpenFile::for_writing(&session.options).unwrap();
    let writing = other.connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();

    let began = std::time::Instant::now();
    let error = session.apply(&one(2)).unwrap_err();
    assert!(began.elapsed() >= PATIENCE);
    assert_eq!(error.kind(), ErrorKind::NotApplied);
    assert!(error.to_string().contains("another process kept it locked"), "{error}");

    drop(writing);
    session.apply(&one(2)).unwrap();
    assert_eq!(sum(&mut session), 2);
}

#[test]
fn a_log_that_a_reader_keeps_growing_starts_anew_when_the_reader_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(folder.path());
    let log = folder.path().join("countem.db-wal");
    let apply = |session: &mut Session, seq| {
        session.apply(&batch(seq, (0..1_000).map(|i| format!("metric {i}")))).unwrap();
        session.shorten_log();
        log.metadata().unwrap().len()
    };
    apply(&mut session, 1);
    let mut other = OpenFile::for_reading(&session.options).unwrap();
    let reading = other.connection.transaction().unwrap();
    let count: i64 = reading.query_row("SELECT count(*) FROM counter", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1_000);

    session.log_limit = 0;
    let kept = apply(&mut session, 2);
    assert_eq!(
        session.log_limit,
        kept * 2,
        "waiting for the reader was in vain, so it is not repeated at once"
    );
    let grown = apply(&mut session, 3);
    assert!(grown > kept);

    drop(reading);
    session.log_limit = 0;
    let longest = apply(&mut session, 4);
    assert!(longest > grown);
    assert_eq!(session.log_limit, LOG_LIMIT);
    assert_eq!(apply(&mut session, 5), longest, "the log was begun anew");
    assert_eq!(sum(&mut session), 5_000);
}

#[test]
fn retiring_takes_the_rows_of_the_writer_only_and_commits_go_on_waiting_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(folder.path());
    session.apply(&one(1)).unwrap();
    let mut table = Table::new();
    table.fold("web", "a", "2026-11-20".parse().unwrap(), 1).unwrap();
    let id = BatchId { writer: Writer::new(2, 1), lane: 3, seq: 9 };
    session.apply(&OwnedBatch::new(&Batch::new(id, table.drain()))).unwrap();

    session.forget(&Writer::new(1, 1)).unwrap();
    session.forget(&Writer::new(77, 1)).unwrap();
    let connection = session.connection().unwrap();
    let left: String =
        connection.query_row("SELECT group_concat(writer) FROM applied", [], |r| r.get(0)).unwrap();
    assert_eq!(left, Writer::new(2, 1).as_str());

    session.apply(&one(2)).unwrap();
    let connection = session.connection().unwrap();
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((pragma("synchronous"), pragma("wal_autocheckpoint")), (2, 4000), "FULL, and as before");
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn a_connection_waits_for_its_turn_to_close() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("countem.db-wal");
    let patient = SqliteConfig { busy_timeout: Duration::from_secs(60), ..options(folder.path()) };
    let mut session = Session::new(patient);
    session.apply(&one(1)).unwrap();
    session.end_turn();
    let mut other = Turns::new(Duration::from_secs(1));
    other.begin(&log);
    let closing = std::thread::spawn(move || drop(session));
    until_queued(&log, 2);
    other.end();
    closing.join().unwrap();
    assert!(!log.exists(), "closing tidies up");
}

#[cfg(unix)]
#[test]
fn the_log_is_beside_the_file_that_a_link_leads_to_also_when_the_link_was_first() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder.path().join("real.db"), folder.path().join("countem.db")).unwrap();
    let mut session = session(folder.path());
    session.apply(&one(1)).unwrap();
    let log = &session.file.as_ref().unwrap().log;
    assert!(log.ends_with("real.db-wal") && log.exists(), "{}", log.display());
}

#[cfg(unix)]
#[test]
fn counts_never_go_to_a_file_that_was_moved_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(folder.path());
    session.apply(&one(1)).unwrap();
    // Another connection keeps the log alive, so that closing alone would not put it into the moved file.
    let reader = OpenFile::for_reading(&session.options).unwrap();
    std::fs::rename(folder.path().join("countem.db"), folder.path().join("old.db")).unwrap();
    assert!(!reader.is_current());

    session.apply(&one(2)).unwrap();
    assert_eq!(sum(&mut session), 1, "the new file has what was counted since");
    drop((reader, session));
    let old = rusqlite::Connection::open(folder.path().join("old.db")).unwrap();
    assert_eq!(old.query_row("SELECT value FROM counter", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}
