//! Interleavings of increments with drains, resizes, handles, slot changes and the end, explored by shuttle.

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{MetricName, Writer};
use countem_store::{Query, Rows};
use shuttle::thread;

use crate::{
    Clock, EngineConfig, ManualClock,
    calendar::Calendar,
    node::{Counted, Node},
};

const SCHEDULES: usize = 3000;

fn node(collectors: usize, clock: &ManualClock) -> Arc<Node> {
    let settings = EngineConfig {
        collectors_min: collectors,
        collectors_max: Some(3),
        lanes: 1,
        flush_counters: 2,
        ..EngineConfig::default()
    };
    let clock = Clock::Manual(clock.clone());
    let calendar = Calendar::new(&settings.zone, &settings.periods, &BTreeMap::new(), clock.now()).unwrap();
    let calendar = Arc::new(calendar);
    clock.drive(&calendar);
    Arc::new(Node::new(&settings, calendar, clock, &Writer::new(1, 1), None))
}

fn clock() -> ManualClock {
    ManualClock::new("2026-11-20T23:59:59Z".parse().unwrap())
}

/// Everything in the lanes: sum by metric, over all days.
fn merged(node: &Node) -> BTreeMap<String, i64> {
    let range = countem_core::BucketRange::every(countem_core::Period::Day);
    let query = Query { collection: "c".parse().unwrap(), range, select: countem_store::Select::All };
    let rows: Rows = node.lane("c").lock().snapshot(&query).unsent;
    let mut sums = BTreeMap::new();
    for (metric, value) in rows.into_values().flatten() {
        *sums.entry(metric).or_default() += value;
    }
    sums
}

fn sums(of: &[(&str, i64)]) -> BTreeMap<String, i64> {
    of.iter().map(|(metric, n)| ((*metric).to_owned(), *n)).collect()
}

#[test]
fn no_increment_is_lost_or_doubled_by_a_drain_or_a_resize() {
    shuttle::check_random(
        || {
            let node = node(2, &clock());
            let counting: Vec<_> = (0..2)
                .map(|_| {
                    let node = Arc::clone(&node);
                    thread::spawn(move || {
                        for metric in ["a", "b", "c", "a"] {
                            node.increment("c", metric, 1).unwrap();
                        }
                    })
                })
                .collect();
            let draining = {
                let node = Arc::clone(&node);
                thread::spawn(move || (0..3).for_each(|place| node.drain(place)))
            };
            let resizing = {
                let node = Arc::clone(&node);
                thread::spawn(move || {
                    node.router().resize(3);
                    node.drain(1);
                    node.router().resize(1);
                })
            };
            for thread in counting.into_iter().chain([draining, resizing]) {
                thread.join().unwrap();
            }
            node.drain_all();
            assert_eq!(merged(&node), sums(&[("a", 4), ("b", 2), ("c", 2)]));
            assert_eq!(node.look(|_| ()).0, Counted { accepted: 8, unmerged: 0 });
        },
        SCHEDULES,
    );
}

#[test]
fn a_handle_keeps_every_count_through_drains_and_midnight() {
    shuttle::check_random(
        || {
            let clock = clock();
            let node = node(1, &clock);
            let handle = node.counter("c".parse().unwrap(), MetricName::new("a").unwrap());
            let counting: Vec<_> = (0..2)
                .map(|_| {
                    let handle = handle.clone();
                    thread::spawn(move || (0..3).for_each(|_| handle.try_increment(1).unwrap()))
                })
                .collect();
            let draining = {
                let node = Arc::clone(&node);
                thread::spawn(move || (0..2).for_each(|_| node.drain(0)))
            };
            clock.set("2026-11-21T00:00:00Z".parse().unwrap());
            drop(handle);
            for thread in counting.into_iter().chain([draining]) {
                thread.join().unwrap();
            }
            node.drain_all();
            assert_eq!(merged(&node), sums(&[("a", 6)]));
            assert_eq!(node.look(|_| ()).0, Counted { accepted: 6, unmerged: 0 });
        },
        SCHEDULES,
    );
}

#[test]
fn a_read_that_drains_sees_what_was_counted_before_it() {
    shuttle::check_random(
        || {
            let node = node(2, &clock());
            let draining = {
                let node = Arc::clone(&node);
                thread::spawn(move || node.drain_all())
            };
            node.increment("c", "a", 1).unwrap();
            node.counter("c".parse().unwrap(), MetricName::new("a").unwrap()).try_increment(10).unwrap();
            node.drain_all();
            assert_eq!(merged(&node), sums(&[("a", 11)]), "another thread's drain hid a delta");
            draining.join().unwrap();
        },
        SCHEDULES,
    );
}

#[test]
fn an_increment_at_the_end_is_either_refused_or_in_the_last_drain() {
    shuttle::check_random(
        || {
            let node = node(2, &clock());
            let handle = node.counter("c".parse().unwrap(), MetricName::new("a").unwrap());
            let counting: Vec<_> = (0..2)
                .map(|_| {
                    let (node, handle) = (Arc::clone(&node), handle.clone());
                    thread::spawn(move || {
                        let by_name = (0..2).filter(|_| node.increment("c", "a", 1).is_ok()).count();
                        by_name + (0..2).filter(|_| handle.try_increment(1).is_ok()).count()
                    })
                })
                .collect();
            node.close();
            let at_close: i64 = merged(&node).values().sum();
            let accepted: usize = counting.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(usize::try_from(at_close).unwrap(), accepted);
            assert!(node.increment("c", "a", 1).is_err());
        },
        SCHEDULES,
    );
}
