//! Reading a journal from outside.

use countem_journal::{ErrorKind, JournalReader, Part, Quarantined, Record};

use crate::support::*;

#[test]
fn summary_reads_a_journal_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record_blocking(record(0, [("a", 5), ("b", 1)])).unwrap();
    let delta = countem_core::Delta { collection: "web", metric: "q", bucket: day(), n: 1, increments: 4 };
    let quarantined = vec![Quarantined::new(delta, "no number")];
    journal.record_blocking(Record { quarantined, ..Record::default() }).unwrap();
    let stored = batch(&journal.writer(), 1, 1, deltas([("c", 1)]));
    let frozen = batch(&journal.writer(), 1, 2, deltas([("c", 1), ("d", 1), ("e", 1)]));
    let id = stored.id().clone();
    journal.freeze_blocking(1, &[stored, frozen]).unwrap();
    journal.resolve_blocking(&id, Vec::new()).unwrap();

    let reader = JournalReader::open(dir.path()).unwrap();
    let summary = reader.summary().unwrap();
    assert_eq!(summary.writer, journal.writer());
    assert_eq!(summary.tick, journal.status().tick);
    assert_eq!(summary.pending, Part { batches: 0, counters: 2, increments: 2 });
    assert_eq!(summary.quarantined, Part { batches: 0, counters: 1, increments: 4 });
    assert_eq!(summary.frozen, Part { batches: 1, counters: 3, increments: 3 });
    assert_eq!(summary.resolved, Part { batches: 1, counters: 1, increments: 1 });
    let status = journal.status();
    assert_eq!(
        (
            status.pending_increments,
            status.frozen_increments,
            status.quarantined_increments,
            status.resolved_batches
        ),
        (2, 3, 4, 1)
    );
    reader.verify().unwrap();

    // A reader sees later records, and does not block them.
    journal.record_blocking(record(0, [("a", 5)])).unwrap();
    assert_eq!(reader.summary().unwrap().pending.increments, 3);
    drop(journal);
    // Also after the journal was closed.
    assert_eq!(reader.summary().unwrap().pending.increments, 3);
    drop(reader);
    let reader = JournalReader::open(dir.path()).unwrap();
    assert_eq!(reader.summary().unwrap().pending.increments, 3);
    drop(reader);
    assert_eq!(recovered_counts(&open(dir.path()).1).len(), 5);
}

#[test]
fn reader_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let error = JournalReader::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn verify_finds_flipped_bit_in_resolved_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let one = batch(&journal.writer(), 0, 1, deltas([("metric-to-find", 1)]));
    journal.freeze_blocking(0, std::slice::from_ref(&one)).unwrap();
    journal.resolve_blocking(one.id(), Vec::new()).unwrap();
    drop(journal);
    let mut bytes = std::fs::read(file(dir.path())).unwrap();
    let at = bytes.windows(14).position(|window| window == b"metric-to-find").unwrap();
    bytes[at + 3] ^= 1;
    std::fs::write(file(dir.path()), bytes).unwrap();
    let reader = JournalReader::open(dir.path()).unwrap();
    assert_eq!(reader.verify().unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(reader.batch(one.id()).unwrap_err().kind(), ErrorKind::Corrupt);
}
