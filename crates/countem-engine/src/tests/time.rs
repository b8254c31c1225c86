//! The bucket is fixed when counted (I3).
//!
//! Shows G3.

use std::sync::Arc;

use countem_core::{Bucket, CollectionName, Period, ScheduleConfig};
use countem_store::{Fault, MemoryStore, RowQuery, Store};
use jiff::{Timestamp, tz::TimeZone};

use super::{counters, quiet, start_at};
use crate::{Clock, Engine, EngineConfig, Refusal};

#[tokio::test]
async fn delta_counted_before_midnight_lands_on_that_day() {
    let setup = start_at(quiet(), "2026-11-20T23:59:59.999Z").await;
    let handle = setup.engine.counter("c", "a").unwrap();
    setup.engine.increment("c", "a", 1).unwrap();
    handle.increment(10);
    setup.clock.set("2026-11-21T00:00:00Z".parse().unwrap());
    setup.engine.increment("c", "a", 100).unwrap();
    handle.increment(1000);
    setup.clock.set("2026-11-22T09:00:00Z".parse().unwrap());
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 11)]));
    assert_eq!(setup.stored("2026-11-21").await, counters(&[("a", 1100)]));
    assert_eq!(setup.stored("2026-11-22").await, counters(&[]));
}

#[tokio::test]
async fn delta_before_long_local_midnight_keeps_its_day() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    // 2026-10-25 has 25 hours: 22:59:59.999 UTC is 23:59:59.999 of that day, not of the day before or after.
    let schedule = ScheduleConfig { zone: Some(zone), ..ScheduleConfig::default() };
    let setup = start_at(EngineConfig { schedule, ..quiet() }, "2026-10-25T22:59:59.999Z").await;
    setup.engine.increment("c", "a", 1).unwrap();
    setup.clock.set("2026-10-25T23:00:00Z".parse().unwrap());
    setup.engine.increment("c", "a", 10).unwrap();
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-10-25").await, counters(&[("a", 1)]));
    assert_eq!(setup.stored("2026-10-26").await, counters(&[("a", 10)]));
}

#[tokio::test]
async fn outage_over_midnight_moves_no_count() {
    let setup = start_at(quiet(), "2026-11-20T23:59:00Z").await;
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "a", 1).unwrap();
    let engine = setup.engine.clone();
    let flushing = tokio::spawn(async move { engine.flush().await });
    super::eventually("a failed attempt", || setup.faults.calls() > 2).await;
    setup.engine.increment("c", "a", 10).unwrap();
    setup.clock.set("2026-11-21T00:01:00Z".parse().unwrap());
    setup.engine.increment("c", "a", 100).unwrap();
    setup.faults.otherwise(Fault::None);
    flushing.await.unwrap();
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 11)]));
    assert_eq!(setup.stored("2026-11-21").await, counters(&[("a", 100)]));
}

#[tokio::test]
async fn clock_set_back_counts_on_the_earlier_day() {
    let setup = start_at(quiet(), "2026-11-21T00:00:00Z").await;
    setup.engine.increment("c", "a", 1).unwrap();
    setup.clock.set("2026-11-20T23:59:59Z".parse().unwrap());
    setup.engine.increment("c", "a", 10).unwrap();
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 10)]));
    assert_eq!(setup.stored("2026-11-21").await, counters(&[("a", 1)]));
}

#[tokio::test]
async fn every_stored_period_counts_and_increments_count_once() {
    let periods = [Period::Hour, Period::Day, Period::Week, Period::All];
    let zone = Some(TimeZone::get("Asia/Kolkata").unwrap());
    let schedule = ScheduleConfig { zone, ..ScheduleConfig::of_periods(periods) };
    let setup = start_at(EngineConfig { schedule, ..quiet() }, "2026-11-20T18:29:59Z").await;
    setup.engine.increment("c", "a", 1).unwrap();
    // Half past six in UTC is midnight in Kolkata: the same UTC hour, another day.
    setup.clock.set("2026-11-20T18:30:00Z".parse().unwrap());
    setup.engine.increment("c", "a", 10).unwrap();
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-11-20T18").await, counters(&[("a", 11)]));
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 1)]));
    assert_eq!(setup.stored("2026-11-21").await, counters(&[("a", 10)]));
    assert_eq!(setup.stored("2026-W47").await, counters(&[("a", 11)]));
    assert_eq!(setup.stored("all").await, counters(&[("a", 11)]));
    assert_eq!(
        setup.read("2026-11-20T18").await,
        counters(&[("a", 11)]),
        "a stored hour in two days is still an hour"
    );
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.applied), (2, 2));
}

#[tokio::test]
async fn increment_with_a_time_lands_on_its_day() {
    let setup = start_at(quiet(), "2026-11-20T12:00:00Z").await;
    setup.engine.increment_at("c", "a", 1, "2026-01-02T03:04:05Z".parse().unwrap()).unwrap();
    let too_late = setup.engine.increment_at("c", "a", 1, "2026-11-20T14:00:00Z".parse().unwrap());
    assert!(matches!(too_late, Err(Refusal::Window { .. })));
    let too_early = setup.engine.increment_at("c", "a", 1, "2020-11-20T14:00:00Z".parse().unwrap());
    assert!(matches!(too_early, Err(Refusal::Window { .. })));
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-01-02").await, counters(&[("a", 1)]));
    assert_eq!(setup.engine.stats().refused["time"], 2);
}

/// A flush of millions of counters keeps the runtime busy for seconds.
#[tokio::test]
async fn buckets_advance_while_the_runtime_is_busy() {
    let store = Arc::new(MemoryStore::new());
    let opened: Arc<dyn Store> = store.clone();
    let config = EngineConfig { schedule: ScheduleConfig::of_periods([Period::Second]), ..quiet() };
    let engine = Engine::start(config, Clock::System, async move { Ok(opened) }).await.unwrap();
    let (busy, idle) = std::sync::mpsc::channel::<()>();
    let idle = Arc::new(std::sync::Mutex::new(idle));
    for _ in 0..8 {
        let idle = Arc::clone(&idle);
        // Blocks a worker until the test has counted.
        engine.runtime().spawn(async move { idle.lock().unwrap().recv().ok() });
    }
    let began = Timestamp::now();
    let in_the_next_second = loop {
        let now = Timestamp::now();
        // Far from the turn, so that a machine that is busy itself does not spoil it.
        if now.as_second() > began.as_second() && now.subsec_millisecond() >= 500 {
            break now;
        }
        std::thread::yield_now();
    };
    engine.increment("c", "m", 1).unwrap();
    drop(busy);
    engine.flush().await;
    let second = Bucket::containing(Period::Second, in_the_next_second, &TimeZone::UTC).unwrap();
    let query = RowQuery::bucket(CollectionName::new("c").unwrap(), second);
    let stored = store.read(&query, None).await.unwrap();
    assert_eq!(stored.get(&second), Some(&counters(&[("m", 1)])), "{second}: {stored:?}");
}
