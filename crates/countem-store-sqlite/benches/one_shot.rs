//! How long a process takes that opens the file, counts once and goes, eight at a time and one after the other.
//!
//! The program starts itself again for every one-shot process, so the times are those of real processes. It prints the time
//! between the call of `open` and the end of `drop`, and the time per process including its start.

use std::sync::Arc;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use countem_core::{Batch, BatchId, Bucket, CollectionName, Table, Writer};
use countem_store::{Query, Store as _};
use countem_store_sqlite::{SqliteConfig, SqliteStore};

const FILE: &str = "COUNTEM_BENCH_FILE";
const NODE: &str = "COUNTEM_BENCH_NODE";
const PROCESSES: u64 = 2_000;

fn main() {
    if let (Ok(file), Ok(node)) = (std::env::var(FILE), std::env::var(NODE)) {
        let began = Instant::now();
        count_once(PathBuf::from(file), node.parse().expect("a number"));
        println!("{}", began.elapsed().as_micros());
        return;
    }
    for at_once in [1, 2, 8] {
        measure(at_once);
    }
}

fn day() -> Bucket {
    "2026-11-20".parse().expect("a day")
}

fn count_once(file: PathBuf, node: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let options = SqliteConfig { one_shot: true, ..SqliteConfig::new(file) };
    let store = SqliteStore::open(options).expect("a store");
    let mut table = Table::new();
    table.fold("web", "deploys", day(), 1).expect("valid names");
    let writer = Writer::new(node, 1);
    let batch = Arc::new(Batch::new(BatchId { writer: writer.clone(), lane: 0, seq: 1 }, table.drain()));
    runtime.block_on(async {
        store.apply(&batch).await.expect("applied");
        store.forget(&writer).await.expect("retired");
    });
}

fn measure(at_once: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("countem.db");
    drop(SqliteStore::open(SqliteConfig::new(&file)).expect("a store"));
    let next = AtomicU64::new(0);
    let began = Instant::now();
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let run = || {
            let mut times = Vec::new();
            loop {
                let node = next.fetch_add(1, Ordering::Relaxed);
                if node >= PROCESSES {
                    return times;
                }
                times.push(run_process(&file, node));
            }
        };
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let elapsed = began.elapsed();
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100];
    println!(
        "{at_once} at once: open to drop median {:?}, 90 % {:?}, 99 % {:?}, worst {:?}; {:?} per process of wall time",
        at(50),
        at(90),
        at(99),
        times[times.len() - 1],
        elapsed / u32::try_from(PROCESSES).expect("a small number"),
    );
    check(&file);
}

fn run_process(file: &Path, node: u64) -> Duration {
    let own = std::env::current_exe().expect("the path of this program");
    let output = Command::new(own)
        .env(FILE, file)
        .env(NODE, node.to_string())
        .stderr(Stdio::inherit())
        .output()
        .expect("a process");
    assert!(output.status.success(), "{}", output.status);
    let micros = String::from_utf8(output.stdout).expect("text").trim().parse().expect("a number");
    Duration::from_micros(micros)
}

fn check(file: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = SqliteStore::open(SqliteConfig::new(file)).expect("a store");
    let query = Query::bucket(CollectionName::new("web").expect("a name"), day());
    let rows = runtime.block_on(store.read(&query, None)).expect("read");
    assert_eq!(rows[&day()]["deploys"], i64::try_from(PROCESSES).expect("a small number"));
}
