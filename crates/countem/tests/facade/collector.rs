//! Collectors: scopes, guards, and collectors for tests.

use countem::{Collector, ErrorKind, Period};

#[test]
fn collector_for_test_follows_its_clock() {
    let (collector, clock) = Collector::for_test();
    collector.increment("c", "m", 1);
    clock.set("2026-01-02T00:00:00Z".parse().unwrap());
    collector.increment("c", "m", 2);
    let reads = collector.blocking();
    assert_eq!(reads.get("c", "m", None).unwrap(), Some(2));
    assert_eq!(reads.get("c", "m", Period::Month).unwrap(), Some(3));
}

#[tokio::test]
async fn collector_for_test_works_in_async_tests() {
    let (collector, _clock) = Collector::for_test();
    collector.increment_durable("c", "m", 1).await.unwrap();
    assert_eq!(collector.get_counters("c", None).await.unwrap()["m"], 1);
    // A dropped guard blocks, which must not panic here.
    drop(collector.guard());
    assert_eq!(collector.increment_durable("c", "m", 1).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn scope_counts_in_its_collection() {
    let (collector, _clock) = Collector::for_test();
    let scope = collector.scoped("app-events").unwrap();
    scope.increment("m", 1);
    scope.try_increment("m", 2).unwrap();
    scope.counter("m").unwrap().increment(4);
    assert_eq!(collector.blocking().get("app-events", "m", None).unwrap(), Some(7));
    assert!(collector.scoped("no spaces").is_err());
}

#[test]
fn dropped_guard_stores_what_is_pending() {
    let (collector, _clock) = Collector::for_test();
    let guard = collector.guard();
    collector.increment("c", "m", 5);
    assert_eq!(collector.stats().pending, 1);
    drop(guard);
    assert_eq!((collector.stats().applied, collector.stats().pending), (1, 0));
}
