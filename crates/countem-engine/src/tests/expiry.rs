//! Buckets that expire.

use countem_core::{Period, Retention, ScheduleConfig, jiff::SignedDuration};
use countem_query::ReadError;
use countem_store::Store as _;

use super::{Setup, bucket, counters, name, quiet, start};
use crate::{EngineConfig, Refusal};

/// Keeps minutes for two hours and days for two days.
fn expiring() -> EngineConfig {
    let retention = Retention::from([
        (Period::Minute, SignedDuration::from_hours(2)),
        (Period::Day, SignedDuration::from_hours(48)),
    ]);
    let periods = ScheduleConfig::of_periods([Period::Minute, Period::Day]);
    EngineConfig { schedule: ScheduleConfig { retention: Some(retention), ..periods }, ..quiet() }
}

async fn counted_at(setup: &Setup, time: &str) -> Result<(), Refusal> {
    let counted = setup.engine.increment_at("c", "m", 1, time.parse().unwrap());
    setup.engine.flush().await;
    counted
}

#[tokio::test]
async fn count_of_expired_minute_goes_to_its_day() {
    let setup = start(expiring()).await;
    counted_at(&setup, "2026-11-20T09:59:59Z").await.unwrap();
    counted_at(&setup, "2026-11-20T10:00:00Z").await.unwrap();
    assert_eq!(setup.stored("2026-11-20T09:59").await, counters(&[]));
    assert_eq!(setup.stored("2026-11-20T10:00").await, counters(&[("m", 1)]));
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("m", 2)]));
    let handle = setup.engine.counter("c", "m").unwrap();
    handle.increment(1);
    setup.engine.flush().await;
    assert_eq!(setup.read("2026-11-20").await, counters(&[("m", 3)]));
    let refused = counted_at(&setup, "2026-11-17T23:59:59Z").await;
    assert!(matches!(refused, Err(Refusal::Expired { .. })), "{refused:?}");
    counted_at(&setup, "2026-11-18T00:00:00Z").await.unwrap();
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.applied, stats.quarantined, stats.refused["expired"]), (4, 4, 0, 1));
}

#[tokio::test]
async fn expired_minutes_are_refused_then_removed() {
    let setup = start(expiring()).await;
    setup.engine.increment("c", "m", 1).unwrap();
    setup.engine.flush().await;
    setup.clock.set("2026-11-20T14:01:00Z".parse().unwrap());
    setup.engine.increment("c", "m", 10).unwrap();
    let read = setup.engine.reader().get_counters(&name("c"), bucket("2026-11-20T12:00")).await;
    assert!(matches!(read, Err(ReadError::Expired { .. })), "{read:?}");
    assert_eq!(setup.stored("2026-11-20T12:00").await, counters(&[("m", 1)]), "it is still there");
    setup.clock.set("2026-11-20T16:01:00Z".parse().unwrap());
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while setup.stored("2026-11-20T12:00").await != counters(&[]) {
        assert!(tokio::time::Instant::now() < deadline, "it was not removed");
        tokio::task::yield_now().await;
    }
    setup.engine.flush().await;
    assert_eq!(setup.read("2026-11-20").await, counters(&[("m", 11)]));
    assert_eq!(setup.store.remove_expired("2026-11-20T16:01:00Z".parse().unwrap(), 10).await.unwrap(), 0);
}
