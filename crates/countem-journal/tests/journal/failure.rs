//! Commits that fail, or seem to: nothing is lost, nothing is counted twice, and the journal repairs itself.

use std::{sync::mpsc, time::Duration};

use countem_journal::{ErrorKind, FailPoints, Health, Journal, JournalConfig};

use crate::support::*;

fn failing(dir: &std::path::Path) -> (Journal, FailPoints) {
    let fail_points = FailPoints::default();
    let options = JournalConfig { fail_points: fail_points.clone(), ..options(dir) };
    (Journal::open(options).unwrap().0, fail_points)
}

#[test]
fn a_commit_that_took_place_and_reported_an_error_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, points) = failing(dir.path());
    let before = journal.record_blocking(record(0, [("a", 1)])).unwrap();
    points.arm("record.after=error");
    let after = journal.record_blocking(record(0, [("a", 10)])).unwrap();
    assert_eq!(after.tick, before.tick + 1);
    points.disarm();
    journal.record_blocking(record(0, [("a", 100)])).unwrap();
    assert!(journal.status().health.is_ready());
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 111, 3)]));
}

#[test]
fn a_commit_that_did_not_take_place_gives_the_record_back() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, points) = failing(dir.path());
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    points.arm("record.before=error*1");
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
fn a_full_disk_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, points) = failing(dir.path());
    points.arm("record.before=full");
    let mut record = record(0, [("a", 1)]);
    for _ in 0..3 {
        let refused = journal.record_blocking(record).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::Full);
        assert!(refused.to_string().contains("no space left on the disk"), "{refused}");
        record = refused.record;
    }
    assert!(matches!(journal.status().health, Health::Full(_)));
    points.disarm();
    journal.record_blocking(record).unwrap();
    assert!(journal.status().health.is_ready());
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 1, 1)]));
}

#[test]
fn a_disk_that_the_log_has_filled_is_helped_by_the_space_put_by() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, points) = failing(dir.path());
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    // A commit finds no space, and neither does the attempt to empty the log, until space is given up.
    points.arm("record.before=full*1,room=full*1");
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    assert!(journal.status().health.is_ready());
    journal.sync_blocking().unwrap();
    assert!(dir.path().join("journal.reserve").exists(), "space is put by again");
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 2, 2)]));
}

#[test]
fn while_a_commit_is_in_doubt_others_are_refused_and_its_caller_waits_for_the_truth() {
    for (place, took_place) in [("record.after", true), ("record.before", false)] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, points) = failing(dir.path());
        points.arm(&format!("{place}=error*1,settle=error"));
        let (answer, doubtful) = mpsc::channel();
        journal.record(record(0, [("a", 1)]), move |outcome| answer.send(outcome).unwrap());
        until(|| !journal.status().health.is_ready());
        let refused = journal.record_blocking(record(0, [("b", 1)])).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::Unavailable);
        assert!(matches!(journal.status().health, Health::Unavailable(_)));
        assert!(doubtful.try_recv().is_err(), "the truth was not known yet");
        points.disarm();
        // Nobody has to ask again: it finds out by itself.
        let outcome = doubtful.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(outcome.is_ok(), took_place, "{outcome:?}");
        journal.record_blocking(refused.record).unwrap();
        assert!(journal.status().health.is_ready());
        drop(journal);
        let mut expected = counts([("b", 1, 1)]);
        if took_place {
            expected.extend(counts([("a", 1, 1)]));
        }
        assert_eq!(recovered_counts(&open(dir.path()).1), expected);
    }
}

#[test]
fn a_journal_that_ends_in_doubt_says_so_and_the_next_opening_knows() {
    for (place, took_place) in [("record.after", true), ("record.before", false)] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, points) = failing(dir.path());
        points.arm(&format!("{place}=error*1,settle=error"));
        let (answer, doubtful) = mpsc::channel();
        journal.record(record(0, [("a", 1)]), move |outcome| answer.send(outcome).unwrap());
        drop(journal);
        assert_eq!(doubtful.recv().unwrap().unwrap_err().error.kind(), ErrorKind::InDoubt);
        let recovered = recovered_counts(&open(dir.path()).1);
        assert_eq!(recovered, if took_place { counts([("a", 1, 1)]) } else { Counts::new() });
    }
}

#[test]
fn a_freeze_that_fails_leaves_everything_pending() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, points) = failing(dir.path());
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    let one = batch(&journal.writer(), 0, 1, deltas([("a", 1)]));
    points.arm("freeze.before=error*1");
    journal.freeze_blocking(0, std::slice::from_ref(&one)).unwrap_err();
    let reader = journal.reader().unwrap();
    assert_eq!((reader.pending().unwrap().len(), reader.frozen().unwrap().len()), (1, 0));
    points.arm("freeze.after=error*1");
    journal.freeze_blocking(0, std::slice::from_ref(&one)).unwrap();
    assert_eq!((reader.pending().unwrap().len(), reader.frozen().unwrap().len()), (0, 1));
}

#[test]
fn a_resolution_is_repeated_until_it_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, points) = failing(dir.path());
    let one = batch(&journal.writer(), 0, 1, deltas([("a", 1)]));
    journal.freeze_blocking(0, std::slice::from_ref(&one)).unwrap();
    points.arm("resolve.before=error*1");
    let (answer, resolved) = mpsc::channel();
    journal.resolve(one.id(), Vec::new(), move |outcome| answer.send(outcome).unwrap());
    // The record that goes along with it fails with it, and only the record is the caller's business.
    journal.record_blocking(record(0, [("b", 1)])).unwrap_err();
    resolved.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    drop(journal);
    assert!(open(dir.path()).1.is_empty());
}

#[test]
fn a_checkpoint_that_fails_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let fail_points = FailPoints::default();
    let options =
        JournalConfig { fail_points: fail_points.clone(), max_bytes: 1 << 18, ..options(dir.path()) };
    let (journal, _) = Journal::open(options).unwrap();
    fail_points.arm("checkpoint=error");
    for _ in 0..200 {
        journal.record_blocking(record(0, [("a", 1), ("b", 2)])).unwrap();
    }
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 200, 200), ("b", 400, 200)]));
}

#[test]
fn a_callback_that_panics_harms_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record(record(0, [("a", 1)]), |_| panic!("the caller's own problem (injected)"));
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 2, 2)]));
}

#[cfg(unix)]
#[test]
fn a_journal_that_was_moved_away_acknowledges_nothing_until_it_is_back() {
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
