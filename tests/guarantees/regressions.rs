//! Mistakes that were made once, each with the law it broke.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use countem::{
    Error,
    engine::{Clock, EngineConfig, ManualClock, ReadError},
};

use crate::support::*;

#[test]
fn collection_counted_before_a_listing_is_in_it() {
    let file = CounterFile::new();
    let collector = file.builder().flush_interval(Duration::from_millis(1)).start_blocking().unwrap();
    for round in 0..500 {
        let name = format!("c{round}");
        collector.increment(&name, "a", 1);
        let listed = collector.blocking().collections().unwrap();
        assert!(listed.iter().any(|listed| listed.as_str() == name), "{name} is missing");
        if round % 10 == 0 {
            assert!(collector.blocking().get_all_counters(None).unwrap().contains_key(name.as_str()));
        }
    }
}

#[test]
fn waiting_durable_increment_fails_when_shutdown_gives_up() {
    let file = CounterFile::new();
    let collector = file.builder().shutdown_deadline(Duration::from_millis(50)).start_blocking().unwrap();
    let away = file.lock();
    let waiting = thread::spawn({
        let collector = collector.clone();
        move || collector.blocking().increment_durable("c", "a", 1)
    });
    eventually("a drained table", || collector.stats().pending_counters > 0);
    assert!(!collector.blocking().shutdown().is_complete());
    let told = waiting.join().unwrap();
    assert!(matches!(told, Err(Error::NotDurable(_))), "{told:?}");
    assert!(collector.blocking().increment_durable("c", "a", 1).is_err());
    let told = collector.blocking().flush();
    assert!(matches!(told, Err(Error::NotStored)), "{told:?}");
    drop(away);
}

#[test]
fn read_after_shutdown_reports_a_closed_collector() {
    let file = CounterFile::new();
    let collector = file.builder().start_blocking().unwrap();
    collector.increment("c", "a", 1);
    collector.blocking().shutdown();
    for _ in 0..100 {
        let read = collector.blocking().get_counters("c", None);
        assert!(matches!(read, Err(Error::Read(ReadError::Closed))), "{read:?}");
    }
}

#[test]
fn increments_follow_a_clock_that_was_set() {
    let file = CounterFile::new();
    let days = ["2026-11-20T12:00:00Z", "2026-11-21T12:00:00Z"].map(|moment| moment.parse().unwrap());
    let clock = ManualClock::new(days[0]);
    let config = EngineConfig { flush_interval: Duration::from_micros(10), ..EngineConfig::default() };
    let builder = file.builder().engine_config(config).clock(Clock::Manual(clock.clone()));
    let collector = builder.start_blocking().unwrap();
    for _ in 0..50_000 {
        for (day, metric) in days.iter().zip(["20", "21"]) {
            clock.set(*day);
            collector.increment("c", metric, 1);
        }
    }
    collector.blocking().shutdown();
    let per_day: Vec<_> = file.rows().values().map(|counters| counters.len()).collect();
    assert_eq!(per_day, [1, 1], "{:?}", file.rows());
}

#[test]
fn handles_keep_the_bound_on_pending_counters() {
    let file = CounterFile::new();
    let config = EngineConfig {
        pending_counters: 1000,
        flush_interval: Duration::from_secs(3600),
        ..EngineConfig::default()
    };
    let collector = file.builder().engine_config(config).start_blocking().unwrap();
    let away = file.lock();
    for n in 0..20_000 {
        collector.counter("c", &format!("m{n}")).unwrap().increment(1);
    }
    collector.blocking().get_counters("c", None).unwrap();
    // What is frozen and what came behind it, each within the bound.
    let stats = collector.stats();
    assert!(stats.pending_counters <= 2000, "{} counters are pending", stats.pending_counters);
    assert!(stats.refused["full"] > 0);
    drop(away);
    assert!(collector.blocking().shutdown().is_complete());
}

#[test]
fn counters_in_a_frozen_batch_are_known() {
    let file = CounterFile::new();
    let config = EngineConfig {
        pending_counters: 1000,
        flush_counters: 400,
        flush_interval: Duration::from_secs(3600),
        ..EngineConfig::default()
    };
    let collector = file.builder().engine_config(config).start_blocking().unwrap();
    let away = file.lock();
    let metrics: BTreeSet<_> = (0..5000).map(|n| format!("m{n}")).collect();
    let known: Vec<_> = metrics.iter().filter(|m| collector.try_increment("c", m, 1).is_ok()).collect();
    eventually("an attempt", || collector.stats().lanes.iter().any(|lane| lane.attempts > 0));
    let refused = known.iter().filter(|m| collector.try_increment("c", m, 1).is_err()).count();
    drop(away);
    assert_eq!(refused, 0, "of {} known", known.len());
    assert!(collector.blocking().shutdown().is_complete());
    assert_eq!(file.sum("c"), 2 * i64::try_from(known.len()).unwrap());
}

#[test]
fn shutdown_leaves_one_file_and_nothing_open() {
    let file = CounterFile::new();
    for round in 0..5 {
        let collector = file.builder().start_blocking().unwrap();
        collector.increment("c", "a", 1);
        assert!(collector.blocking().shutdown().is_complete());
        let names: Vec<_> =
            fs::read_dir(file.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 1, "round {round}: {names:?}");
    }
}

#[test]
fn collector_with_journal_starts_without_a_runtime() {
    let file = CounterFile::new();
    let collector = file.builder().journal(file.folder().join("journal")).start_blocking().unwrap();
    collector.blocking().increment_durable("c", "a", 1).unwrap();
    assert!(collector.blocking().shutdown().is_complete());
    assert_eq!(file.sum("c"), 1);
}
