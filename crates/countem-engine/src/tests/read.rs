//! Reads include this node's pending deltas exactly.
//!
//! Shows G6.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use countem_core::{BucketRange, MetricName, Period};
use countem_query::ReadError;
use countem_store::{Fault, Store};

use super::{bucket, counters, name, quiet, start};
use crate::EngineConfig;

#[tokio::test]
async fn read_sees_pending_in_flight_and_stored_counts() {
    let setup = start(quiet()).await;
    setup.engine.increment("c", "a", 1).unwrap();
    setup.engine.flush().await;

    setup.faults.then([Fault::Delay]);
    setup.engine.increment("c", "a", 10).unwrap();
    let engine = setup.engine.clone();
    let flushing = tokio::spawn(async move { engine.flush().await });
    setup.faults.delayed().await;
    setup.engine.increment("c", "a", 100).unwrap();
    setup.engine.counter("c", "a").unwrap().increment(1000);
    assert_eq!(setup.read("2026-11-20").await, counters(&[("a", 1111)]));
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 1)]), "the batch is still on its way");

    setup.faults.release();
    flushing.await.unwrap();
    assert_eq!(setup.read("2026-11-20").await, counters(&[("a", 1111)]));
    setup.engine.flush().await;
    assert_eq!(setup.read("2026-11-20").await, counters(&[("a", 1111)]));
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 1111)]));
}

#[tokio::test]
async fn read_counts_a_batch_in_doubt_once() {
    let setup = start(EngineConfig {
        retry_first: Duration::from_secs(600),
        retry_longest: Duration::from_secs(600),
        ..quiet()
    })
    .await;
    setup.faults.then([Fault::LoseReply]);
    setup.engine.increment("c", "a", 1).unwrap();
    let engine = setup.engine.clone();
    let flushing = tokio::spawn(async move { engine.flush().await });
    super::eventually("a doubt", || setup.engine.stats().lanes.iter().any(|lane| lane.doubts > 0)).await;
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 1)]));
    assert_eq!(setup.read("2026-11-20").await, counters(&[("a", 1)]));
    flushing.abort();
}

#[tokio::test]
async fn pending_overflow_is_unreadable_and_spoils_no_other() {
    let setup = start(quiet()).await;
    setup.engine.increment("c", "big", i64::MAX).unwrap();
    setup.engine.flush().await;
    setup.engine.increment("c", "big", 2).unwrap();
    setup.engine.increment("c", "a", 1).unwrap();
    let read = setup.read("2026-11-20").await;
    assert_eq!(read.readable().collect::<Vec<_>>(), [("a", 1)]);
    assert!(read.get("big").unwrap_err().to_string().contains("9223372036854775809"), "{read:?}");
    setup.engine.increment("c", "big", -2).unwrap();
    assert_eq!(setup.read("2026-11-20").await, counters(&[("a", 1), ("big", i64::MAX)]));
    setup.engine.increment("c", "big", 1).unwrap();
    setup.engine.flush().await;
    assert_eq!(setup.read("2026-11-20").await["big"], i64::MAX, "the delta is quarantined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_never_fall_or_exceed_during_flushes() {
    let setup =
        start(EngineConfig { flush_interval: Duration::from_millis(1), flush_jitter: 0.9, ..quiet() }).await;
    setup.faults.then(
        std::iter::repeat_n([Fault::LoseReply, Fault::ApplyTwice, Fault::None, Fault::Fail], 50).flatten(),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let counting = {
        let (engine, stop) = (setup.engine.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut counted = 0;
            while !stop.load(Ordering::SeqCst) {
                engine.increment("c", "a", 1).unwrap();
                counted += 1;
            }
            counted
        })
    };
    super::eventually("counting", || setup.engine.stats().accepted > 0).await;
    let mut before = 0;
    for _ in 0..300 {
        let stats = setup.engine.stats();
        assert!(stats.is_balanced(), "{stats:?}");
        let accepted_before = stats.accepted;
        let value = setup.read("2026-11-20").await.get("a").unwrap().unwrap_or(0);
        let accepted_after = setup.engine.stats().accepted;
        let value = u64::try_from(value).unwrap();
        assert!(value >= before, "a read went back from {before} to {value}");
        assert!(
            (accepted_before..=accepted_after).contains(&value),
            "{value} is not in {accepted_before}..={accepted_after}"
        );
        before = value;
    }
    stop.store(true, Ordering::SeqCst);
    let counted: i64 = counting.join().unwrap();
    assert_eq!(setup.read("2026-11-20").await, counters(&[("a", counted)]));
}

#[tokio::test]
async fn unstored_periods_are_summed_from_finer_ones() {
    let setup = start(quiet()).await;
    for (day, n) in [("2026-10-31", 1), ("2026-11-01", 10), ("2026-11-02", 100), ("2026-11-20", 1000)] {
        let noon = format!("{day}T12:00:00Z").parse().unwrap();
        setup.engine.increment_at("c", "a", n, noon).unwrap();
    }
    assert_eq!(setup.read("2026-11").await, counters(&[("a", 1110)]));
    assert_eq!(setup.read("2026-W44").await, counters(&[("a", 11)]));
    assert_eq!(setup.read("2026").await, counters(&[("a", 1111)]));
    assert_eq!(setup.read("all").await, counters(&[("a", 1111)]));
    let reader = setup.engine.reader();
    let months = BucketRange::new(bucket("2026-09"), bucket("2026-12")).unwrap();
    let series = reader.series(&name("c"), &MetricName::new("a").unwrap(), months).await.unwrap();
    assert_eq!(series.into_iter().collect::<Vec<_>>(), [(bucket("2026-10"), 1), (bucket("2026-11"), 1110)]);
    let finer = reader.get_counters(&name("c"), bucket("2026-11-20T12")).await;
    assert!(matches!(finer, Err(ReadError::NotStored { period: Period::Hour, .. })), "{finer:?}");
}

#[tokio::test]
async fn pending_collections_are_read_too() {
    let setup = start(quiet()).await;
    setup.engine.increment("stored", "a", 1).unwrap();
    setup.engine.flush().await;
    setup.engine.increment("pending", "b", 2).unwrap();
    setup.engine.increment_at("c", "other-day", 1, "2026-11-01T00:00:00Z".parse().unwrap()).unwrap();
    let all = setup.engine.reader().get_all_counters(bucket("2026-11-20")).await.unwrap();
    let expected = [(name("pending"), counters(&[("b", 2)])), (name("stored"), counters(&[("a", 1)]))];
    assert_eq!(all.into_iter().collect::<Vec<_>>(), expected);
    let collections = setup.engine.reader().collections().await.unwrap();
    assert_eq!(collections, [name("c"), name("pending"), name("stored")]);
    assert_eq!(setup.store.collections().await.unwrap(), [name("stored")]);
}

/// Increments of one thread, in rounds: begun before they are made, done after they returned.
#[derive(Default)]
struct Rounds {
    begun: AtomicU64,
    done: AtomicU64,
}

const ROUND: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_beside_counting_threads_are_exact() {
    const READERS: usize = 500;
    let setup = start(EngineConfig { flush_interval: Duration::from_millis(5), ..quiet() }).await;
    let (rounds, stop) = (Arc::new(Rounds::default()), Arc::new(AtomicBool::new(false)));
    let counting: Vec<_> = (0..2)
        .map(|_| {
            let (engine, rounds, stop) = (setup.engine.clone(), Arc::clone(&rounds), Arc::clone(&stop));
            std::thread::spawn(move || {
                let handle = engine.counter("c", "a").unwrap();
                while !stop.load(Ordering::SeqCst) {
                    rounds.begun.fetch_add(ROUND, Ordering::SeqCst);
                    (0..ROUND / 2).for_each(|_| {
                        engine.count("c", "a", 1);
                        handle.increment(1);
                    });
                    rounds.done.fetch_add(ROUND, Ordering::SeqCst);
                }
            })
        })
        .collect();
    super::eventually("a count", || rounds.done.load(Ordering::SeqCst) > 0).await;
    let reads = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (reader, rounds) = (setup.engine.reader(), Arc::clone(&rounds));
            let (reads, stop) = (Arc::clone(&reads), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let done = rounds.done.load(Ordering::SeqCst);
                    let read = reader.get_counters(&name("c"), bucket("2026-11-20")).await.unwrap();
                    let begun = rounds.begun.load(Ordering::SeqCst);
                    let value = u64::try_from(read["a"]).unwrap();
                    assert!((done..=begun).contains(&value), "{value} is not in {done}..={begun}");
                    reads.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    super::eventually("reads", || reads.load(Ordering::SeqCst) >= 2 * READERS as u64).await;
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    counting.into_iter().for_each(|thread| thread.join().unwrap());
    let counted = i64::try_from(rounds.done.load(Ordering::SeqCst)).unwrap();
    assert_eq!(setup.read("2026-11-20").await, counters(&[("a", counted)]));
    assert!(setup.engine.stats().is_balanced());
}

#[tokio::test]
async fn read_leaves_counts_where_they_are() {
    let setup = start(quiet()).await;
    setup.engine.increment("c", "a", 1).unwrap();
    setup.engine.counter("c", "a").unwrap().increment(10);
    assert_eq!(setup.read("2026-11-20").await, counters(&[("a", 11)]));
    setup.engine.reader().collections().await.unwrap();
    let stats = setup.engine.stats();
    assert_eq!((stats.pending, stats.pending_counters), (2, 0), "nothing reached a lane");
}
