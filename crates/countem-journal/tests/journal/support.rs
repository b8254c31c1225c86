//! Shared by the tests.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use countem_core::{Batch, BatchId, Bucket, Delta, Deltas, Table, Writer};
use countem_journal::{CopiedPending, Journal, JournalConfig, Record, Recovered};

/// Sums over a set of deltas: (collection, metric, bucket) to (n, increments).
pub(crate) type Counts = BTreeMap<(String, String, String), (i64, u64)>;

pub(crate) fn day() -> Bucket {
    "2026-11-20".parse().unwrap()
}

pub(crate) fn config(dir: &Path) -> JournalConfig {
    JournalConfig::new(dir)
}

pub(crate) fn open(dir: &Path) -> (Journal, Recovered) {
    Journal::open(config(dir)).unwrap()
}

/// Deltas of collection `web`, one increment each.
pub(crate) fn deltas<'a>(counters: impl IntoIterator<Item = (&'a str, i64)>) -> Deltas {
    let mut table = Table::new();
    for (metric, n) in counters {
        table.fold("web", metric, day(), n).unwrap();
    }
    table.drain()
}

pub(crate) fn record<'a>(lane: u16, counters: impl IntoIterator<Item = (&'a str, i64)>) -> Record {
    Record { lanes: vec![(lane, deltas(counters))], ..Record::default() }
}

pub(crate) fn batch(writer: &Writer, lane: u16, seq: u64, deltas: Deltas) -> Batch {
    Batch::new(BatchId { writer: writer.clone(), lane, seq }, deltas)
}

pub(crate) fn add<'a>(counts: &mut Counts, deltas: impl Iterator<Item = Delta<'a>>) {
    for delta in deltas {
        let key = (delta.collection.to_owned(), delta.metric.to_owned(), delta.bucket.to_string());
        let sum = counts.entry(key).or_default();
        sum.0 += delta.n;
        sum.1 += delta.increments;
    }
}

/// Sums over everything recovered that has to reach the store.
pub(crate) fn recovered_counts(recovered: &Recovered) -> Counts {
    let mut counts = Counts::new();
    recovered.frozen.iter().for_each(|batch| add(&mut counts, batch.deltas()));
    recovered.pending.iter().for_each(|(_, deltas)| add(&mut counts, deltas.iter()));
    counts
}

pub(crate) fn counts<'a>(counters: impl IntoIterator<Item = (&'a str, i64, u64)>) -> Counts {
    let key = |metric: &str| ("web".to_owned(), metric.to_owned(), day().to_string());
    counters.into_iter().map(|(metric, n, increments)| (key(metric), (n, increments))).collect()
}

/// Copies the files of a journal as the death of its process would leave them now. No request may be outstanding.
pub(crate) fn crash_copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        // The index of the log belongs to the dead process; SQLite recreates it.
        if name != "journal.db-shm" {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Configuration that opens a crash copy as if it were the original.
pub(crate) fn as_original(dir: &Path) -> JournalConfig {
    JournalConfig { copied_pending: CopiedPending::Count, ..config(dir) }
}

pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("journal.db")
}

/// Size of the file and its log in bytes.
pub(crate) fn bytes(dir: &Path) -> u64 {
    ["journal.db", "journal.db-wal"]
        .iter()
        .map(|name| fs::metadata(dir.join(name)).map_or(0, |file| file.len()))
        .sum()
}

/// Waits until a condition holds that another thread brings about.
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "the condition did not hold in time");
        std::thread::yield_now();
    }
}
