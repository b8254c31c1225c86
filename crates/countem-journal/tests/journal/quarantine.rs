//! Deltas that could not be added to their counter wait for a person, neither lost nor counted twice.

use countem_core::Delta;
use countem_journal::{Journal, Quarantined, Record, Selection};

use crate::support::*;

fn bad(metric: &str, n: i64) -> Quarantined {
    let delta = Delta { collection: "web", metric, bucket: day(), n, increments: 2 };
    Quarantined::new(delta, "the stored value is a string")
}

fn ids(journal: &Journal) -> Vec<(i64, String)> {
    let entries = journal.reader().unwrap().quarantined().unwrap();
    entries.into_iter().map(|entry| (entry.id, entry.quarantined.metric)).collect()
}

#[test]
fn batch_resolution_keeps_its_quarantined_deltas() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let one = batch(&journal.writer(), 0, 1, deltas([("a", 1), ("bad", 5)]));
    journal.freeze_blocking(0, std::slice::from_ref(&one)).unwrap();
    journal.resolve_blocking(one.id(), vec![bad("bad", 5)]).unwrap();
    // The store reports it again when the batch is sent again; it is still one.
    journal.resolve_blocking(one.id(), vec![bad("bad", 5)]).unwrap();
    assert_eq!(journal.status().quarantined, 1);
    drop(journal);
    let (_journal, recovered) = open(dir.path());
    assert!(recovered.is_empty());
    assert_eq!(recovered.quarantined.len(), 1);
    assert_eq!(recovered.quarantined[0].batch.as_ref(), Some(one.id()));
    assert_eq!(recovered.quarantined[0].quarantined, bad("bad", 5));
    assert_eq!(recovered.quarantined_totals().increments, 2);
}

#[test]
fn record_can_carry_quarantined_deltas() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let record = Record { quarantined: vec![bad("x", 1)], ..record(0, [("a", 1)]) };
    journal.record_blocking(record).unwrap();
    drop(journal);
    let recovered = open(dir.path()).1;
    assert_eq!(recovered.quarantined[0].batch, None);
    assert_eq!(recovered_counts(&recovered), counts([("a", 1, 1)]));
}

#[test]
fn retried_delta_moves_from_quarantine_to_pending() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let quarantined = vec![bad("x", 1), bad("y", 10), bad("x", 100)];
    journal.record_blocking(Record { quarantined, ..record(1, [("x", 1000)]) }).unwrap();
    let known = ids(&journal);
    let chosen = Selection::Ids(vec![known[0].0, known[2].0, 999]);
    let retried = journal.retry_quarantined_blocking(chosen.clone(), |_| 1).unwrap();
    assert_eq!(
        retried.iter().map(|r| (r.lane, r.entry.quarantined.n)).collect::<Vec<_>>(),
        [(1, 1), (1, 100)]
    );
    assert!(journal.retry_quarantined_blocking(chosen, |_| 1).unwrap().is_empty());
    assert_eq!(ids(&journal), [known[1].clone()]);
    drop(journal);
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered_counts(&recovered), counts([("x", 1101, 5)]));

    let dropped = journal.drop_quarantined_blocking(Selection::All).unwrap();
    assert_eq!(dropped.iter().map(|entry| entry.quarantined.n).collect::<Vec<_>>(), [10]);
    assert_eq!(journal.status().quarantined_increments, 0);
    // An id never comes back for something else.
    journal.record_blocking(Record { quarantined: vec![bad("z", 1)], ..Record::default() }).unwrap();
    assert!(ids(&journal)[0].0 > known[2].0);
}

#[test]
fn overflowing_retry_stays_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let quarantined = vec![bad("x", 1), bad("y", 1)];
    journal.record_blocking(Record { quarantined, ..record(0, [("x", i64::MAX)]) }).unwrap();
    let retried = journal.retry_quarantined_blocking(Selection::All, |_| 0).unwrap();
    assert_eq!(retried.len(), 1);
    assert_eq!(ids(&journal).len(), 1);
    drop(journal);
    let recovered = open(dir.path()).1;
    assert_eq!(recovered_counts(&recovered), counts([("x", i64::MAX, 1), ("y", 1, 2)]));
    assert_eq!(recovered.quarantined.len(), 1);
}

#[test]
fn everything_pending_can_be_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record_blocking(record(0, [("a", 1), ("b", 2)])).unwrap();
    journal.record_blocking(record(1, [("c", 3)])).unwrap();
    assert_eq!(journal.quarantine_pending_blocking("the identity is in use elsewhere").unwrap(), 3);
    drop(journal);
    let recovered = open(dir.path()).1;
    assert!(recovered.is_empty());
    assert_eq!(recovered.quarantined_totals().n, 6);
}
