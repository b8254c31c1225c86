//! Reads are exact while counts move from memory to the file.
//!
//! Shows G6.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    thread,
    time::Duration,
};

use countem::{Bucket, Collector};

use crate::support::CounterFile;

const METRICS: [&str; 4] = ["a", "a.b", "c", "d"];

/// Progress of the counting threads on a metric.
#[derive(Default)]
struct Tally {
    /// Raised before an increment.
    begun: AtomicI64,
    /// Raised after it.
    done: AtomicI64,
}

fn count(collector: &Collector, tallies: &[Tally; 4], stop: &AtomicBool) {
    let handles = METRICS.map(|metric| collector.counter("c", metric).unwrap());
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        for (at, tally) in tallies.iter().enumerate() {
            tally.begun.fetch_add(1, Ordering::SeqCst);
            match round % 2 {
                0 => collector.increment("c", METRICS[at], 1),
                _ => handles[at].increment(1),
            }
            tally.done.fetch_add(1, Ordering::SeqCst);
        }
        round += 1;
        if round % 64 == 0 {
            // The readers and the store want their share of a small machine.
            thread::yield_now();
        }
    }
}

/// Reads a number that lies between what was counted before the read began and what was begun before it ended.
async fn read_between(tallies: &[&Tally], last: &mut i64, read: impl Future<Output = i64>) {
    let sum = |part: fn(&Tally) -> &AtomicI64| -> i64 {
        tallies.iter().map(|tally| part(tally).load(Ordering::SeqCst)).sum()
    };
    let least = sum(|tally| &tally.done);
    let value = read.await;
    let most = sum(|tally| &tally.begun);
    assert!((least..=most).contains(&value), "read {value}, which is not between {least} and {most}");
    assert!(value >= *last, "read {value} after {last}");
    *last = value;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn read_lies_between_counts_before_and_after() {
    let file = CounterFile::new();
    let collector = file.builder().flush_interval(Duration::from_millis(1)).start().await.unwrap();
    let tallies: [Tally; 4] = Default::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Ends the counting threads also when a reader fails, or the scope would wait for ever.
        let stopping = Stop(&stop);
        for _ in 0..3 {
            scope.spawn(|| count(&collector, &tallies, &stop));
        }
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let all: Vec<&Tally> = tallies.iter().collect();
                // As many reads as it takes to meet many batches on their way.
                let batches = || collector.stats().lanes.iter().map(|lane| lane.batches).sum::<u64>();
                let go_on = |reads| reads < 100 || batches() < 30;
                let one_collection = async {
                    let mut last = 0;
                    for _ in (0..).take_while(|reads| go_on(*reads)) {
                        let read = async {
                            collector
                                .get_counters("c", None)
                                .await
                                .unwrap()
                                .values()
                                .map(Result::unwrap)
                                .sum()
                        };
                        read_between(&all, &mut last, read).await;
                    }
                };
                let all_collections = async {
                    let mut last = 0;
                    for _ in (0..).take_while(|reads| go_on(*reads)) {
                        let read = async {
                            let all = collector.get_all_counters(None).await.unwrap();
                            all.values().flat_map(|counters| counters.values()).map(Result::unwrap).sum()
                        };
                        read_between(&all, &mut last, read).await;
                    }
                };
                let one_metric = async {
                    let mut last = [0; 4];
                    for at in (0..).take_while(|reads| go_on(*reads)).map(|read| read % 4) {
                        // Not stored, so it is the sum of days.
                        let read = collector.get("c", METRICS[at], Bucket::ALL);
                        let read = async { read.await.unwrap().unwrap_or(0) };
                        read_between(&[&tallies[at]], &mut last[at], read).await;
                    }
                };
                tokio::join!(one_collection, all_collections, one_metric);
            });
        });
        drop(stopping);
    });
    let stats = collector.stats();
    assert!(stats.is_balanced(), "{stats:?}");
    let counted: i64 = tallies.iter().map(|tally| tally.done.load(Ordering::SeqCst)).sum();
    assert!(collector.shutdown().await.is_complete());
    assert_eq!(file.sum("c"), counted);
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
