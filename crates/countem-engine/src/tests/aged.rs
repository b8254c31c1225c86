//! Reads with an older stored value have every count of this engine once.
//!
//! Shows G6.

use std::{iter::repeat_n, time::Duration};

use countem_core::MetricName;
use countem_store::Fault;

use super::{Setup, bucket, name, quiet, start, start_on};
use crate::EngineConfig;

const HOUR: Duration = Duration::from_secs(3600);

impl Setup {
    async fn aged(&self, metric: &str) -> i64 {
        let (reader, metric) = (self.engine.aged_reader(), MetricName::new(metric).unwrap());
        reader.get(&name("c"), &metric, bucket("2026-11-20")).await.unwrap().unwrap_or(0)
    }
}

#[tokio::test]
async fn stored_value_ages_until_the_next_flush() {
    for (stored_age, seen) in [(HOUR, 7), (Duration::ZERO, 17)] {
        let ours = start(EngineConfig { stored_age, ..quiet() }).await;
        let other = start_on(quiet(), &ours).await;
        other.engine.increment("c", "a", 5).unwrap();
        other.engine.flush().await;
        assert_eq!(ours.aged("a").await, 5);
        other.engine.increment("c", "a", 10).unwrap();
        other.engine.flush().await;
        ours.engine.increment("c", "a", 2).unwrap();
        assert_eq!(ours.aged("a").await, seen, "{stored_age:?}");
        assert_eq!(ours.aged("b").await, 0);
        ours.engine.flush().await;
        assert_eq!(ours.aged("a").await, 17, "a flush ends the age of what was read before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_counts_are_exact_beside_faulty_flushes() {
    let flushing = EngineConfig { flush_interval: Duration::from_millis(1), flush_jitter: 0.9, ..quiet() };
    let setup = start(EngineConfig { stored_age: HOUR, ..flushing }).await;
    let faults = [Fault::LoseReply, Fault::ApplyTwice, Fault::None, Fault::LoseRequest, Fault::Fail];
    setup.faults.then(repeat_n(faults, 200).flatten());
    let handle = setup.engine.counter("c", "a").unwrap();
    for expected in 1..=3000 {
        match expected % 3 {
            0 => handle.increment(1),
            _ => setup.engine.increment("c", "a", 1).unwrap(),
        }
        assert_eq!(setup.aged("a").await, expected);
        if expected % 100 == 0 {
            setup.engine.flush().await;
            assert_eq!(setup.aged("a").await, expected);
        }
    }
    let batches: u64 = setup.engine.stats().lanes.iter().map(|lane| lane.batches).sum();
    assert!(batches > 30, "{batches} batches are too few to meet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aged_reads_beside_increments_never_go_back() {
    let flushing = EngineConfig { flush_interval: Duration::from_millis(1), flush_jitter: 0.9, ..quiet() };
    let setup = start(EngineConfig { stored_age: HOUR, ..flushing }).await;
    setup.faults.then(repeat_n([Fault::LoseReply, Fault::ApplyTwice, Fault::None], 100).flatten());
    let engine = setup.engine.clone();
    let counting =
        std::thread::spawn(move || (0..200_000).for_each(|_| engine.increment("c", "a", 1).unwrap()));
    let mut before = 0;
    while !counting.is_finished() {
        let accepted_before = setup.engine.stats().accepted;
        let value = u64::try_from(setup.aged("a").await).unwrap();
        let accepted = accepted_before..=setup.engine.stats().accepted;
        assert!(value >= before && accepted.contains(&value), "{before}, {value} of {accepted:?}");
        before = value;
    }
    counting.join().unwrap();
    assert_eq!(setup.aged("a").await, 200_000);
}
