//! The level `journal`: what an ended process leaves is stored exactly once by the next.
//!
//! Shows G13.

use std::{path::Path, time::Duration};

use countem_core::Bucket;
use countem_journal::{JournalConfig, JournalReader, fail_points};
use countem_store::Fault;
use futures_util::FutureExt;

use super::{counters, quiet, start, start_on};
use crate::{Durability, EngineConfig};

fn journaled(dir: &Path) -> EngineConfig {
    let options = JournalConfig::new(dir);
    // Only what a test asks for is recorded.
    EngineConfig {
        durability: Durability::Journal { options, tick: Duration::from_secs(3600) },
        shutdown_deadline: Duration::from_millis(20),
        ..quiet()
    }
}

const DAY: &str = "2026-11-20";

#[tokio::test]
async fn durable_counts_survive_without_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "a", 1).unwrap();
    setup.engine.increment("other", "b", 2).unwrap();
    setup.engine.durable().await.unwrap();
    let stats = setup.engine.stats();
    assert_eq!((stats.pending, stats.journaled), (2, 2));
    let report = setup.engine.shutdown().await;
    assert_eq!((report.accepted, report.journaled, report.dropped), (2, 2, 0), "{report}");
    assert!(report.is_balanced());

    setup.faults.otherwise(Fault::None);
    let next = start_on(journaled(dir.path()), &setup).await;
    next.engine.increment("c", "a", 10).unwrap();
    assert_eq!(next.read(DAY).await, counters(&[("a", 11)]), "recovered deltas are read, too");
    next.engine.flush().await;
    assert_eq!(next.stored(DAY).await, counters(&[("a", 11)]));
    let report = next.engine.shutdown().await;
    assert!(report.is_complete() && report.is_balanced(), "{report}");
    assert_eq!(report.accepted, 3);
}

#[tokio::test]
async fn recovered_batch_keeps_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    setup.faults.then([Fault::LoseReply]);
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "a", 1).unwrap();
    let flush = tokio::spawn({
        let engine = setup.engine.clone();
        async move { engine.flush().await }
    });
    while setup.stored(DAY).await != counters(&[("a", 1)]) {
        tokio::task::yield_now().await;
    }
    let report = setup.engine.shutdown().await;
    assert_eq!((report.journaled, report.in_doubt), (1, 0), "the store has it all the same: {report}");
    assert!(!flush.await.unwrap());

    setup.faults.otherwise(Fault::None);
    let next = start_on(journaled(dir.path()), &setup).await;
    assert_eq!(next.read(DAY).await, counters(&[("a", 1)]));
    next.engine.flush().await;
    assert_eq!(next.stored(DAY).await, counters(&[("a", 1)]));
}

#[tokio::test]
async fn batches_are_recovered_in_order_per_lane() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(EngineConfig { batch_counters: 3, lanes: 3, ..journaled(dir.path()) }).await;
    setup.faults.otherwise(Fault::LoseReply);
    for metric in 0..20 {
        setup.engine.increment("c", &format!("m{metric}"), 1).unwrap();
        setup.engine.increment(&format!("c{metric}"), "m", 1).unwrap();
    }
    setup.engine.shutdown().await;
    setup.faults.otherwise(Fault::None);
    let next = start_on(EngineConfig { lanes: 1, ..journaled(dir.path()) }, &setup).await;
    assert_eq!(next.engine.stats().lanes.len(), 3);
    next.engine.flush().await;
    assert_eq!(next.stored(DAY).await.values().map(Result::unwrap).sum::<i64>(), 20);
    for metric in 0..20 {
        let bucket: Bucket = DAY.parse().unwrap();
        let read =
            next.engine.reader().get_counters(&super::name(&format!("c{metric}")), bucket).await.unwrap();
        assert_eq!(read, counters(&[("m", 1)]));
    }
    next.engine.shutdown().await;
    // The journal is empty now, so the configured number counts again.
    let last = start_on(EngineConfig { lanes: 1, ..journaled(dir.path()) }, &next).await;
    assert_eq!(last.engine.stats().lanes.len(), 1);
}

#[tokio::test]
async fn shutdown_frees_the_journal_directory_despite_handles() {
    let dir = tempfile::tempdir().unwrap();
    let config = EngineConfig { shutdown_deadline: quiet().shutdown_deadline, ..journaled(dir.path()) };
    let setup = start(config.clone()).await;
    let handle = setup.engine.counter("c", "a").unwrap();
    handle.increment(1);
    assert!(setup.engine.shutdown().await.is_complete());
    let next = start_on(config, &setup).await;
    assert!(next.engine.shutdown().await.is_complete());
    drop(handle);
}

#[tokio::test]
async fn full_journal_refuses_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalConfig { max_bytes: 200_000, ..JournalConfig::new(dir.path()) };
    let durability = Durability::Journal { options, tick: Duration::from_millis(1) };
    let setup = start(EngineConfig { durability, ..quiet() }).await;
    setup.faults.otherwise(Fault::Fail);
    let mut accepted = 0;
    let refused = loop {
        match setup.engine.increment("c", &format!("metric-{accepted:06}"), 1) {
            Ok(()) => accepted += 1,
            Err(refusal) => break refusal,
        }
        if accepted % 100 == 0 {
            setup.engine.durable().await.ok();
        }
    };
    assert_eq!(refused, crate::Refusal::JournalFull);
    assert!(!setup.engine.stats().journal.unwrap().health.is_ready());
    setup.faults.otherwise(Fault::None);
    setup.engine.flush().await;
    super::eventually("room", || setup.engine.increment("c", "again", 1).is_ok()).await;
    setup.engine.flush().await;
    assert_eq!(setup.stored(DAY).await.values().map(Result::unwrap).sum::<i64>(), accepted + 1);
}

#[tokio::test]
async fn waiting_increments_share_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    let before = setup.engine.stats().journal.unwrap().commits;
    for metric in 0..1000 {
        setup.engine.increment("c", &format!("m{metric}"), 1).unwrap();
    }
    let waiting = futures_util::future::join_all((0..1000).map(|_| setup.engine.durable())).await;
    assert!(waiting.iter().all(Result::is_ok), "{waiting:?}");
    let commits = setup.engine.stats().journal.unwrap().commits - before;
    assert_eq!(commits, 1, "for a thousand increments");
}

/// Two amounts that no 64-bit number holds are quarantined before they are in any batch.
#[tokio::test]
async fn acknowledged_quarantine_is_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "m", i64::MAX).unwrap();
    setup.engine.durable().await.unwrap();
    setup.engine.increment("c", "m", 1).unwrap();
    setup.engine.durable().await.unwrap();
    let quarantined = JournalReader::open(dir.path()).unwrap().quarantined().unwrap();
    let [entry] = &quarantined[..] else { panic!("one entry: {quarantined:?}") };
    assert_eq!((&*entry.quarantined.metric, entry.quarantined.n, entry.quarantined.increments), ("m", 1, 1));
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.pending, stats.journaled, stats.quarantined), (2, 1, 1, 1));
}

/// The store forgets the writer at the shutdown, so the journal must not have kept the batch.
#[tokio::test]
async fn batch_resolved_beside_a_full_queue_stays_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalConfig { resolved_retention: Duration::ZERO, ..JournalConfig::new(dir.path()) };
    let config = EngineConfig {
        durability: Durability::Journal { options, tick: Duration::from_secs(3600) },
        ..quiet()
    };
    let setup = start(config.clone()).await;
    setup.faults.then([Fault::Delay]);
    setup.engine.increment("c", "a", 1).unwrap();
    let flush = tokio::spawn({
        let engine = setup.engine.clone();
        async move { engine.flush().await }
    });
    setup.faults.delayed().await;
    fail_points::arm(dir.path(), "other.before=pause");
    let recorder = setup.engine.recorder().unwrap();
    let refused = (0..3000).filter_map(|_| recorder.sync().now_or_never()).filter(Result::is_err).count();
    assert!(refused > 0, "the queue is full");
    setup.faults.release();
    assert!(flush.await.unwrap());
    fail_points::disarm(dir.path());
    while recorder.sync().await.is_err() {}
    assert!(setup.engine.shutdown().await.is_complete());

    let next = start_on(config, &setup).await;
    assert_eq!(next.engine.stats().accepted, 0, "nothing was left in the journal");
    next.engine.flush().await;
    assert_eq!(next.stored(DAY).await, counters(&[("a", 1)]));
}

#[tokio::test]
async fn shutdown_ends_despite_a_hanging_journal_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalConfig::new(dir.path());
    let durability = Durability::Journal { options, tick: Duration::from_secs(3600) };
    let setup = start(EngineConfig { durability, ..journaled(dir.path()) }).await;
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "recorded", 1).unwrap();
    setup.engine.durable().await.unwrap();
    fail_points::arm(dir.path(), "record.after=return(error);outcome=return(error)");
    setup.engine.increment("c", "in-doubt", 1).unwrap();
    assert!(setup.engine.durable().await.is_err());
    setup.engine.increment("c", "later", 1).unwrap();
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.pending, stats.journaled), (3, 3, 1), "{stats:?}");
    let report = setup.engine.shutdown().await;
    assert!(report.is_balanced() && !report.is_complete(), "{report:?}");
    assert_eq!((report.accepted, report.applied), (3, 0), "{report:?}");
}
