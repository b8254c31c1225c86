//! Expired rows are removed beside running writers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use countem_core::{Batch, BatchId, Table, Writer, jiff::Timestamp};
use countem_store::{Store as _, remove_expired};
use countem_store_sqlite::SqliteStore;

use crate::support::{COLLECTION, block_on, counters, day, expected, open};

#[test]
fn removal_beside_writers_loses_no_kept_count() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(store.record_schedules(&"beginning UTC minute:3600s,day".parse().unwrap())).unwrap();
    let is_done = AtomicBool::new(false);
    let removed = thread::scope(|scope| {
        let writers: Vec<_> = (1..=3)
            .map(|node| {
                let store = open(folder.path());
                scope.spawn(move || {
                    for seq in 1..=40 {
                        let mut table = Table::new();
                        for metric in 0..100 {
                            let minute = format!("2020-02-20T{:02}:{:02}", seq % 24, metric % 60);
                            table.fold(COLLECTION, &format!("{metric}"), minute.parse().unwrap(), 1).unwrap();
                        }
                        table.fold(COLLECTION, "m", day(), 1).unwrap();
                        let id = BatchId { writer: Writer::new(node, 1), lane: 0, seq };
                        block_on(store.apply(&std::sync::Arc::new(Batch::new(id, table.drain())))).unwrap();
                    }
                })
            })
            .collect();
        let remover = scope.spawn(|| {
            let mut removed = 0;
            loop {
                let is_last = is_done.load(Ordering::Acquire);
                removed += remove(&store);
                if is_last {
                    return removed;
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_done.store(true, Ordering::Release);
        remover.join().unwrap()
    });
    assert!(removed > 0, "nothing had expired");
    assert_eq!(block_on(counters(&store)), expected(&[("m", 120)]));
    let left = block_on(store.extent(
        &countem_core::CollectionName::new(COLLECTION).unwrap(),
        countem_core::BucketRange::every(countem_core::Period::Minute),
    ));
    assert_eq!(left.unwrap(), None);
}

/// Removes expired rows, as an engine does from time to time.
fn remove(store: &SqliteStore) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(remove_expired(store, Timestamp::now())).unwrap()
}

/// Flushes 5,000 increments of 1,000 counters every 100 ms, 50,000 in a second, and returns the duration of each flush.
fn flush(store: &SqliteStore, node: u64, is_over: impl Fn(usize) -> bool) -> Vec<Duration> {
    let (mut took, began) = (Vec::new(), Instant::now());
    while !is_over(took.len()) {
        let mut table = Table::new();
        for metric in 0..1000 {
            table.fold(COLLECTION, &format!("m{metric}"), day(), 5).unwrap();
        }
        let seq = took.len() as u64 + 1;
        let batch = Batch::new(BatchId { writer: Writer::new(node, 1), lane: 0, seq }, table.drain());
        let due = Duration::from_millis(100 * seq);
        thread::sleep(due.saturating_sub(began.elapsed()));
        let flush = Instant::now();
        block_on(store.apply(&Arc::new(batch))).unwrap();
        took.push(flush.elapsed());
    }
    took.sort_unstable();
    took
}

/// The size of the deletion is `COUNTEM_EXPIRED` rows; prints how long flushes take without and with it.
#[test]
fn flushes_go_on_beside_a_big_removal() {
    let rows: u32 = std::env::var("COUNTEM_EXPIRED").map_or(20_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    block_on(store.record_schedules(&"beginning UTC minute:3600s,day".parse().unwrap())).unwrap();
    let few = usize::try_from(rows / 10_000).unwrap();
    let undisturbed = flush(&store, 1, |flushes| flushes >= few.max(20));
    let database = rusqlite::Connection::open(folder.path().join("countem.db")).unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO counter SELECT ?2, printf('2020-02-20T%02d:%02d', i / 60 % 24, i % 60), 'm' || i, 1 FROM n";
    database.execute(fill, (rows, COLLECTION)).unwrap();
    drop(database);
    let is_removed = AtomicBool::new(false);
    let (beside, removed) = thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let began = Instant::now();
            let removed = remove(&store);
            is_removed.store(true, Ordering::Release);
            (removed, began.elapsed())
        });
        (flush(&store, 2, |_| is_removed.load(Ordering::Acquire)), remover.join().unwrap())
    });
    assert!(!beside.is_empty());
    let of = |took: &[Duration], percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
    for (name, took) in [("undisturbed", &undisturbed), ("beside the removal", &beside)] {
        println!("{name}: {} flushes, p50 {:?}, p99 {:?}", took.len(), of(took, 50), of(took, 99));
    }
    println!("removal of {} of {rows} rows: {:?}", removed.0, removed.1);
    let mut all = removed.0;
    while all < u64::from(rows) {
        match remove(&store) {
            0 => break,
            more => all += more,
        }
    }
    assert_eq!(all, u64::from(rows));
    assert!(of(&beside, 99) < Duration::from_secs(5), "a flush waits for one step, not for the removal");
}
