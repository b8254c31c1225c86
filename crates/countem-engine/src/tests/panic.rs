//! Panicking actors and stores lose nothing.

use std::time::Duration;

use countem_store::Fault;

use super::{counters, quiet, start};
use crate::EngineConfig;

#[tokio::test]
async fn a_panicking_actor_is_replaced_and_nothing_is_lost() {
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
async fn an_actor_that_dies_while_its_batch_is_on_the_way_counts_it_once() {
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
async fn a_panicking_store_is_asked_again() {
    let setup = start(quiet()).await;
    setup.faults.then([Fault::Panic, Fault::Panic]);
    setup.engine.increment("c", "a", 1).unwrap();
    setup.engine.flush().await;
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 1)]));
    assert_eq!(setup.engine.stats().lanes.iter().map(|lane| lane.doubts).sum::<u64>(), 2);
}
