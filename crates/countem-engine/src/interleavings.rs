//! Interleavings of increments with drains, reads, resizes, handles, bucket changes and the close, explored by shuttle.

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{MetricName, Period, ScheduleConfig, Writer};
use jiff::SignedDuration;
use shuttle::thread;

use crate::{
    Calendar, Clock, EngineConfig, ManualClock,
    collect::{Counted, Intake},
    deliver::{Lanes, Upstream},
    engine::counting,
};

const SCHEDULES: usize = 3000;

fn start(collectors: usize, clock: &ManualClock) -> (Arc<Intake>, Arc<Lanes>) {
    start_with_room(collectors, clock, EngineConfig::default().pending_counters)
}

fn start_with_room(
    collectors: usize,
    clock: &ManualClock,
    pending_counters: usize,
) -> (Arc<Intake>, Arc<Lanes>) {
    let config = EngineConfig {
        collectors_min: collectors,
        collectors_max: Some(3),
        lanes: 1,
        flush_counters: 2,
        pending_counters,
        ..EngineConfig::default()
    };
    let clock = Clock::Manual(clock.clone());
    let calendar = Arc::new(Calendar::new(Arc::new(config.schedule.schedules().unwrap()), clock.now()));
    clock.drive(&calendar);
    counting(&config, calendar, clock, &Writer::new(1, 1))
}

fn clock() -> ManualClock {
    ManualClock::new("2026-11-20T23:59:59Z".parse().unwrap())
}

/// Returns everything in the lanes: sum by metric, over all days.
fn merged(lanes: &Lanes) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for delta in lanes.of("c").lock().unsent() {
        *sums.entry(delta.metric.to_owned()).or_default() += delta.n;
    }
    sums
}

/// Returns the sum of a metric wherever it is, as a read sees it.
fn observed(intake: &Intake, lanes: &Lanes) -> i64 {
    intake.hold_still(|still| {
        let counted: i64 = still.copy(|_| true).iter().map(|delta| delta.n).sum();
        counted + merged(lanes).values().sum::<i64>()
    })
}

fn sums(of: &[(&str, i64)]) -> BTreeMap<String, i64> {
    of.iter().map(|(metric, n)| ((*metric).to_owned(), *n)).collect()
}

#[test]
fn drain_and_resize_keep_every_increment() {
    shuttle::check_random(
        || {
            let (intake, lanes) = start(2, &clock());
            let counting: Vec<_> = (0..2)
                .map(|_| {
                    let intake = Arc::clone(&intake);
                    thread::spawn(move || {
                        for metric in ["a", "b", "c", "a"] {
                            intake.increment("c", metric, 1).unwrap();
                        }
                    })
                })
                .collect();
            let draining = {
                let intake = Arc::clone(&intake);
                thread::spawn(move || (0..3).for_each(|index| intake.drain(index)))
            };
            let resizing = {
                let intake = Arc::clone(&intake);
                thread::spawn(move || {
                    intake.router().resize(3);
                    intake.drain(1);
                    intake.router().resize(1);
                })
            };
            for thread in counting.into_iter().chain([draining, resizing]) {
                thread.join().unwrap();
            }
            intake.drain_all();
            assert_eq!(merged(&lanes), sums(&[("a", 4), ("b", 2), ("c", 2)]));
            assert_eq!(intake.hold_still(|still| still.counted()), Counted { accepted: 8, unmerged: 0 });
        },
        SCHEDULES,
    );
}

#[test]
fn handle_keeps_counts_through_drains_and_midnight() {
    shuttle::check_random(
        || {
            let clock = clock();
            let (intake, lanes) = start(1, &clock);
            let handle = intake.counter("c".parse().unwrap(), MetricName::new("a").unwrap());
            let counting: Vec<_> = (0..2)
                .map(|_| {
                    let handle = handle.clone();
                    thread::spawn(move || (0..3).for_each(|_| handle.try_increment(1).unwrap()))
                })
                .collect();
            let draining = {
                let intake = Arc::clone(&intake);
                thread::spawn(move || (0..2).for_each(|_| intake.drain(0)))
            };
            clock.set("2026-11-21T00:00:00Z".parse().unwrap());
            drop(handle);
            for thread in counting.into_iter().chain([draining]) {
                thread.join().unwrap();
            }
            intake.drain_all();
            assert_eq!(merged(&lanes), sums(&[("a", 6)]));
            assert_eq!(intake.hold_still(|still| still.counted()), Counted { accepted: 6, unmerged: 0 });
        },
        SCHEDULES,
    );
}

#[test]
fn read_sees_each_moving_count_once() {
    shuttle::check_random(
        || {
            let clock = clock();
            let (intake, lanes) = start(2, &clock);
            let handle = intake.counter("c".parse().unwrap(), MetricName::new("a").unwrap());
            intake.increment("c", "a", 1).unwrap();
            handle.try_increment(10).unwrap();
            let draining = {
                let intake = Arc::clone(&intake);
                thread::spawn(move || intake.drain_all())
            };
            let rolling_over = thread::spawn(move || handle.try_increment(100).unwrap());
            clock.set("2026-11-21T00:00:00Z".parse().unwrap());
            let sum = observed(&intake, &lanes);
            assert!(sum == 11 || sum == 111, "{sum}");
            draining.join().unwrap();
            rolling_over.join().unwrap();
            assert_eq!(observed(&intake, &lanes), 111);
        },
        SCHEDULES,
    );
}

#[test]
fn increment_before_a_read_is_seen_by_it() {
    shuttle::check_random(
        || {
            let (intake, lanes) = start(2, &clock());
            let draining = {
                let intake = Arc::clone(&intake);
                thread::spawn(move || intake.drain_all())
            };
            intake.increment("c", "a", 1).unwrap();
            intake.counter("c".parse().unwrap(), MetricName::new("a").unwrap()).try_increment(10).unwrap();
            assert_eq!(observed(&intake, &lanes), 11, "another thread's drain hid a delta");
            draining.join().unwrap();
        },
        SCHEDULES,
    );
}

#[test]
fn known_counter_needs_no_room_while_drained() {
    shuttle::check_random(
        || {
            let (intake, lanes) = start_with_room(1, &clock(), 1);
            intake.increment("c", "first", 1).unwrap();
            // From the next drain on there is no room for a counter.
            intake.drain(0);
            intake.increment("c", "known", 1).unwrap();
            let draining = {
                let intake = Arc::clone(&intake);
                thread::spawn(move || intake.drain(0))
            };
            intake.increment("c", "known", 1).unwrap();
            draining.join().unwrap();
            intake.drain(0);
            assert_eq!(merged(&lanes), sums(&[("first", 1), ("known", 2)]));
        },
        SCHEDULES,
    );
}

#[test]
fn increment_at_close_is_refused_or_drained() {
    shuttle::check_random(
        || {
            let (intake, lanes) = start(2, &clock());
            let handle = intake.counter("c".parse().unwrap(), MetricName::new("a").unwrap());
            let counting: Vec<_> = (0..2)
                .map(|_| {
                    let (intake, handle) = (Arc::clone(&intake), handle.clone());
                    thread::spawn(move || {
                        let by_name = (0..2).filter(|_| intake.increment("c", "a", 1).is_ok()).count();
                        by_name + (0..2).filter(|_| handle.try_increment(1).is_ok()).count()
                    })
                })
                .collect();
            intake.close();
            let at_close: i64 = merged(&lanes).values().sum();
            let accepted: usize = counting.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(usize::try_from(at_close).unwrap(), accepted);
            assert!(intake.increment("c", "a", 1).is_err());
        },
        SCHEDULES,
    );
}

/// The change took effect at midnight, and is known only afterwards.
#[test]
fn late_adoption_meets_every_count_made_before() {
    shuttle::check_random(
        || {
            let clock = clock();
            let (intake, lanes) = start(2, &clock);
            let before = intake.calendar().schedules();
            let wanted =
                ScheduleConfig { change: true, ..ScheduleConfig::of_periods([Period::Hour, Period::Month]) };
            let noon = "2026-11-20T12:00:00Z".parse().unwrap();
            let recorded = wanted.reconcile(&before, noon, SignedDuration::ZERO).unwrap().unwrap();
            clock.set(recorded.changed_at().unwrap());
            let now = intake.clock().now();
            let handle = intake.counter("c".parse().unwrap(), MetricName::new("a").unwrap());
            intake.increment("c", "a", 1).unwrap();
            let counting: Vec<_> = (0..2)
                .map(|_| {
                    let (intake, handle) = (Arc::clone(&intake), handle.clone());
                    thread::spawn(move || {
                        for _ in 0..2 {
                            intake.increment("c", "a", 1).unwrap();
                            intake.increment_at("c", "a", 1, now).unwrap();
                            handle.try_increment(1).unwrap();
                        }
                    })
                })
                .collect();
            intake.adopt(recorded, now);
            for thread in counting {
                thread.join().unwrap();
            }
            intake.drain_all();
            let lane = lanes.of("c").lock();
            let buckets: BTreeMap<_, _> =
                lane.unsent().map(|delta| (delta.bucket.to_string(), delta.n)).collect();
            let by_hours = buckets.get("2026-11-21T00").copied().unwrap_or_default();
            let (quarantined, all) = (lane.totals.quarantined, lane.totals.merged);
            assert_eq!((by_hours + i64::try_from(quarantined).unwrap(), all), (13, 13), "{buckets:?}");
            assert!(buckets.keys().all(|id| id == "2026-11" || id == "2026-11-21T00"), "{buckets:?}");
        },
        SCHEDULES,
    );
}
