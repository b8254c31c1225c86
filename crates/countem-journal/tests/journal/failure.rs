//! Commits that fail, or seem to: nothing is lost, nothing is counted twice, and the journal recovers by itself.
//!
//! Shows G13.

use std::{sync::mpsc, time::Duration};

use countem_journal::{
    ErrorKind, Health, Journal, JournalConfig,
    fail_points::{arm, disarm},
};

use crate::support::*;

#[test]
fn committed_record_that_reported_an_error_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let before = journal.record_blocking(record(0, [("a", 1)])).unwrap();
    arm(dir.path(), "record.after=return(error)");
    let after = journal.record_blocking(record(0, [("a", 10)])).unwrap();
    assert_eq!(after.tick, before.tick + 1);
    disarm(dir.path());
    journal.record_blocking(record(0, [("a", 100)])).unwrap();
    assert!(journal.status().health.is_ready());
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 111, 3)]));
}

#[test]
fn failed_commit_gives_the_record_back() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    arm(dir.path(), "record.before=1*return(error)");
    let refused = journal.record_blocking(record(0, [("a", 10)])).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("cannot commit to"), "{refused}");
    assert!(!journal.status().health.is_ready());
    journal.record_blocking(refused.record).unwrap();
    assert!(journal.status().health.is_ready());
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 11, 2)]));
}

#[test]
fn full_disk_refuses_records_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    arm(dir.path(), "record.before=return(full)");
    let mut record = record(0, [("a", 1)]);
    for _ in 0..3 {
        let refused = journal.record_blocking(record).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::Full);
        assert!(refused.to_string().contains("no space left on the disk"), "{refused}");
        record = refused.record;
    }
    assert!(matches!(journal.status().health, Health::Full(_)));
    disarm(dir.path());
    journal.record_blocking(record).unwrap();
    assert!(journal.status().health.is_ready());
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 1, 1)]));
}

#[test]
fn reserve_frees_a_disk_filled_by_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    // Neither a commit nor the attempt to empty the log finds space until the reserve is released.
    arm(dir.path(), "record.before=1*return(full);room=1*return(full)");
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    assert!(journal.status().health.is_ready());
    journal.sync_blocking().unwrap();
    assert!(dir.path().join("journal.reserve").exists(), "the reserve is allocated again");
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 2, 2)]));
}

#[test]
fn record_in_doubt_waits_for_the_outcome() {
    for (point, is_committed) in [("record.after", true), ("record.before", false)] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        arm(dir.path(), &format!("{point}=1*return(error);outcome=return(error)"));
        let (answer, in_doubt) = mpsc::channel();
        journal.record(record(0, [("a", 1)]), move |outcome| answer.send(outcome).unwrap());
        until(|| !journal.status().health.is_ready());
        let refused = journal.record_blocking(record(0, [("b", 1)])).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::Unavailable);
        assert!(matches!(journal.status().health, Health::Unavailable(_)));
        assert!(in_doubt.try_recv().is_err(), "the outcome was not known yet");
        disarm(dir.path());
        // The journal finds out by itself.
        let outcome = in_doubt.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(outcome.is_ok(), is_committed, "{outcome:?}");
        journal.record_blocking(refused.record).unwrap();
        assert!(journal.status().health.is_ready());
        drop(journal);
        let mut expected = counts([("b", 1, 1)]);
        if is_committed {
            expected.extend(counts([("a", 1, 1)]));
        }
        assert_eq!(recovered_counts(&open(dir.path()).1), expected);
    }
}

#[test]
fn next_opening_tells_outcome_of_commit_in_doubt() {
    for (point, is_committed) in [("record.after", true), ("record.before", false)] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        arm(dir.path(), &format!("{point}=1*return(error);outcome=return(error)"));
        let (answer, in_doubt) = mpsc::channel();
        journal.record(record(0, [("a", 1)]), move |outcome| answer.send(outcome).unwrap());
        drop(journal);
        assert_eq!(in_doubt.recv().unwrap().unwrap_err().error.kind(), ErrorKind::InDoubt);
        let recovered = recovered_counts(&open(dir.path()).1);
        assert_eq!(recovered, if is_committed { counts([("a", 1, 1)]) } else { Counts::new() });
    }
}

#[test]
fn failed_freeze_leaves_everything_pending() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    let one = batch(&journal.writer(), 0, 1, deltas([("a", 1)]));
    arm(dir.path(), "freeze.before=1*return(error)");
    journal.freeze_blocking(0, std::slice::from_ref(&one)).unwrap_err();
    let reader = journal.reader().unwrap();
    assert_eq!((reader.pending().unwrap().len(), reader.frozen().unwrap().len()), (1, 0));
    arm(dir.path(), "freeze.after=1*return(error)");
    journal.freeze_blocking(0, std::slice::from_ref(&one)).unwrap();
    assert_eq!((reader.pending().unwrap().len(), reader.frozen().unwrap().len()), (0, 1));
}

#[test]
fn resolution_is_repeated_until_it_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let one = batch(&journal.writer(), 0, 1, deltas([("a", 1)]));
    journal.freeze_blocking(0, std::slice::from_ref(&one)).unwrap();
    arm(dir.path(), "resolve.before=1*return(error)");
    let (answer, resolved) = mpsc::channel();
    journal.resolve(one.id(), Vec::new(), move |outcome| answer.send(outcome).unwrap());
    // The record in the same transaction fails with it, and is not repeated.
    journal.record_blocking(record(0, [("b", 1)])).unwrap_err();
    resolved.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    drop(journal);
    assert!(open(dir.path()).1.is_empty());
}

#[test]
fn failed_checkpoint_is_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(JournalConfig { max_bytes: 1 << 18, ..config(dir.path()) }).unwrap();
    arm(dir.path(), "checkpoint=return(error)");
    for _ in 0..200 {
        journal.record_blocking(record(0, [("a", 1), ("b", 2)])).unwrap();
    }
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 200, 200), ("b", 400, 200)]));
}

#[test]
fn panicking_callback_harms_no_other_request() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record(record(0, [("a", 1)]), |_| panic!("injected"));
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 2, 2)]));
}

#[cfg(unix)]
#[test]
fn moved_journal_acknowledges_nothing_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    let away = dir.path().join("away.db");
    std::fs::rename(file(dir.path()), &away).unwrap();
    let refused = journal.record_blocking(record(0, [("a", 10)])).unwrap_err();
    assert!(refused.to_string().contains("was moved or deleted"), "{refused}");
    std::fs::rename(&away, file(dir.path())).unwrap();
    journal.record_blocking(refused.record).unwrap();
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 11, 2)]));
}
