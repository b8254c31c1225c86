//! Refused increments, and increments that are accepted under another name.
//!
//! Shows G16 and G17.

use countem_core::{Labelled, OVERFLOW_METRIC, Period, ScheduleConfig};
use countem_store::Fault;

use super::{counters, quiet, start};
use crate::{EngineConfig, Refusal};

#[tokio::test]
async fn refused_increment_has_a_reason_and_is_counted() {
    let setup = start(quiet()).await;
    assert!(matches!(setup.engine.increment("c", "", 1), Err(Refusal::Name(_))));
    assert!(matches!(setup.engine.increment("c d", "m", 1), Err(Refusal::Name(_))));
    setup.engine.increment("c", "m", i64::MAX).unwrap();
    assert_eq!(setup.engine.increment("c", "m", 1), Err(Refusal::Overflow));
    setup.engine.shutdown().await;
    assert_eq!(setup.engine.increment("c", "m", 1), Err(Refusal::Closed));
    let refused = setup.engine.stats().refused;
    assert_eq!((refused["name"], refused["overflow"], refused["closed"]), (2, 1, 1));
}

#[tokio::test]
async fn handle_is_refused_after_the_shutdown() {
    let setup = start(quiet()).await;
    let old = setup.engine.counter("c", "a").unwrap();
    old.increment(1);
    assert!(setup.engine.shutdown().await.is_complete());
    assert_eq!(old.try_increment(1), Err(Refusal::Closed));
    assert_eq!(setup.engine.counter("c", "b").unwrap().try_increment(1), Err(Refusal::Closed));
}

#[tokio::test]
async fn total_beyond_the_cap_stays_exact() {
    let setup = start(EngineConfig { metrics_per_bucket: 10, ..quiet() }).await;
    for round in 0..3 {
        for metric in 0..25 {
            setup.engine.increment("c", &format!("m{metric:02}"), 1).unwrap();
        }
        setup.engine.flush().await;
        let stored = setup.stored("2026-11-20").await;
        assert_eq!(stored.len(), 11);
        assert_eq!(stored.values().map(Result::unwrap).sum::<i64>(), 25 * (round + 1));
        assert_eq!(stored[OVERFLOW_METRIC], 15 * (round + 1));
    }
    assert_eq!(setup.engine.stats().overflowed["c"], 45);
}

#[tokio::test]
async fn total_beyond_the_label_sets_stays_exact() {
    let setup = start(EngineConfig { label_sets: 10, metrics_per_bucket: 100, ..quiet() }).await;
    let long = format!("{}{{a=\"1\"}}", "x".repeat(500));
    for round in 1..=3 {
        for user in 0..25 {
            setup.engine.increment("c", &format!("m{{user=\"{user:02}\"}}"), 1).unwrap();
            setup.engine.increment("c", &format!("n{{user=\"{}\"}}", user % 5), 1).unwrap();
            setup.engine.increment("c", &format!("plain {user}"), 1).unwrap();
            setup.engine.increment("c", &long, 1).unwrap();
        }
        setup.engine.flush().await;
        let stored = setup.stored("2026-11-20").await;
        let sum = |name: &str| {
            let of_name = stored.iter().filter(|(metric, _)| Labelled::split(metric).name == name);
            of_name.map(|(_, value)| *value.as_ref().unwrap()).collect::<Vec<_>>()
        };
        let (of_m, of_n) = (sum("m"), sum("n"));
        assert_eq!((of_m.len(), of_m.iter().sum::<i64>()), (11, 25 * round));
        assert_eq!(stored["m{__overflow__=\"true\"}"], 15 * round);
        assert_eq!((of_n.len(), of_n.iter().sum::<i64>()), (5, 25 * round));
        assert_eq!(stored["plain 24"], round);
        assert_eq!(stored[&*long], 25 * round);
        assert_eq!(stored.len(), 11 + 5 + 25 + 1);
    }
    assert_eq!(setup.engine.stats().overflowed["c"], 45);
}

#[tokio::test]
async fn full_engine_counts_known_and_refuses_new_counters() {
    let config = EngineConfig { pending_counters: 64, collectors_min: 1, collectors_max: Some(1), ..quiet() };
    let setup = start(config).await;
    setup.faults.otherwise(Fault::Fail);
    let results: Vec<_> =
        (0..200).map(|metric| setup.engine.increment("c", &format!("m{metric}"), 1)).collect();
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    assert!((32..=96).contains(&accepted), "{accepted} were accepted");
    assert!(results.iter().skip(accepted).all(|result| *result == Err(Refusal::Full)));
    for _ in 0..100 {
        setup.engine.increment("c", "m0", 1).unwrap();
    }
    assert_eq!(setup.engine.increment("c", "new", 1), Err(Refusal::Full));
    setup.faults.otherwise(Fault::None);
    setup.engine.flush().await;
    setup.engine.increment("c", "new", 1).unwrap();
    setup.engine.flush().await;
    let stored = setup.stored("2026-11-20").await;
    assert_eq!(stored["m0"], 101);
    assert_eq!(stored.values().map(Result::unwrap).sum::<i64>(), i64::try_from(accepted).unwrap() + 101);
    assert!(setup.engine.stats().is_balanced());
}

#[tokio::test]
async fn full_engine_counts_known_counters_in_every_period() {
    let config = EngineConfig { pending_counters: 64, collectors_min: 1, collectors_max: Some(1), ..quiet() };
    let setup =
        start(EngineConfig { schedule: ScheduleConfig::of_periods([Period::Hour, Period::Day]), ..config })
            .await;
    setup.faults.otherwise(Fault::Fail);
    let mut known = 0;
    while setup.engine.increment("c", &format!("m{known}"), 1).is_ok() {
        known += 1;
    }
    for _ in 0..100 {
        setup.engine.increment("c", "m0", 1).unwrap();
    }
    assert!(setup.engine.stats().is_balanced());
    setup.faults.otherwise(Fault::None);
    setup.engine.flush().await;
    for bucket in ["2026-11-20T12", "2026-11-20"] {
        let stored = setup.stored(bucket).await;
        assert_eq!((stored["m0"], stored.len()), (101, known), "{bucket}");
    }
    assert_eq!(setup.engine.stats().applied, known as u64 + 100);
}

#[tokio::test]
async fn counter_at_its_limit_is_quarantined_alone() {
    let setup = start(quiet()).await;
    setup.engine.increment("c", "big", i64::MAX).unwrap();
    setup.engine.flush().await;
    setup.engine.increment("c", "big", 1).unwrap();
    setup.engine.increment("c", "a", 1).unwrap();
    setup.engine.increment("c", "a", 1).unwrap();
    setup.engine.flush().await;
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.applied, stats.quarantined), (4, 3, 1));
    assert_eq!((stats.quarantine[0].metric.as_str(), stats.quarantine[0].n), ("big", 1));
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 2), ("big", i64::MAX)]));
}

#[tokio::test]
async fn overflow_across_threads_quarantines_one_part() {
    let setup = start(EngineConfig { collectors_min: 2, collectors_max: Some(2), ..quiet() }).await;
    let handle = setup.engine.counter("c", "m").unwrap();
    setup.engine.increment("c", "m", i64::MAX).unwrap();
    handle.increment(i64::MAX);
    setup.engine.flush().await;
    let report = setup.engine.shutdown().await;
    assert_eq!((report.accepted, report.applied, report.quarantined), (2, 1, 1));
}

#[tokio::test]
async fn handles_made_without_room_keep_the_limit() {
    let setup = start(EngineConfig { pending_counters: 4, collectors_max: Some(1), ..quiet() }).await;
    let mut filled = 0;
    while setup.engine.increment("c", &format!("filler {filled}"), 1).is_ok() {
        filled += 1;
    }
    let handles: Vec<_> = (0..1000).map(|i| setup.engine.counter("c", &format!("m{i}")).unwrap()).collect();
    assert!(setup.engine.flush().await);
    let count = || handles.iter().filter(|handle| handle.try_increment(1).is_ok()).count();
    (0..5).for_each(|_| assert!(count() <= 1000));
    let pending = setup.engine.stats().pending;
    assert!(pending <= 5 * 2 * 4, "{pending} increments of five rounds are pending");
    assert!(setup.engine.flush().await);
    assert!(count() > 0, "there is room again");
}
