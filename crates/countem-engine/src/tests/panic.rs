//! Panicking actors and stores lose nothing.

use std::time::Duration;

use countem_store::Fault;

use super::{counters, quiet, start};
use crate::EngineConfig;

#[tokio::test]
async fn panicked_actor_is_replaced_without_loss() {
    let setup = start(EngineConfig { flush_interval: Duration::from_millis(5), ..quiet() }).await;
    for round in 1..=3 {
        setup.engine.increment("c", "a", 1).unwrap();
        setup.engine.panic_everywhere();
        super::eventually("a replacement", || setup.engine.stats().actor_restarts >= round * 3).await;
    }
    setup.engine.increment("c", "a", 1).unwrap();
    let report = setup.engine.shutdown().await;
    assert!(report.is_complete() && report.is_balanced(), "{report}");
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 4)]));
}

#[tokio::test]
async fn batch_of_a_dead_actor_counts_once() {
    let setup = start(EngineConfig { flush_interval: Duration::from_millis(5), ..quiet() }).await;
    setup.faults.then([Fault::Delay]);
    setup.engine.increment("c", "a", 1).unwrap();
    setup.faults.delayed().await;
    setup.engine.panic_everywhere();
    super::eventually("a second attempt", || setup.faults.calls() >= 2 && setup.engine.stats().applied == 1)
        .await;
    setup.faults.release();
    setup.engine.increment("c", "a", 10).unwrap();
    assert!(setup.engine.shutdown().await.is_complete());
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 11)]));
}

#[tokio::test]
async fn batch_is_sent_again_after_a_store_panic() {
    let setup = start(quiet()).await;
    setup.faults.then([Fault::Panic, Fault::Panic]);
    setup.engine.increment("c", "a", 1).unwrap();
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 1)]));
    assert_eq!(setup.engine.stats().lanes.iter().map(|lane| lane.doubts).sum::<u64>(), 2);
}
