//! Random schedules: threads count, the router is resized, the store fails, and the totals are exact.
//!
//! Shows G1.

use std::{collections::BTreeMap, time::Duration};

use countem_store::Fault;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Setup, quiet, start};
use crate::{Engine, EngineConfig};

const THREADS: u64 = 8;

/// Returns the seeds of the schedules: `COUNTEM_SCHEDULES` sets their number, `COUNTEM_SEED` repeats one.
fn schedules() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("COUNTEM_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = rand::random::<u32>().into();
            (first..first + number("COUNTEM_SCHEDULES").unwrap_or(200)).collect()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_are_exact_for_random_schedules() {
    let schedules = schedules();
    println!("schedules {:?}..={:?}", schedules.first(), schedules.last());
    for seed in schedules {
        // Printed by the test harness only when the schedule fails; `COUNTEM_SEED` repeats it.
        println!("COUNTEM_SEED={seed}");
        schedule(seed).await;
    }
}

async fn schedule(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let config = EngineConfig {
        collectors_min: 1,
        collectors_max: Some(8),
        lanes: random.random_range(1..=3),
        flush_interval: Duration::from_micros(random.random_range(100..5000)),
        flush_counters: random.random_range(5..200),
        batch_counters: random.random_range(1..50),
        retry_first: Duration::from_micros(10),
        retry_longest: Duration::from_micros(200),
        ..quiet()
    };
    let setup = start(config).await;
    let faults = [
        Fault::None,
        Fault::Fail,
        Fault::LoseRequest,
        Fault::LoseReply,
        Fault::ApplyTwice,
        Fault::ApplyLate,
        Fault::Panic,
    ];
    setup.faults.then((0..200).map(|_| faults[random.random_range(0..faults.len())].clone()));

    let counting: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (engine, seed) = (setup.engine.clone(), seed ^ (thread + 1) << 32);
            std::thread::spawn(move || count(&engine, StdRng::seed_from_u64(seed)))
        })
        .collect();
    while !counting.iter().all(|thread| thread.is_finished()) {
        match random.random_range(0..6) {
            0 => _ = setup.engine.flush().await,
            1..=3 => _ = setup.engine.resize(random.random_range(1..=8)),
            4 => drop(setup.read("2026-11-20").await),
            _ => tokio::task::yield_now().await,
        }
    }
    let mut expected = BTreeMap::new();
    for thread in counting {
        for (metric, n) in thread.join().unwrap() {
            *expected.entry(metric).or_insert(0) += n;
        }
    }
    assert_eq!(setup.read("2026-11-20").await, expected, "read before shutdown, seed {seed}");
    let report = setup.engine.shutdown().await;
    assert!(report.is_complete() && report.is_balanced(), "seed {seed}: {report}");
    assert_eq!(setup.stored("2026-11-20").await, expected, "stored, seed {seed}");
    check_books(&setup, report.accepted);
}

fn check_books(setup: &Setup, accepted: u64) {
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.applied, stats.pending), (accepted, accepted, 0));
    assert!(stats.is_balanced());
}

fn count(engine: &Engine, mut random: StdRng) -> BTreeMap<String, i64> {
    let mut counted = BTreeMap::new();
    let handles: Vec<_> = (0..3).map(|i| engine.counter("c", &format!("metric-{i}")).unwrap()).collect();
    for _ in 0..random.random_range(1..300) {
        let n = random.random_range(-3..10);
        let metric = random.random_range(0..40_usize);
        match handles.get(metric) {
            Some(handle) if random.random() => handle.increment(n),
            _ => engine.increment("c", &format!("metric-{metric}"), n).unwrap(),
        }
        *counted.entry(format!("metric-{metric}")).or_insert(0) += n;
    }
    counted
}
