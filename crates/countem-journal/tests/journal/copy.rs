//! A copied directory is noticed, and nothing is counted twice because of it.
//!
//! Shows G14.

use countem_journal::{CopiedPending, Journal, JournalConfig, Origin};

use crate::support::*;

/// Tells whether the file system remembers when a file was created, without which a copy looks like its original.
fn remembers_creation(dir: &std::path::Path) -> bool {
    let known = std::fs::metadata(file(dir)).unwrap().created().is_ok();
    if !known {
        eprintln!(
            "!!! this file system does not remember when files were created: copies cannot be told from originals"
        );
    }
    known
}

#[test]
fn copy_counts_under_its_own_identity() {
    let dir = tempfile::tempdir().unwrap();
    let (original, copy) = (dir.path().join("original"), dir.path().join("copy"));
    let (journal, _) = open(&original);
    let writer = journal.writer();
    let frozen = batch(&writer, 0, 1, deltas([("frozen", 1)]));
    journal.freeze_blocking(0, std::slice::from_ref(&frozen)).unwrap();
    journal.record_blocking(record(0, [("pending", 5)])).unwrap();
    drop(journal);
    crash_copy(&original, &copy);
    if !remembers_creation(&copy) {
        return;
    }

    let (here, at_original) = open(&original);
    let (there, at_copy) = open(&copy);
    assert_eq!((at_original.origin, at_copy.origin), (Origin::Same, Origin::Copied));
    // New batches of the two can never be mistaken for each other, and those of the copy sort after the old ones.
    assert_eq!(here.writer().node(), writer.node());
    assert_ne!(there.writer().node(), writer.node());
    assert!(there.writer().epoch() > writer.epoch());
    // Both send the frozen batch under one identity with the same bytes: the store counts it once.
    assert_eq!(at_original.frozen[0].encode(), frozen.encode());
    assert_eq!(at_copy.frozen[0].encode(), frozen.encode());
    // Only one of them counts what was pending; the other one keeps it for a person.
    assert_eq!(at_original.pending_totals().n, 5);
    assert!(at_copy.pending.is_empty());
    assert_eq!(at_copy.quarantined_now, 1);
    assert_eq!(at_copy.quarantined_totals().n, 5);
    assert!(at_copy.quarantined[0].quarantined.reason.contains("copied"), "{at_copy:?}");

    // The copy has made itself at home.
    drop(there);
    let (again, recovered) = open(&copy);
    assert_eq!(recovered.origin, Origin::Same);
    assert_eq!(recovered.quarantined_now, 0);
    assert!(again.writer().epoch() > writer.epoch() + 1);
}

#[test]
fn moved_directory_is_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let (journal, _) = open(&from);
    let node = journal.writer().node();
    journal.record_blocking(record(0, [("pending", 5)])).unwrap();
    drop(journal);
    std::fs::rename(&from, &to).unwrap();
    let (journal, recovered) = open(&to);
    assert_eq!(recovered.origin, Origin::Same);
    assert_eq!(journal.writer().node(), node);
    assert_eq!(recovered.pending_totals().n, 5);
}

#[test]
fn pending_deltas_of_a_copy_can_be_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (original, copy) = (dir.path().join("original"), dir.path().join("copy"));
    let (journal, _) = open(&original);
    journal.record_blocking(record(0, [("pending", 5)])).unwrap();
    drop(journal);
    crash_copy(&original, &copy);
    let counting = JournalConfig { copied_pending: CopiedPending::Count, ..config(&copy) };
    let (_journal, recovered) = Journal::open(counting).unwrap();
    assert_eq!(recovered_counts(&recovered), counts([("pending", 5, 1)]));
    assert!(recovered.quarantined.is_empty());
}

#[test]
fn fresh_identity_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let before = journal.writer();
    journal.freeze_blocking(0, &[batch(&before, 0, 1, deltas([("a", 1)]))]).unwrap();
    let fresh = journal.fresh_identity_blocking().unwrap();
    assert_eq!(journal.writer(), fresh);
    assert_ne!(fresh.node(), before.node());
    assert!(fresh.epoch() > before.epoch());
    journal.freeze_blocking(0, &[batch(&fresh, 0, 1, deltas([("a", 2)]))]).unwrap();
    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(journal.writer().node(), fresh.node());
    assert!(journal.writer().epoch() > fresh.epoch());
    let writers: Vec<_> = recovered.frozen.iter().map(|batch| batch.id().writer.clone()).collect();
    assert_eq!(writers, [before, fresh]);
}
