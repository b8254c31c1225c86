//! Requests that are asked while a commit is under way share the next one.

use std::sync::mpsc;

use countem_journal::{Journal, Quarantined, Record};

use crate::support::*;

#[test]
fn thousand_waiting_records_share_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let (release, held) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    // Keeps the journal busy, as a slow disk would.
    journal.record(record(0, [("first", 1)]), move |outcome| {
        entered.send(outcome.unwrap().tick).unwrap();
        held.recv().unwrap();
    });
    let first = inside.recv().unwrap();
    let (ticks, acknowledged) = mpsc::channel();
    let names: Vec<String> = (0..1000).map(|op| format!("op-{op}")).collect();
    for name in &names {
        let ticks = ticks.clone();
        journal.record(record(0, [(name.as_str(), 1), ("shared", 1)]), move |outcome| {
            ticks.send(outcome.unwrap().tick).unwrap();
        });
    }
    drop(ticks);
    release.send(()).unwrap();
    let all: Vec<u64> = acknowledged.iter().collect();
    assert_eq!(all, vec![first + 1; 1000]);
    assert_eq!(journal.status().commits, 2);
    drop(journal);

    let recovered = recovered_counts(&open(dir.path()).1);
    let mut expected = counts(names.iter().map(|name| (name.as_str(), 1, 1)));
    expected.extend(counts([("first", 1, 1), ("shared", 1000, 1000)]));
    assert_eq!(recovered, expected);
}

#[test]
fn overflowing_record_fails_alone_in_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record_blocking(record(0, [("full", i64::MAX)])).unwrap();
    let (release, held) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    journal.sync(move |outcome| {
        outcome.unwrap();
        entered.send(()).unwrap();
        held.recv().unwrap();
    });
    inside.recv().unwrap();
    let (answers, answered) = mpsc::channel();
    let bad = Record {
        lanes: vec![(1, deltas([("other", 1)])), (0, deltas([("before", 1), ("full", 1)]))],
        ..Record::default()
    };
    for record in [record(0, [("good", 1)]), bad, record(0, [("good", 1)])] {
        let answers = answers.clone();
        journal.record(record, move |outcome| answers.send(outcome).unwrap());
    }
    drop(answers);
    release.send(()).unwrap();
    let mut outcomes: Vec<_> = answered.iter().collect();
    let bad = outcomes.remove(1).unwrap_err();
    assert_eq!(bad.error.kind(), countem_journal::ErrorKind::Overflow);
    assert!(bad.error.to_string().contains("`full` of `web` in 2026-11-20"), "{bad}");
    assert_eq!(bad.record.lanes[1].1.len(), 2);
    assert!(outcomes.iter().all(Result::is_ok));
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("full", i64::MAX, 1), ("good", 2, 2)]));
}

/// Keeps the journal's thread busy until the sender is used.
fn hold(journal: &Journal) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel();
    let (entered, inside) = mpsc::channel();
    journal.sync(move |_| {
        entered.send(()).unwrap();
        held.recv().unwrap();
    });
    inside.recv().unwrap();
    release
}

#[test]
fn requests_beyond_the_queue_are_refused_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let release = hold(&journal);
    let (answers, answered) = mpsc::channel();
    for _ in 0..3000 {
        let answers = answers.clone();
        journal.record(record(0, [("a", 1)]), move |outcome| answers.send(outcome).unwrap());
    }
    drop(answers);
    release.send(()).unwrap();
    let outcomes: Vec<_> = answered.iter().collect();
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((1000..3000).contains(&taken), "{taken}");
    let refused = outcomes.into_iter().find_map(Result::err).unwrap();
    assert_eq!(refused.error.kind(), countem_journal::ErrorKind::Unavailable);
    assert_eq!(refused.record.lanes[0].1.len(), 1);
    drop(journal);
    let taken = i64::try_from(taken).unwrap();
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", taken, taken.unsigned_abs())]));
}

/// The writer of a batch may be forgotten once a later `sync` has succeeded.
#[test]
fn resolution_is_never_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let frozen = [1, 2].map(|seq| batch(&journal.writer(), 0, seq, deltas([("a", 1), ("bad", 1)])));
    journal.freeze_blocking(0, &frozen).unwrap();
    let release = hold(&journal);
    let (answers, answered) = mpsc::channel();
    for _ in 0..1025 {
        let answers = answers.clone();
        journal.sync(move |outcome| answers.send(outcome).unwrap());
    }
    assert_eq!(answered.recv().unwrap().unwrap_err().kind(), countem_journal::ErrorKind::Unavailable);
    let refused = deltas([("bad", 1)]);
    let bad: Vec<_> = refused.iter().map(|delta| Quarantined::new(delta, "injected")).collect();
    journal.resolve(frozen[0].id(), Vec::new(), |outcome| outcome.unwrap());
    journal.resolve(frozen[1].id(), bad, |outcome| outcome.unwrap());
    release.send(()).unwrap();
    until(|| journal.sync_blocking().is_ok());
    let reader = journal.reader().unwrap();
    assert!(reader.frozen().unwrap().is_empty());
    assert_eq!(reader.quarantined().unwrap().len(), 1);
}

#[test]
fn empty_record_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record_blocking(Record::default()).unwrap();
}
