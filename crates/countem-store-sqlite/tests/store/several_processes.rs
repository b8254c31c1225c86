//! Several processes on one file.
//!
//! Shows G7.

use std::{
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use countem_core::Writer;
use countem_store::Store as _;
use countem_store_sqlite::{SqliteConfig, SqliteStore};

use crate::{
    process::{Task, start},
    support::{batch, block_on, counters, expected, file, file_names, open},
};

#[test]
fn eight_processes_on_one_new_file_all_count() {
    const BATCHES: u64 = 25;
    if let Some(Task { folder, number }) = Task::of_this_process() {
        let store = open_for_long(&folder);
        let writer = Writer::new(number, 1);
        let own = format!("own {number}");
        for seq in 1..=BATCHES {
            let batch = batch(&writer, seq, &[("shared", 1), (&own, 1)]);
            block_on(store.apply(&batch)).unwrap();
            block_on(store.apply(&batch)).unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let this = "several_processes::eight_processes_on_one_new_file_all_count";
    let processes: Vec<_> = (0..8).map(|number| start(this, folder.path(), number)).collect();
    for process in processes {
        process.finish();
    }
    let counters = block_on(counters(&open(folder.path())));
    assert_eq!(counters["shared"], 200);
    assert_eq!(counters.len(), 9);
    assert!(counters.iter().all(|(metric, value)| metric == "shared" || value == Ok(25)), "{counters:?}");
    let known = known_writers(folder.path());
    assert_eq!(known, 8, "none of them was forgotten");
}

#[test]
fn short_processes_leave_only_the_count() {
    const PROCESSES: u64 = 48;
    if let Some(Task { folder, number }) = Task::of_this_process() {
        let store = open_for_long(&folder);
        let writer = Writer::new(number, 1);
        block_on(store.apply(&batch(&writer, 1, &[("a", 1)]))).unwrap();
        block_on(store.forget(&writer)).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let this = "several_processes::short_processes_leave_only_the_count";
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        number if number < PROCESSES => start(this, folder.path(), number).finish(),
                        _ => break,
                    };
                }
            });
        }
    });
    assert_eq!(file_names(folder.path()), ["countem.db"], "the last one tidied up");
    assert_eq!(block_on(counters(&open(folder.path()))), expected(&[("a", 48)]));
    assert_eq!(known_writers(folder.path()), 0);
}

#[test]
fn file_created_concurrently_is_created_once() {
    for _ in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let together = Barrier::new(8);
        std::thread::scope(|scope| {
            for node in 0..8 {
                let (together, folder) = (&together, folder.path());
                scope.spawn(move || {
                    together.wait();
                    let store = open_for_long(folder);
                    block_on(store.apply(&batch(&Writer::new(node, 1), 1, &[("a", 1)]))).unwrap();
                });
            }
        });
        assert_eq!(block_on(counters(&open(folder.path()))), expected(&[("a", 8)]));
    }
}

/// Opens the file with a timeout that is out of reach: these tests are about counts, and SQLite's lock on writing has no queue.
fn open_for_long(folder: &Path) -> SqliteStore {
    let busy_timeout = Duration::from_secs(120);
    SqliteStore::open(SqliteConfig { busy_timeout, ..SqliteConfig::new(file(folder)) }).unwrap()
}

fn known_writers(folder: &Path) -> i64 {
    let connection = rusqlite::Connection::open(file(folder)).unwrap();
    connection.query_row("SELECT count(*) FROM applied", [], |row| row.get(0)).unwrap()
}
