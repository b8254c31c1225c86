//! The schedule belongs to the store.
//!
//! Shows G19.

use std::{path::Path, sync::Arc, time::Duration};

use countem_core::{Period, ScheduleConfig, Schedules};
use countem_journal::JournalConfig;
use countem_store::{Counters, Store};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{Setup, bucket, counters, eventually, name, quiet, start, start_at, start_on, start_with};
use crate::{Clock, Durability, Engine, EngineConfig, StartError};

/// Days begin at half past six in the evening.
fn kolkata(periods: impl IntoIterator<Item = Period>) -> ScheduleConfig {
    ScheduleConfig {
        zone: Some(TimeZone::get("Asia/Kolkata").unwrap()),
        ..ScheduleConfig::of_periods(periods)
    }
}

fn with(schedule: ScheduleConfig) -> EngineConfig {
    EngineConfig { schedule, ..quiet() }
}

async fn recorded(setup: &Setup) -> Schedules {
    setup.store.inner().schedules().await.unwrap().unwrap()
}

/// Another writer changes the schedule of the store at noon.
async fn change(setup: &Setup, schedule: ScheduleConfig) -> Timestamp {
    let config = with(ScheduleConfig { change: true, ..schedule });
    let now = "2026-11-20T12:00:00Z".parse().unwrap();
    let agreed =
        crate::agree_on_schedules(setup.store.inner(), &config.schedule, now, SignedDuration::from_hours(1));
    agreed.await.unwrap().changed_at().unwrap()
}

#[tokio::test]
async fn other_configuration_is_refused_at_start() {
    let setup = start(with(kolkata([Period::Day]))).await;
    for schedule in [
        ScheduleConfig { zone: Some(TimeZone::UTC), ..ScheduleConfig::default() },
        kolkata([Period::Hour, Period::Day]),
        ScheduleConfig { own: [(name("c"), vec![Period::Hour])].into(), ..ScheduleConfig::default() },
    ] {
        let store: Arc<dyn Store> = setup.store.clone();
        let started = Engine::start(with(schedule), Clock::System, async move { Ok(store) }).await;
        assert!(matches!(started, Err(StartError::Conflict(_))), "{started:?}");
    }
    assert_eq!(recorded(&setup).await.revision(), 1);
}

#[tokio::test]
async fn unset_keys_are_those_of_the_store() {
    let setup = start(with(kolkata([Period::Hour]))).await;
    let other = start_with(quiet(), setup.store.clone(), setup.faults.clone(), "2026-11-20T19:00:00Z").await;
    other.engine.increment("c", "m", 1).unwrap();
    assert_eq!(other.read("2026-11-20T19").await, counters(&[("m", 1)]));
    other.engine.flush().await;
    assert_eq!(setup.stored("2026-11-20T19").await, counters(&[("m", 1)]));
    let when = countem_query::When::default();
    let today = other.engine.reader().bucket(when, other.engine.now()).await.unwrap();
    assert_eq!(today, bucket("2026-11-21"));
}

#[tokio::test]
async fn announced_change_is_adopted_while_counting() {
    let setup = start(with(ScheduleConfig::of_periods([Period::Day, Period::Month]))).await;
    let (handle, own) = (setup.engine.counter("c", "h").unwrap(), setup.engine.counter("own", "h").unwrap());
    let mut changed = kolkata([Period::Hour, Period::Month]);
    changed.own = [(name("own"), vec![Period::Minute])].into();
    let since = change(&setup, changed).await;
    assert_eq!(since, "2026-11-21T00:00:00Z".parse().unwrap());

    let count = |n| {
        for collection in ["c", "own"] {
            setup.engine.increment(collection, "m", n).unwrap();
        }
        handle.increment(n);
        own.increment(n);
    };
    count(1);
    setup.engine.flush().await;
    for (now, n) in
        [("2026-11-20T23:59:59Z", 10), ("2026-11-21T00:00:00Z", 100), ("2026-11-21T00:40:30Z", 1000)]
    {
        setup.clock.set(now.parse().unwrap());
        count(n);
    }
    assert!(setup.engine.flush().await);
    let both = |n| counters(&[("h", n), ("m", n)]);
    assert_eq!(setup.stored("2026-11-20").await, both(11), "until midnight as before");
    assert_eq!(setup.stored("2026-11-21").await, Counters::default());
    assert_eq!(setup.stored("2026-11-21T00").await, both(1100));
    assert_eq!(setup.stored("2026-11").await, both(1111));
    let reader = setup.engine.reader();
    let own = async |id| reader.get_counters(&name("own"), bucket(id)).await.unwrap();
    assert_eq!(own("2026-11-20").await, both(11));
    assert_eq!(own("2026-11-21T00:00").await, both(100));
    assert_eq!(own("2026-11-21T00:40").await, both(1000));
    assert_eq!(own("all").await, both(1111));
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.applied, stats.quarantined), (16, 16, 0));
}

#[tokio::test]
async fn counts_of_an_unknown_change_are_quarantined() {
    let setup = start(with(ScheduleConfig::of_periods([Period::Day]))).await;
    setup.faults.hide_schedules(true);
    let since = change(&setup, ScheduleConfig::of_periods([Period::Hour])).await;
    setup.engine.increment("c", "m", 1).unwrap();
    setup.clock.set(since);
    setup.engine.increment("c", "m", 10).unwrap();
    setup.engine.increment_at("c", "m", 100, since - SignedDuration::from_secs(1)).unwrap();
    setup.faults.hide_schedules(false);
    assert!(setup.engine.flush().await);
    setup.engine.increment("c", "m", 1000).unwrap();
    assert!(setup.engine.flush().await);
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("m", 101)]));
    assert_eq!(setup.stored("2026-11-21").await, Counters::default());
    assert_eq!(setup.read("2026-11-21").await, counters(&[("m", 1000)]), "by hours");
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.applied, stats.quarantined), (4, 3, 1));
    assert!(stats.quarantine[0].reason.contains("another schedule"), "{:?}", stats.quarantine);
    assert!(stats.is_balanced());
}

#[tokio::test]
async fn flush_ends_where_all_pending_is_quarantined() {
    let setup = start(with(ScheduleConfig::of_periods([Period::Day]))).await;
    setup.faults.hide_schedules(true);
    let since = change(&setup, ScheduleConfig::of_periods([Period::Hour])).await;
    setup.clock.set(since);
    setup.engine.increment("c", "m", 1).unwrap();
    setup.faults.hide_schedules(false);
    let flush = tokio::time::timeout(Duration::from_secs(20), setup.engine.flush());
    assert!(flush.await.unwrap());
    let stats = setup.engine.stats();
    assert_eq!((stats.quarantined, stats.pending), (1, 0));
}

#[tokio::test]
async fn nothing_is_sent_before_the_schedules_agree() {
    let before = start(with(kolkata([Period::Day]))).await;
    before.faults.hide_schedules(true);
    let utc = ScheduleConfig { zone: Some(TimeZone::UTC), ..ScheduleConfig::default() };
    let config = EngineConfig { shutdown_deadline: Duration::from_millis(50), ..with(utc) };
    let setup = start_on(config, &before).await;
    setup.engine.increment("c", "m", 1).unwrap();
    before.faults.hide_schedules(false);
    let flush = tokio::spawn({
        let engine = setup.engine.clone();
        async move { engine.flush().await }
    });
    let lanes = || setup.engine.stats().lanes;
    eventually("the refusal", || {
        lanes()
            .iter()
            .any(|lane| lane.last_error.as_ref().is_some_and(|error| error.contains("`Asia/Kolkata`")))
    })
    .await;
    let refused = setup.engine.reader().get_counters(&name("c"), bucket("2026-11-20")).await;
    assert!(refused.unwrap_err().to_string().contains("`Asia/Kolkata`"));
    let report = setup.engine.shutdown().await;
    assert_eq!((report.dropped, report.applied), (1, 0), "{report}");
    assert!(!flush.await.unwrap());
    assert!(setup.store.inner().collections().await.unwrap().is_empty());
}

fn journaled(dir: &Path, schedule: ScheduleConfig) -> EngineConfig {
    let options = JournalConfig::new(dir);
    EngineConfig {
        durability: Durability::Journal { options, tick: Duration::from_secs(3600) },
        shutdown_deadline: Duration::from_millis(20),
        ..with(schedule)
    }
}

#[tokio::test]
async fn journal_remembers_by_which_schedule_it_counted() {
    let dir = tempfile::tempdir().unwrap();
    let other = start_at(with(kolkata([Period::Day])), "2026-11-20T20:00:00Z").await;
    other.faults.hide_schedules(true);
    let utc = ScheduleConfig { zone: Some(TimeZone::UTC), ..ScheduleConfig::default() };
    let at = |schedule| {
        start_with(
            journaled(dir.path(), schedule),
            other.store.clone(),
            other.faults.clone(),
            "2026-11-20T20:00:00Z",
        )
    };
    let first = at(utc).await;
    first.engine.increment("c", "m", 1).unwrap();
    first.engine.durable().await.unwrap();
    let report = first.engine.shutdown().await;
    assert_eq!(report.journaled, 1, "{report}");

    // The store is still away: counting goes on as before.
    let second = at(ScheduleConfig::default()).await;
    second.engine.increment("c", "m", 10).unwrap();
    second.engine.durable().await.unwrap();
    assert_eq!(second.engine.shutdown().await.journaled, 2);

    other.faults.hide_schedules(false);
    let third = at(ScheduleConfig::default()).await;
    third.engine.increment("c", "m", 100).unwrap();
    assert!(third.engine.flush().await);
    assert_eq!(other.stored("2026-11-20").await, Counters::default(), "a day of another zone");
    assert_eq!(third.read("2026-11-21").await, counters(&[("m", 100)]));
    let stats = third.engine.stats();
    assert_eq!((stats.applied, stats.quarantined), (1, 2), "{stats:?}");
    let report = third.engine.shutdown().await;
    assert!(report.is_balanced(), "{report}");
    // Nothing comes back.
    let fourth = at(ScheduleConfig::default()).await;
    assert_eq!(fourth.engine.stats().pending, 0);
    assert_eq!(fourth.read("2026-11-21").await, counters(&[("m", 100)]));
}

#[tokio::test]
async fn counts_ahead_of_a_change_prevent_it() {
    let config = EngineConfig { future_window: Duration::from_secs(7 * 86_400), ..quiet() };
    let setup = start(config).await;
    setup.engine.increment_at("c", "m", 1, "2026-11-25T12:00:00Z".parse().unwrap()).unwrap();
    assert!(setup.engine.flush().await);
    let wanted = ScheduleConfig { change: true, ..ScheduleConfig::of_periods([Period::Hour]) };
    let now = "2026-11-20T12:00:00Z".parse().unwrap();
    let agree =
        async |now| crate::agree_on_schedules(setup.store.inner(), &wanted, now, SignedDuration::ZERO).await;
    let refused = agree(now).await.unwrap_err().to_string();
    assert!(refused.contains("`c` holds counts of `2026-11-25` already"), "{refused}");
    assert_eq!(recorded(&setup).await.revision(), 1);
    let later = agree("2026-11-25T13:00:00Z".parse().unwrap()).await.unwrap();
    assert_eq!(later.changed_at(), Some("2026-11-26T00:00:00Z".parse().unwrap()));
}
