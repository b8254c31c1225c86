//! Requests with idempotency keys: kept undecided, and decided in one transaction with their deltas.

use std::{fs, sync::Arc};

use countem_core::{IdempotencyKey, Writer, jiff::Timestamp};
use countem_journal::{ErrorKind, Journal, KeyedEntry, Record};
use rusqlite::Connection;

use crate::support::*;

fn entry(writer: &Writer, position: u64, metric: &str) -> Arc<KeyedEntry> {
    Arc::new(KeyedEntry {
        key: IdempotencyKey::in_scope("token", &format!("request {position}")).unwrap(),
        body: [7; 32],
        expires_at: Timestamp::from_second(1_800_000_000).unwrap(),
        counts: Arc::new(batch(writer, 0, position, deltas([(metric, 3)]))),
    })
}

#[test]
fn decided_entry_gives_way_to_its_deltas() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let writer = journal.writer();
    let entries = [entry(&writer, 1, "a"), entry(&writer, 2, "b"), entry(&writer, 3, "c")];
    journal.accept_blocking(entries.to_vec()).unwrap();
    let again = journal.accept_blocking(vec![entry(&writer, 2, "other")]).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Refused, "an identity stands for one content");
    let summary = journal.reader().unwrap().summary().unwrap();
    assert_eq!((summary.undecided.batches, summary.undecided.increments), (3, 3));
    assert_eq!(summary.pending.increments, 0, "they are not counted");

    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered.keyed.len(), 3);
    assert!(!recovered.is_empty());
    let [first, second, _] = &recovered.keyed[..] else { panic!("{recovered:?}") };
    assert_eq!(
        (first.key.as_str(), first.body, first.expires_at),
        ("token/request 1", [7; 32], entries[0].expires_at)
    );
    assert_eq!(first.counts.encode(), entries[0].counts.encode());
    let decided = vec![first.counts.id().clone(), second.counts.id().clone()];
    journal.record_blocking(Record { decided, ..record(0, [("a", 3)]) }).unwrap();

    drop(journal);
    let (_, recovered) = open(dir.path());
    assert_eq!(recovered.keyed.len(), 1);
    assert_eq!(recovered_counts(&recovered), counts([("a", 3, 1)]));
    // What is counted of the last one belongs into a batch of its writer.
    assert_eq!(recovered.next.keys().copied().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn entries_of_a_copy_are_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.accept_blocking(vec![entry(&journal.writer(), 1, "a")]).unwrap();
    assert_eq!(journal.quarantine_pending_blocking("a copy").unwrap(), 1);
    drop(journal);
    let (_, recovered) = open(dir.path());
    assert_eq!((recovered.keyed.len(), recovered.quarantined_totals().n), (0, 3));
}

#[test]
fn changed_entry_is_damage() {
    for change in ["body = zeroblob(32)", "expires_at = 1", "key = '/x'", "position = 9"] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        journal.accept_blocking(vec![entry(&journal.writer(), 1, "a")]).unwrap();
        drop(journal);
        let changed =
            Connection::open(file(dir.path())).unwrap().execute(&format!("UPDATE keyed SET {change}"), []);
        assert_eq!(changed, Ok(1));
        fs::remove_file(dir.path().join("journal.lock")).ok();
        assert_eq!(Journal::open(config(dir.path())).unwrap_err().kind(), ErrorKind::Corrupt, "{change}");
    }
}

#[test]
fn entries_are_refused_without_room() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) =
        Journal::open(countem_journal::JournalConfig { max_bytes: 300_000, ..config(dir.path()) }).unwrap();
    let writer = journal.writer();
    let refused = (1..10_000).find_map(|position| {
        let entry = entry(&writer, position, &format!("{position:0500}"));
        journal.accept_blocking(vec![entry]).err()
    });
    assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::Full));
    let undecided = journal.reader().unwrap().undecided().unwrap();
    let decided = undecided.iter().map(|entry| entry.counts.id().clone()).collect();
    journal.record_blocking(Record { decided, ..record(0, [("a", 1)]) }).unwrap();
    journal.accept_blocking(vec![entry(&writer, 10_001, "a")]).unwrap();
}
