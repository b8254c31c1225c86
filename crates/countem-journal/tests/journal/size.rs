//! A journal is as large as its content, whatever went through it, and never larger than its bound.

use countem_core::{BatchId, Deltas, Table};
use countem_journal::{ErrorKind, Health, Journal, JournalConfig, Record};

use crate::support::*;

/// Deltas of `count` counters from number `first` on, with names of about 25 bytes.
fn many(first: usize, count: usize, n: i64, increments: u64) -> Deltas {
    let mut table = Table::new();
    for at in first..first + count {
        let metric = format!("Service.method-{at:08}");
        let delta =
            countem_core::Delta { collection: "app-events", metric: &metric, bucket: day(), n, increments };
        table.merge(delta).unwrap();
    }
    table.drain()
}

fn of(lane: u16, deltas: Deltas) -> Record {
    Record { lanes: vec![(lane, deltas)], ..Record::default() }
}

#[test]
fn size_follows_counters_not_increments() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let frozen = batch(&journal.writer(), 0, 1, many(0, 1000, 1, 1));
    journal.freeze_blocking(0, std::slice::from_ref(&frozen)).unwrap();
    let mut max = 0;
    for _ in 0..500 {
        journal.record_blocking(of(0, many(0, 1000, 20, 20))).unwrap();
        max = max.max(bytes(dir.path()));
    }
    assert!(max < 5_000_000, "{max} bytes");
    drop(journal);
    assert!(bytes(dir.path()) < 500_000, "{} bytes", bytes(dir.path()));
    assert_eq!(open(dir.path()).1.pending_totals().increments, 10_000_000);
}

#[test]
fn full_journal_refuses_records_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let max_bytes = 1_000_000;
    let (journal, _) = Journal::open(JournalConfig { max_bytes, ..config(dir.path()) }).unwrap();
    let mut taken = 0;
    let refused = loop {
        match journal.record_blocking(of(0, many(taken, 100, 1, 1))) {
            Ok(_) => taken += 100,
            Err(refused) => break refused,
        }
        assert!(bytes(dir.path()) <= max_bytes, "{} bytes", bytes(dir.path()));
    };
    assert_eq!(refused.error.kind(), ErrorKind::Full);
    assert!(refused.to_string().contains("bound of 1000000 bytes"), "{refused}");
    assert!(matches!(journal.status().health, Health::Full(_)));
    assert!(taken > 5000, "refused after {taken} counters already");
    assert_eq!(journal.status().pending_increments, taken as u64);
    let summary = journal.reader().unwrap().summary().unwrap();
    assert_eq!(summary.pending.increments, taken as u64);

    // Freezing goes on, or the journal could never become empty again.
    let id = BatchId { writer: journal.writer(), lane: 0, seq: 1 };
    let frozen = countem_core::Batch::new(id, many(0, taken, 1, 1));
    journal.freeze_blocking(0, std::slice::from_ref(&frozen)).unwrap();
    journal.resolve_blocking(frozen.id(), Vec::new()).unwrap();
    // The resolved batch is kept only as long as nothing else needs the room.
    let mut record = refused.record;
    for round in 0.. {
        match journal.record_blocking(record) {
            Ok(_) => break,
            Err(refused) => record = refused.record,
        }
        assert!(round < 3, "there is room and the journal does not find it");
    }
    assert!(bytes(dir.path()) <= max_bytes, "{} bytes", bytes(dir.path()));
    assert!(journal.status().health.is_ready());
    drop(journal);
    let (_journal, recovered) = open(dir.path());
    assert_eq!(recovered.pending_totals().increments, 100);
    assert!(recovered.frozen.is_empty());
}

#[test]
fn full_journal_still_records_known_counters() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(JournalConfig { max_bytes: 1_000_000, ..config(dir.path()) }).unwrap();
    let mut taken = 0;
    while journal.record_blocking(of(0, many(taken, 1000, 1, 1))).is_ok() {
        taken += 1000;
    }
    for _ in 0..50 {
        journal.record_blocking(of(0, many(0, 10, 1, 1))).unwrap();
    }
}

#[test]
fn space_is_returned_after_an_outage() {
    let dir = tempfile::tempdir().unwrap();
    let none = JournalConfig { resolved_bytes: 0, ..config(dir.path()) };
    let (journal, _) = Journal::open(none).unwrap();
    journal.record_blocking(of(0, many(0, 50_000, 1, 1))).unwrap();
    let frozen = batch(&journal.writer(), 0, 1, many(0, 50_000, 1, 1));
    journal.freeze_blocking(0, std::slice::from_ref(&frozen)).unwrap();
    let full = bytes(dir.path());
    journal.resolve_blocking(frozen.id(), Vec::new()).unwrap();
    drop(frozen);
    for _ in 0..500 {
        journal.record_blocking(of(0, many(0, 100, 1, 1))).unwrap();
    }
    drop(journal);
    assert!(full > 5_000_000, "{full} bytes");
    assert!(bytes(dir.path()) < 1_500_000, "{} bytes", bytes(dir.path()));
}
