//! Totals are exact under load, whatever else happens meanwhile.
//!
//! Shows G2 and G5.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use countem::{Collector, Error, Refusal, engine::EngineConfig};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{CounterFile, eventually};

#[test]
fn totals_are_exact_while_the_router_resizes() {
    const THREADS: usize = 8;
    const EACH: i64 = 30_000;
    let seed = rand::random();
    println!("seed {seed}");
    let file = CounterFile::new();
    let config = EngineConfig {
        flush_interval: Duration::from_millis(2),
        collectors_max: Some(8),
        ..EngineConfig::default()
    };
    let collector = file.builder().engine_config(config).start_blocking().unwrap();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let collector = &collector;
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed + worker as u64);
                    let handle = collector.counter("c", "by-handle").unwrap();
                    for _ in 0..EACH {
                        collector.increment("c", &format!("m{}", random.random_range(0..50)), 1);
                        collector.increment(&format!("d{}", random.random_range(0..5)), "m", 2);
                        handle.increment(3);
                    }
                })
            })
            .collect();
        let mut random = StdRng::seed_from_u64(seed);
        let mut sizes = std::collections::BTreeSet::new();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            sizes.insert(collector.resize(random.random_range(1..=8)));
            thread::yield_now();
        }
        assert!(sizes.len() > 2, "the router was hardly resized: {sizes:?}");
    });
    let report = collector.blocking().shutdown();
    assert!(report.is_complete() && report.is_balanced(), "{report:?}");
    let increments = THREADS as i64 * EACH;
    assert_eq!(report.accepted, 3 * increments.cast_unsigned());
    let c = file.counters("c");
    assert_eq!(c["by-handle"], 3 * increments);
    assert_eq!(c.values().map(Result::unwrap).sum::<i64>(), 4 * increments);
    assert_eq!((0..5).map(|d| file.sum(&format!("d{d}"))).sum::<i64>(), 2 * increments);
}

/// Counts until the collector refuses, and returns how many increments it accepted.
fn count_until_closed(collector: &Collector, started: &AtomicU64) -> u64 {
    let handle = collector.counter("c", "by-handle").unwrap();
    let mut accepted = 0;
    for metric in (0..100).map(|metric| format!("m{metric}")).collect::<Vec<_>>().iter().cycle() {
        // The one may be closed a moment before the other, so each has to be refused once.
        let attempts = [collector.try_increment("c", metric, 1), handle.try_increment(1)];
        accepted += attempts.iter().filter(|attempt| attempt.is_ok()).count() as u64;
        if attempts.iter().all(|attempt| *attempt == Err(Refusal::Closed)) {
            return accepted;
        }
        started.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("the metrics never end")
}

#[test]
fn shutdown_under_load_accounts_for_every_accepted_increment() {
    for _ in 0..5 {
        let file = CounterFile::new();
        let collector = file.builder().flush_interval(Duration::from_millis(3)).start_blocking().unwrap();
        let started = AtomicU64::new(0);
        let (report, accepted) = thread::scope(|scope| {
            let workers = [(); 4].map(|()| scope.spawn(|| count_until_closed(&collector, &started)));
            eventually("counting", || started.load(Ordering::Relaxed) > 10_000);
            let report = collector.blocking().shutdown();
            (report, workers.map(|worker| worker.join().unwrap()).iter().sum::<u64>())
        });
        assert_eq!(report.accepted, accepted, "what the threads were told and what the report says");
        assert!(report.is_balanced() && report.is_complete(), "{report:?}");
        assert_eq!(file.sum("c").cast_unsigned(), accepted, "what is in the file");
        assert!(collector.stats().is_balanced());
    }
}

#[test]
fn shutdown_during_outage_reports_what_is_not_stored() {
    let file = CounterFile::new();
    let collector = file.builder().shutdown_deadline(Duration::from_millis(50)).start_blocking().unwrap();
    for _ in 0..10 {
        collector.increment("c", "a", 1);
    }
    collector.blocking().flush().unwrap();
    let away = file.lock();
    for _ in 0..20 {
        collector.increment("c", "a", 1);
    }
    // A batch is on its way when the shutdown begins, and other increments are not.
    let flushing = thread::spawn({
        let collector = collector.clone();
        move || collector.blocking().flush()
    });
    eventually("a drained table", || collector.stats().pending_counters > 0);
    for _ in 0..40 {
        collector.increment("c", "a", 1);
    }
    let report = collector.blocking().shutdown();
    assert!(report.is_balanced() && !report.is_complete(), "{report:?}");
    assert_eq!((report.accepted, report.applied, report.quarantined), (70, 10, 0), "{report:?}");
    assert_eq!(report.dropped + report.in_doubt, 60, "{report:?}");
    drop(away);
    // Whatever was in doubt is now stored or not, and nothing else is.
    drop(collector);
    let stored = file.sum("c").cast_unsigned();
    assert!(stored == report.applied || stored == report.applied + report.in_doubt, "{stored} {report:?}");
    let told = flushing.join().unwrap();
    assert!(matches!(told, Err(Error::NotStored)), "{told:?}");
}

#[test]
fn outage_costs_bounded_memory_and_no_accepted_count() {
    let file = CounterFile::new();
    let hour = Duration::from_secs(3600);
    let config = EngineConfig { pending_counters: 1000, flush_interval: hour, ..EngineConfig::default() };
    let collector = file.builder().engine_config(config).start_blocking().unwrap();
    let away = file.lock();
    let metrics: Vec<_> = (0..5000).map(|n| format!("m{n}")).collect();
    let (known, refused): (Vec<_>, Vec<_>) =
        metrics.iter().partition(|metric| match collector.try_increment("c", metric, 1) {
            Ok(()) => true,
            Err(Refusal::Full) => false,
            Err(other) => panic!("{other}"),
        });
    assert!((500..=1000).contains(&known.len()), "{} new counters were accepted", known.len());
    // What is pending already needs no more room, however often it is counted.
    for _ in 0..20 {
        known.iter().for_each(|metric| collector.try_increment("c", metric, 1).unwrap());
    }
    let stats = collector.stats();
    assert!(stats.is_balanced() && stats.pending_counters <= 1000, "{stats:?}");
    assert_eq!(stats.refused["full"], refused.len() as u64);
    drop(away);
    let report = collector.blocking().shutdown();
    assert!(report.is_complete() && report.accepted == 21 * known.len() as u64, "{report:?}");
    let stored = file.counters("c");
    assert_eq!(stored.len(), known.len());
    assert!(known.iter().all(|metric| stored[*metric] == 21));
}

#[tokio::test]
async fn dropped_shutdown_goes_on_with_one_report() {
    let file = CounterFile::new();
    let collector = file.builder().start().await.unwrap();
    collector.flush().await.unwrap();
    let away = file.lock();
    collector.increment("c", "a", 1);
    // The store is locked, so the future is not ready: it is polled once and dropped.
    tokio::select! {
        biased;
        report = collector.shutdown() => panic!("{report:?} without the store"),
        () = std::future::ready(()) => {}
    }
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let collector = collector.clone();
            tokio::spawn(async move { collector.shutdown().await })
        })
        .collect();
    drop(away);
    for caller in callers {
        let report = caller.await.unwrap();
        assert!(report.is_complete() && report.accepted == 1, "{report:?}");
        assert_eq!(report, collector.shutdown().await);
    }
    assert_eq!(file.sum("c"), 1);
}

#[test]
fn stored_totals_equal_counts_of_two_producers() {
    let file = CounterFile::new();
    let collector = file.builder().flush_interval(Duration::from_millis(100)).start_blocking().unwrap();
    let metrics: Vec<_> = (0..1000).map(|n| format!("metric-{n:04}.calls.ok")).collect();
    let end = Instant::now() + Duration::from_secs(2);
    let counted = thread::scope(|scope| {
        let produce = || {
            let round = |_| metrics.iter().for_each(|metric| collector.increment("soak", metric, 1));
            (0..).take_while(|_| Instant::now() < end).map(round).count()
        };
        let producers = [scope.spawn(produce), scope.spawn(produce)];
        producers.map(|producer| producer.join().unwrap()).iter().sum::<usize>()
    });
    assert!(collector.blocking().shutdown().is_complete());
    let stored = file.counters("soak");
    assert_eq!(stored.len(), 1000);
    assert!(stored.values().all(|value| value == Ok(counted as i64)), "{counted} each: {stored:?}");
    println!("{} increments", 1000 * counted);
}
