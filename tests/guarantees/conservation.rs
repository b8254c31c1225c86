//! Nothing disappears without a counter that says why: `accepted = applied + pending + quarantined + dropped`.
//!
//! Shows G4 and G15.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use countem::{Collector, Refusal};

use crate::support::{CounterFile, counters};

#[test]
fn statistics_balance_at_every_moment_under_load() {
    let file = CounterFile::new();
    let collector = file.builder().flush_interval(Duration::from_millis(1)).start_blocking().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Ends the counting threads also when a look fails, or the scope would wait for ever.
        let stopping = Stop(&stop);
        for worker in 0..3 {
            let (collector, stop) = (&collector, &stop);
            scope.spawn(move || {
                let handle = collector.counter("c", "by-handle").unwrap();
                for metric in ["a", "b", "c"].iter().cycle() {
                    collector.increment(&format!("c{worker}"), metric, 1);
                    handle.increment(1);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        // As many looks as it takes to see counts on their way to the file.
        let mut accepted_before = 0;
        for look in (0..).take_while(|look| *look < 500 || batches(&collector) < 30) {
            let stats = collector.stats();
            assert!(stats.is_balanced(), "at look {look}: {stats:#?}");
            assert!(
                stats.accepted >= accepted_before,
                "at look {look}: {accepted_before} before, {stats:#?}"
            );
            accepted_before = stats.accepted;
            let page = collector.metrics();
            let [accepted, others @ ..] = [
                "accepted_total",
                "applied_total",
                "pending",
                "quarantined_total",
                "dropped_total{reason=\"deadline\"}",
            ]
            .map(|name| increments(&page, name));
            assert_eq!(accepted, others.iter().sum::<u64>(), "at look {look}:\n{page}");
            collector.resize(1 + look % 4);
            thread::yield_now();
        }
        drop(stopping);
    });
    let report = collector.blocking().shutdown();
    assert!(report.is_balanced() && report.is_complete(), "{report:?}");
    let stats = collector.stats();
    assert_eq!((stats.accepted, stats.applied, stats.pending), (report.accepted, report.applied, 0));
}

#[test]
fn counter_that_overflows_in_file_is_quarantined_alone() {
    let file = CounterFile::new();
    let collector = file.builder().start_blocking().unwrap();
    collector.increment("c", "full", i64::MAX);
    collector.increment("c", "other", 1);
    let overflow = collector.try_increment("c", "full", 1).unwrap_err();
    assert!(matches!(overflow, Refusal::Overflow), "two amounts that do not fit into memory: {overflow}");
    collector.blocking().flush().unwrap();

    for _ in 0..3 {
        collector.increment("c", "full", 1);
        collector.increment("c", "other", 10);
    }
    collector.increment("c", "new", -5);
    let expected = counters(&[("full", i64::MAX), ("new", -5), ("other", 31)]);
    // The sum is no counter before the store has quarantined what does not fit.
    let pending = collector.blocking().get_counters("c", None).unwrap();
    assert!(pending.get("full").is_err() && pending.get("other") == Ok(Some(31)), "{pending:?}");
    collector.blocking().flush().unwrap();
    assert_eq!(file.counters("c"), expected);
    let stats = collector.stats();
    assert!(stats.is_balanced(), "{stats:?}");
    let [quarantined] = &stats.quarantine[..] else { panic!("one counter: {:?}", stats.quarantine) };
    assert_eq!((&*quarantined.collection, &*quarantined.metric), ("c", "full"));
    assert_eq!((quarantined.n, quarantined.increments), (3, 3));
    assert_eq!(quarantined.reason, format!("{} plus 3 exceeds 64 bits", i64::MAX));

    collector.increment("c", "full", -1);
    let report = collector.blocking().shutdown();
    assert_eq!((report.accepted, report.applied, report.quarantined), (10, 7, 3), "{report:?}");
    assert!(report.is_balanced() && !report.is_complete());
    assert!(report.to_string().contains("3 quarantined"), "{report}");
    assert_eq!(file.counters("c")["full"], i64::MAX - 1);
}

/// Returns what a page of metrics says of increments.
fn increments(page: &str, name: &str) -> u64 {
    let start = format!("countem_increments_{name} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&start));
    value.unwrap_or_else(|| panic!("no `{start}` in\n{page}")).parse().unwrap()
}

fn batches(collector: &Collector) -> u64 {
    collector.stats().lanes.iter().map(|lane| lane.batches).sum()
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
