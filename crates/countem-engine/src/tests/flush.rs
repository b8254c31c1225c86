//! From the table to the store.
//!
//! Shows G2 and G5.

use std::time::Duration;

use countem_store::Fault;
use futures_util::FutureExt;

use super::{counters, quiet, start};
use crate::EngineConfig;

#[tokio::test]
async fn flush_stores_pending_counts() {
    let setup = start(quiet()).await;
    let handle = setup.engine.counter("c", "a").unwrap();
    for _ in 0..10 {
        setup.engine.increment("c", "a", 1).unwrap();
        setup.engine.increment("c", "b", -2).unwrap();
        handle.increment(3);
    }
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 40), ("b", -20)]));
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.applied, stats.pending), (30, 30, 0));
}

#[tokio::test]
async fn collectors_share_one_batch() {
    let setup = start(EngineConfig { collectors_min: 8, collectors_max: Some(8), ..quiet() }).await;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let engine = setup.engine.clone();
            std::thread::spawn(move || {
                (0..100).for_each(|i| engine.increment("c", &format!("m{i}"), 1).unwrap())
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    setup.engine.flush().await;
    assert_eq!(setup.faults.calls(), 1);
    assert!(setup.stored("2026-11-20").await.values().all(|value| value == Ok(8)));
}

#[tokio::test]
async fn batch_counts_once_whatever_happens_to_it() {
    let faults = [
        Fault::Fail,
        Fault::LoseRequest,
        Fault::LoseReply,
        Fault::ApplyTwice,
        Fault::ApplyLate,
        Fault::Panic,
        Fault::LoseReply,
        Fault::Fail,
    ];
    let setup = start(quiet()).await;
    for round in 1..=faults.len() {
        setup.faults.then(faults[..round].iter().cloned());
        setup.engine.increment("c", "a", 1).unwrap();
        setup.engine.flush().await;
    }
    let rounds = i64::try_from(faults.len()).unwrap();
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", rounds)]));
    let report = setup.engine.shutdown().await;
    assert!(report.is_complete() && report.is_balanced(), "{report}");
}

#[tokio::test]
async fn deltas_merge_while_the_store_is_away() {
    let setup = start(quiet()).await;
    setup.faults.otherwise(Fault::Fail);
    for _ in 0..100 {
        for metric in 0..50 {
            setup.engine.increment("c", &format!("m{metric}"), 1).unwrap();
        }
        assert!(setup.engine.flush().now_or_never().is_none(), "the store is away");
    }
    // One unresolved batch and the deltas merged behind it, each with every counter once.
    assert!(setup.engine.stats().pending_counters <= 100);
    setup.faults.otherwise(Fault::None);
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-11-20").await.values().map(Result::unwrap).sum::<i64>(), 5000);
}

#[tokio::test]
async fn large_flushes_are_cut_into_batches() {
    let setup = start(EngineConfig { batch_counters: 10, ..quiet() }).await;
    for metric in 0..95 {
        setup.engine.increment("c", &format!("m{metric}"), 1).unwrap();
    }
    setup.engine.flush().await;
    assert_eq!(setup.faults.calls(), 10);
    assert_eq!(setup.stored("2026-11-20").await.len(), 95);
}

#[tokio::test]
async fn interval_starts_a_flush() {
    let setup = start(EngineConfig { flush_interval: Duration::from_millis(20), ..quiet() }).await;
    setup.engine.increment("c", "a", 1).unwrap();
    super::eventually("a flush", || setup.engine.stats().applied == 1).await;
}

#[tokio::test]
async fn many_pending_counters_start_a_flush() {
    let setup = start(EngineConfig { flush_counters: 100, ..quiet() }).await;
    for metric in 0..1000 {
        setup.engine.increment("c", &format!("m{metric}"), 1).unwrap();
    }
    super::eventually("a flush", || setup.engine.stats().applied > 0).await;
}

#[tokio::test]
async fn clean_writer_is_forgotten() {
    let setup = start(quiet()).await;
    setup.engine.increment("c", "a", 1).unwrap();
    setup.faults.then([Fault::Fail]);
    let report = setup.engine.shutdown().await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(setup.store.inner().writers(), 0);
}

#[tokio::test]
async fn writer_in_doubt_leaves_its_bookkeeping() {
    let setup = start(quiet()).await;
    setup.engine.increment("c", "a", 1).unwrap();
    setup.faults.then([Fault::LoseReply]);
    setup.engine.shutdown().await;
    assert_eq!(setup.store.inner().writers(), 1);
}

#[tokio::test]
async fn shutdown_past_its_deadline_reports_missing_counts() {
    // No attempt is under way at the deadline: the one at the beginning of the shutdown was the last.
    let retry = Duration::from_secs(60);
    let config = EngineConfig {
        shutdown_deadline: Duration::from_millis(50),
        retry_first: retry,
        retry_longest: retry,
        ..quiet()
    };
    let setup = start(config).await;
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "a", 1).unwrap();
    let flushing = setup.engine.clone();
    let waiting = tokio::spawn(async move { flushing.flush().await });
    super::eventually("an attempt", || setup.faults.calls() > 0).await;
    setup.engine.increment("c", "b", 1).unwrap();
    setup.engine.increment("c", "b", 1).unwrap();
    let report = setup.engine.shutdown().await;
    // The store refused every attempt, so it is certain that it has nothing.
    assert_eq!((report.accepted, report.applied, report.dropped, report.in_doubt), (3, 0, 3, 0));
    assert!(report.is_balanced() && !report.is_complete());
    assert!(report.to_string().contains("the store is unreachable"), "{report}");
    waiting.abort();
}

#[tokio::test]
async fn only_unanswered_batch_is_in_doubt() {
    let setup = start(EngineConfig { shutdown_deadline: Duration::from_millis(50), ..quiet() }).await;
    setup.faults.then([Fault::Fail, Fault::LoseReply]);
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "a", 1).unwrap();
    let flushing = setup.engine.clone();
    let waiting = tokio::spawn(async move { flushing.flush().await });
    super::eventually("attempts", || setup.faults.calls() > 2).await;
    setup.engine.increment("c", "b", 1).unwrap();
    let report = setup.engine.shutdown().await;
    assert_eq!((report.accepted, report.applied, report.dropped, report.in_doubt), (2, 0, 1, 1), "{report}");
    assert!(!waiting.await.unwrap(), "what was dropped is never stored");
}

#[tokio::test]
async fn abandoned_waits_leave_nothing_behind() {
    let setup = start(quiet()).await;
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "a", 1).unwrap();
    for _ in 0..20_000 {
        let flush = setup.engine.flush();
        assert!(tokio::time::timeout(Duration::ZERO, flush).await.is_err());
    }
    assert_eq!(setup.engine.waits(), 0);
    setup.faults.otherwise(Fault::None);
    assert!(setup.engine.flush().await);
}

#[tokio::test]
async fn shutdown_under_load_accounts_for_every_increment() {
    let setup = start(EngineConfig { flush_interval: Duration::from_millis(1), ..quiet() }).await;
    let counting: Vec<_> = (0..4)
        .map(|thread| {
            let engine = setup.engine.clone();
            std::thread::spawn(move || {
                let handle = engine.counter("c", "handle").unwrap();
                let mut accepted = 0_u64;
                while engine.increment("c", &format!("m{thread}"), 1).is_ok() {
                    accepted += 1;
                    accepted += u64::from(handle.try_increment(1).is_ok());
                }
                accepted
            })
        })
        .collect();
    super::eventually("some counting", || setup.engine.stats().applied > 10_000).await;
    let report = setup.engine.shutdown().await;
    let counted: u64 = counting.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(report.accepted, counted);
    assert!(report.is_complete() && report.is_balanced(), "{report}");
    assert_eq!(
        u64::try_from(setup.stored("2026-11-20").await.values().map(Result::unwrap).sum::<i64>()).unwrap(),
        counted
    );
}

#[tokio::test]
async fn last_handle_stores_pending_counts_when_dropped() {
    let setup = start(quiet()).await;
    setup.engine.increment("c", "a", 7).unwrap();
    let (store, faults) = (setup.store.clone(), setup.faults.clone());
    // On a current-thread runtime, which the drop blocks.
    drop(setup);
    assert_eq!((faults.calls(), store.inner().writers()), (1, 0));
}

#[tokio::test]
async fn drop_on_engine_thread_waits_for_nothing() {
    let setup = start(quiet()).await;
    setup.engine.increment("c", "a", 7).unwrap();
    let (store, faults) = (setup.store.clone(), setup.faults.clone());
    let runtime = setup.engine.runtime().clone();
    runtime.spawn(async move { drop(setup) }).await.ok();
    super::eventually("a flush", || faults.calls() == 1 && store.inner().writers() == 0).await;
}

#[tokio::test]
async fn drop_waits_no_longer_than_the_shutdown_deadline() {
    let setup = start(EngineConfig { shutdown_deadline: Duration::from_millis(20), ..quiet() }).await;
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "a", 7).unwrap();
    let faults = setup.faults.clone();
    drop(setup);
    assert!(faults.calls() > 0);
}

#[test]
fn blocking_shutdown_needs_no_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let setup = runtime.block_on(start(quiet()));
    setup.engine.increment("c", "a", 7).unwrap();
    let report = setup.engine.shutdown_blocking();
    assert!(report.is_complete() && report.accepted == 1, "{report}");
    assert_eq!(setup.engine.shutdown_blocking(), report);
}
