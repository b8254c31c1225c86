//! Content of a journal that is opened again.

use std::{fs::File, time::SystemTime};

use countem_core::{Bucket, Table};
use countem_journal::{Journal, JournalConfig, Origin, Record};

use crate::support::*;

#[test]
fn pending_deltas_are_merged_and_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, recovered) = open(dir.path());
    assert!(recovered.is_empty());
    assert_eq!(recovered.origin, Origin::Created);
    let first = journal.record_blocking(record(0, [("a", 1), ("b", -5)])).unwrap();
    let second = journal.record_blocking(record(0, [("a", 2)])).unwrap();
    assert!(second.tick > first.tick);
    journal.record_blocking(record(1, [("a", 40)])).unwrap();
    drop(journal);

    let (_journal, recovered) = open(dir.path());
    assert_eq!(recovered.origin, Origin::Same);
    assert_eq!(recovered.pending.iter().map(|(lane, _)| *lane).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(recovered_counts(&recovered), counts([("a", 43, 3), ("b", -5, 1)]));
    let said = recovered.to_string();
    assert_eq!(
        said,
        "recovered 0 increments in 0 unresolved batches, 4 pending increments in 3 counters, 0 quarantined increments in 0 counters"
    );
}

#[test]
fn names_and_buckets_are_recovered_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let long = "x".repeat(512);
    let metrics = ["a", "a.b", "a..b", "$inc", "_id", "%2E", "é 😀", "'; DROP TABLE pending; --", &long];
    let buckets = [
        "2026-11-20T14:05:09",
        "2026-11-20T14:05",
        "2026-11-20T14",
        "2026-11-20",
        "2026-W47",
        "2026-11",
        "2026",
        "all",
    ];
    let mut table = Table::new();
    for metric in metrics {
        for bucket in buckets {
            table.fold("a.b-c_d", metric, bucket.parse::<Bucket>().unwrap(), i64::MIN).unwrap();
        }
    }
    let mut expected = Counts::new();
    add(&mut expected, table.iter());
    journal.record_blocking(Record { lanes: vec![(65_535, table.drain())], ..Record::default() }).unwrap();
    drop(journal);
    assert_eq!(recovered_counts(&open(dir.path()).1), expected);
}

#[test]
fn freeze_replaces_pending_deltas_of_its_lane_only() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    journal.record_blocking(record(0, [("a", 1)])).unwrap();
    journal.record_blocking(record(1, [("b", 1)])).unwrap();
    let frozen = batch(&journal.writer(), 0, 1, deltas([("a", 1), ("never recorded", 7)]));
    journal.freeze_blocking(0, std::slice::from_ref(&frozen)).unwrap();
    // The same again, as after an answer that was lost.
    journal.freeze_blocking(0, std::slice::from_ref(&frozen)).unwrap();
    drop(journal);

    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered.frozen.len(), 1);
    assert_eq!(recovered.frozen[0].id(), frozen.id());
    assert_eq!(recovered.frozen[0].encode(), frozen.encode());
    assert_eq!(recovered.pending.len(), 1);
    assert_eq!(recovered_counts(&recovered), counts([("a", 1, 1), ("never recorded", 7, 1), ("b", 1, 1)]));
    assert_ne!(&journal.writer(), &frozen.id().writer);
}

#[test]
fn identity_never_stands_for_two_contents() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let writer = journal.writer();
    journal.freeze_blocking(0, &[batch(&writer, 0, 1, deltas([("a", 1)]))]).unwrap();
    journal.record_blocking(record(0, [("b", 1)])).unwrap();
    let error = journal.freeze_blocking(0, &[batch(&writer, 0, 1, deltas([("a", 2)]))]).unwrap_err();
    assert!(error.to_string().contains("identity was used for something else"), "{error}");
    drop(journal);
    // The refused request has not even deleted what was pending.
    assert_eq!(recovered_counts(&open(dir.path()).1), counts([("a", 1, 1), ("b", 1, 1)]));
}

#[test]
fn frozen_batches_are_recovered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..11 {
        let (journal, _) = open(dir.path());
        let writer = journal.writer();
        for lane in [1, 0] {
            let batches = [
                batch(&writer, lane, 2, deltas([("late", 1)])),
                batch(&writer, lane, 1, deltas([("early", 1)])),
            ];
            journal.freeze_blocking(lane, &batches).unwrap();
        }
    }
    let (_journal, recovered) = open(dir.path());
    let ids: Vec<_> =
        recovered.frozen.iter().map(|b| (b.id().writer.epoch(), b.id().lane, b.id().seq)).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(ids, sorted);
    assert_eq!(ids.len(), 44);
}

#[test]
fn resolved_batch_is_kept_for_replay_only() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let before = SystemTime::now();
    let one = batch(&journal.writer(), 0, 1, deltas([("a", 1)]));
    let two = batch(&journal.writer(), 0, 2, deltas([("a", 5)]));
    let bytes = one.encode();
    journal.freeze_blocking(0, &[one, two]).unwrap();
    let id = open_id(&journal, 1);
    journal.resolve_blocking(&id, Vec::new()).unwrap();
    // Resolving again, or what never was, changes nothing.
    journal.resolve_blocking(&id, Vec::new()).unwrap();
    journal.resolve_blocking(&open_id(&journal, 77), Vec::new()).unwrap();
    let reader = journal.reader().unwrap();
    assert_eq!(reader.resolved(before).unwrap().len(), 1);
    assert_eq!(reader.resolved(before + std::time::Duration::from_secs(3600)).unwrap().len(), 0);
    assert_eq!(reader.batch(&id).unwrap().unwrap().encode(), bytes);
    drop((reader, journal));
    let (_journal, recovered) = open(dir.path());
    assert_eq!(recovered_counts(&recovered), counts([("a", 5, 1)]));
}

fn open_id(journal: &Journal, seq: u64) -> countem_core::BatchId {
    countem_core::BatchId { writer: journal.writer(), lane: 0, seq }
}

#[test]
fn retention_is_bounded_by_time_and_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let none = JournalConfig { resolved_retention: std::time::Duration::ZERO, ..config(dir.path()) };
    let (journal, _) = Journal::open(none).unwrap();
    let stored = |journal: &Journal, seq| {
        journal.freeze_blocking(0, &[batch(&journal.writer(), 0, seq, deltas([("a", 1)]))]).unwrap();
        journal.resolve_blocking(&open_id(journal, seq), Vec::new()).unwrap();
    };
    stored(&journal, 1);
    assert_eq!(journal.reader().unwrap().resolved(SystemTime::UNIX_EPOCH).unwrap().len(), 0);
    drop(journal);

    let (journal, _) = Journal::open(JournalConfig { resolved_bytes: 250, ..config(dir.path()) }).unwrap();
    (1..=5).for_each(|seq| stored(&journal, seq));
    let kept = journal.reader().unwrap().resolved(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(kept.iter().map(|batch| batch.id.seq).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(journal.status().resolved_batches, 2);
}

#[test]
fn identity_is_fresh_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut epochs = Vec::new();
    let mut nodes = Vec::new();
    for start in 0..6_u32 {
        let (journal, _) = open(dir.path());
        epochs.push(journal.writer().epoch());
        nodes.push(journal.writer().node());
        drop(journal);
        // As if the clock had been set back a year, then forward, between two starts.
        let year = std::time::Duration::from_secs(365 * 24 * 3600);
        let now = SystemTime::now();
        let moment = if start % 2 == 0 { now - year } else { now + year };
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let file = File::options().write(true).open(entry.unwrap().path()).unwrap();
            file.set_times(std::fs::FileTimes::new().set_modified(moment).set_accessed(moment)).unwrap();
        }
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    assert!(nodes.iter().all(|node| *node == nodes[0]), "{nodes:?}");
}

#[test]
fn lane_count_stays_until_journal_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let with = |lanes| Journal::open(JournalConfig { lanes, ..config(dir.path()) }).unwrap();
    let (journal, recovered) = with(4);
    assert_eq!(recovered.lanes, 4);
    journal.record_blocking(record(3, [("a", 1)])).unwrap();
    drop(journal);
    let (journal, recovered) = with(2);
    assert_eq!(recovered.lanes, 4);
    let one = batch(&journal.writer(), 3, 1, deltas([("a", 1)]));
    journal.freeze_blocking(3, std::slice::from_ref(&one)).unwrap();
    drop(journal);
    let (journal, recovered) = with(2);
    assert_eq!(recovered.lanes, 4);
    journal.resolve_blocking(one.id(), Vec::new()).unwrap();
    drop(journal);
    assert_eq!(with(2).1.lanes, 2);
}

#[test]
fn dropping_the_journal_executes_lazy_requests() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let one = batch(&journal.writer(), 0, 1, deltas([("a", 1)]));
    journal.freeze_blocking(0, std::slice::from_ref(&one)).unwrap();
    journal.resolve(one.id(), Vec::new(), |outcome| outcome.unwrap());
    drop(journal);
    assert!(open(dir.path()).1.is_empty());
}
