//! A store that is away for the whole run of a process: what is kept is bounded by distinct counters, not by increments.
//!
//! Shows G2.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::{
    books::{deliver, last},
    node::{Line, Start},
};
use crate::support::CounterFile;

const INCREMENTS: u64 = 10_000_000;
const METRICS: u64 = 1_000;

/// Returns the bytes of everything in a directory.
fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.metadata().ok()).map(|entry| entry.len()).sum()
}

#[test]
fn ten_million_increments_during_outage_are_delivered_once() {
    let file = CounterFile::new();
    // The first process makes the file, so that there is something to take away.
    deliver(&last(&file, &file.folder().join("other")));
    let journal = file.folder().join("journal");
    let away = file.lock();
    let (ended, largest) = (AtomicBool::new(false), AtomicU64::new(0));
    let lines = thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                largest.fetch_max(bytes(&journal), Ordering::SeqCst);
                // Polled: a growing file sends no signal.
                thread::sleep(Duration::from_millis(1));
            }
        });
        let start = Start::new(&file.uri(), &journal).with("metrics", METRICS);
        let mut node = start.with("operations", INCREMENTS).start();
        node.wait_for("the last count", |line| matches!(line, Line::Number(what, _) if what == "grown"));
        ended.store(true, Ordering::SeqCst);
        node.kill()
    });
    let number = |wanted: &str| {
        let mut numbers = lines.iter().filter_map(|line| match line {
            Line::Number(what, number) if what == wanted => Some(*number),
            _ => None,
        });
        numbers.next_back().expect("it has said the number")
    };
    println!("{lines:?}, journal {} bytes", largest.load(Ordering::SeqCst));
    assert_eq!(number("counted"), INCREMENTS);
    // Both stored periods, in the batch in flight and merged behind it.
    assert!(number("pending") <= 2 * 2 * METRICS, "{} counters are pending", number("pending"));
    assert!(number("grown") < 64 << 20, "memory has grown by {} bytes", number("grown"));
    let largest = largest.load(Ordering::SeqCst);
    assert!((100_000..5_000_000).contains(&largest), "the journal has grown to {largest} bytes");

    drop(away);
    deliver(&last(&file, &journal));
    let rows = file.rows();
    assert_eq!(rows.len(), 2, "one day, and all time");
    for counters in rows.values() {
        assert_eq!(counters.len() as u64, METRICS);
        assert!(counters.values().all(|value| value.unwrap().cast_unsigned() == INCREMENTS / METRICS));
    }
}

/// Another store takes the place of a file under a running process, with and without a journal.
#[cfg(unix)]
#[test]
fn report_tells_of_a_replaced_store() {
    for has_journal in [false, true] {
        let (file, other) = (CounterFile::new(), CounterFile::new());
        let journal = file.folder().join("journal");
        let begin = || {
            let builder = file.builder().shutdown_deadline(Duration::from_secs(1));
            let builder = if has_journal { builder.journal(&journal) } else { builder };
            builder.start_blocking().unwrap()
        };
        let another = other.builder().start_blocking().unwrap();
        another.increment("web", "other", 7);
        assert!(another.blocking().shutdown().is_complete());
        let collector = begin();
        collector.increment("web", "a", 1);
        collector.blocking().flush().unwrap();

        fs::rename(other.path(), file.path()).unwrap();
        for _ in 0..5 {
            collector.increment("web", "a", 1);
        }
        let report = collector.blocking().shutdown();
        let said = (report.applied, report.journaled, report.dropped, report.in_doubt);
        assert_eq!(said, if has_journal { (1, 5, 0, 0) } else { (1, 0, 5, 0) }, "{report:?}");
        assert!(report.is_balanced() && !report.is_complete());
    }
}
