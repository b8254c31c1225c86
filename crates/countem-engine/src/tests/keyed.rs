//! Requests with idempotency keys.
//!
//! Shows G26.

mod property;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use countem_core::IdempotencyKey;
use countem_journal::{JournalConfig, JournalReader, fail_points};
use countem_store::{Fault, Store};
use futures_util::future::join_all;

use super::{Setup, counters, eventually, quiet, start, start_on};
use crate::{Durability, EngineConfig, Guarantee, Keyed, KeyedError, KeyedIncrement, Refusal};

const DAY: &str = "2026-11-20";
const BODY: [u8; 32] = [7; 32];

fn journaled(dir: &Path) -> EngineConfig {
    let options = JournalConfig::new(dir);
    EngineConfig {
        durability: Durability::Journal { options, tick: Duration::from_secs(3600) },
        shutdown_deadline: Duration::from_millis(50),
        ..quiet()
    }
}

fn key(key: &str) -> IdempotencyKey {
    IdempotencyKey::new(key).unwrap()
}

fn one<'a>(metric: &'a str) -> [KeyedIncrement<'a>; 1] {
    [KeyedIncrement { collection: "c", metric, n: 1, at: None }]
}

impl<S: Store> Setup<S> {
    async fn count(&self, key: &str, metric: &str) -> Result<Keyed, KeyedError> {
        self.request(key, BODY, metric, Guarantee::Journal).await
    }

    async fn request(
        &self,
        key: &str,
        body: [u8; 32],
        metric: &str,
        guarantee: Guarantee,
    ) -> Result<Keyed, KeyedError> {
        self.engine.increment_keyed(&self::key(key), body, &one(metric), guarantee).await
    }

    /// Sends a request again until its outcome is known.
    async fn repeat(&self, key: &str, metric: &str) -> Keyed {
        loop {
            match self.count(key, metric).await {
                Ok(outcome) => return outcome,
                Err(KeyedError::InProgress { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn request_counts_once_on_all_nodes() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = start(journaled(dirs[0].path())).await;
    let second = start_on(journaled(dirs[1].path()), &first).await;
    let memory = start_on(quiet(), &first).await;
    assert_eq!(first.count("k", "a").await, Ok(Keyed::Counted));
    for node in [&first, &second, &memory] {
        assert_eq!(node.count("k", "a").await, Ok(Keyed::Repeat));
        let other = node.request("k", [8; 32], "a", Guarantee::Journal).await;
        assert_eq!(other, Ok(Keyed::Mismatch));
    }
    assert_eq!(memory.count("l", "b").await, Ok(Keyed::Counted));
    assert_eq!(second.count("l", "b").await, Ok(Keyed::Repeat));
    assert_eq!(first.read(DAY).await, counters(&[("a", 1), ("b", 1)]));
    for node in [first, second, memory] {
        let report = node.engine.shutdown().await;
        assert!(report.is_complete() && report.is_balanced(), "{report}");
    }
}

#[tokio::test]
async fn guarantee_store_means_stored() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    assert_eq!(setup.request("k", BODY, "a", Guarantee::Store).await, Ok(Keyed::Counted));
    assert_eq!(setup.stored(DAY).await, counters(&[("a", 1)]));
    let memory = start(quiet()).await;
    assert_eq!(memory.count("k", "a").await, Ok(Keyed::Counted));
    assert_eq!(memory.stored(DAY).await, counters(&[("a", 1)]), "without a journal in any case");
    let stats = memory.engine.stats();
    assert_eq!((stats.accepted, stats.applied, stats.is_balanced()), (1, 1, true));
}

#[tokio::test]
async fn refused_request_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    let at = Some("2020-01-01T00:00:00Z".parse().unwrap());
    let bad = [
        KeyedIncrement { collection: "c", metric: "a", n: 1, at: None },
        KeyedIncrement { collection: "c", metric: "a", n: 1, at },
    ];
    let refused = setup.engine.increment_keyed(&key("k"), [8; 32], &bad, Guarantee::Journal).await;
    assert!(matches!(refused, Err(KeyedError::Refused { index: 1, refusal: Refusal::Window { .. } })));
    assert_eq!(setup.count("k", "a").await, Ok(Keyed::Counted));
    assert_eq!(setup.read(DAY).await, counters(&[("a", 1)]));
}

#[tokio::test]
async fn request_without_the_store_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    for config in [journaled(dir.path()), quiet()] {
        let setup = start(config).await;
        setup.faults.claims_then([Fault::Fail]);
        let failed = setup.request("k", [8; 32], "a", Guarantee::Journal).await;
        assert!(matches!(failed, Err(KeyedError::Unavailable { .. })), "{failed:?}");
        assert_eq!(setup.engine.stats().requests_in_progress, 0);
        assert_eq!(setup.count("k", "a").await, Ok(Keyed::Counted));
        assert_eq!(setup.read(DAY).await, counters(&[("a", 1)]));
    }
}

#[tokio::test]
async fn claim_in_doubt_is_made_again() {
    for fault in [Fault::LoseReply, Fault::LoseRequest, Fault::Panic] {
        let dir = tempfile::tempdir().unwrap();
        for config in [journaled(dir.path()), quiet()] {
            let setup = start(config).await;
            setup.faults.claims_then([fault.clone(), fault.clone(), Fault::Fail]);
            let failed = setup.count("k", "a").await;
            assert!(matches!(failed, Err(KeyedError::InProgress { .. })), "{failed:?}");
            assert_eq!(setup.repeat("k", "a").await, Keyed::Repeat);
            assert_eq!(setup.count("l", "a").await, Ok(Keyed::Counted));
            assert_eq!(setup.read(DAY).await, counters(&[("a", 2)]));
            assert!(setup.engine.stats().is_balanced());
        }
    }
}

#[tokio::test]
async fn of_concurrent_requests_one_counts() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = start(journaled(dirs[0].path())).await;
    let second = start_on(journaled(dirs[1].path()), &first).await;
    let third = start_on(quiet(), &first).await;
    let nodes = [&first, &second, &third];
    let requests = (0..120).map(|at| nodes[at % 3].repeat(["k", "l"][at % 2], "a"));
    let outcomes = join_all(requests).await;
    let counted = outcomes.iter().filter(|outcome| **outcome == Keyed::Counted).count();
    assert_eq!((counted, outcomes.len()), (2, 120));
    for node in nodes {
        node.engine.flush().await;
    }
    assert_eq!(first.stored(DAY).await, counters(&[("a", 2)]));
}

#[tokio::test]
async fn abandoned_request_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    setup.faults.claims_then([Fault::Delay]);
    tokio::select! {
        biased;
        outcome = setup.count("k", "a") => panic!("{outcome:?}"),
        () = setup.faults.delayed() => {}
    }
    assert_eq!(setup.engine.stats().requests_in_progress, 1);
    assert_eq!(setup.read(DAY).await, counters(&[]));
    setup.faults.release();
    eventually("the request", || setup.engine.stats().requests_in_progress == 0).await;
    assert_eq!(setup.read(DAY).await, counters(&[("a", 1)]));
    assert_eq!(setup.count("k", "a").await, Ok(Keyed::Repeat));
}

#[tokio::test]
async fn undecided_request_is_decided_by_the_next_process() {
    for is_away in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let setup = start(journaled(dir.path())).await;
        setup.engine.increment("c", "a", 10).unwrap();
        setup.engine.durable().await.unwrap();
        setup.faults.otherwise(Fault::Fail);
        setup.faults.claims_then([Fault::LoseReply]);
        setup.faults.claims_otherwise(Fault::LoseRequest);
        assert!(setup.count("k", "a").await.is_err());
        let report = setup.engine.shutdown().await;
        assert_eq!((report.accepted, report.journaled), (1, 1), "{report}");
        let reader = JournalReader::open(dir.path()).unwrap();
        assert_eq!(reader.undecided().unwrap().len(), 1);
        reader.verify().unwrap();

        setup.faults.otherwise(Fault::None);
        setup.faults.claims_otherwise(if is_away { Fault::LoseRequest } else { Fault::None });
        let next = start_on(journaled(dir.path()), &setup).await;
        if is_away {
            assert_eq!(next.read(DAY).await, counters(&[("a", 10)]));
            assert!(matches!(next.count("k", "a").await, Err(KeyedError::InProgress { .. })));
            next.faults.claims_otherwise(Fault::None);
        }
        assert_eq!(next.repeat("k", "a").await, Keyed::Repeat);
        next.engine.flush().await;
        assert_eq!(next.stored(DAY).await, counters(&[("a", 11)]));
        let report = next.engine.shutdown().await;
        assert!(report.is_complete() && report.is_balanced(), "{report}");
        assert_eq!(JournalReader::open(dir.path()).unwrap().summary().unwrap().undecided.batches, 0);
    }
}

#[tokio::test]
async fn outcome_that_cannot_be_recorded_is_recorded_later() {
    for place in ["record.before=2*return(error)", "record.after=1*return(error)"] {
        let dir = tempfile::tempdir().unwrap();
        let setup = start(journaled(dir.path())).await;
        fail_points::arm(dir.path(), place);
        assert_ne!(setup.repeat("k", "a").await, Keyed::Mismatch);
        fail_points::disarm(dir.path());
        setup.engine.flush().await;
        assert_eq!(setup.stored(DAY).await, counters(&[("a", 1)]), "{place}");
        assert!(setup.engine.stats().is_balanced());
    }
}

#[tokio::test]
async fn request_that_cannot_be_journaled_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    fail_points::arm(dir.path(), "accept.before=1*return(error)");
    let refused = setup.request("k", [8; 32], "a", Guarantee::Journal).await;
    assert!(matches!(refused, Err(KeyedError::Unavailable { .. })), "{refused:?}");
    fail_points::disarm(dir.path());
    assert_eq!(setup.count("k", "a").await, Ok(Keyed::Counted));
}

#[tokio::test]
async fn overflowing_request_is_quarantined_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    let much = [KeyedIncrement { n: i64::MAX, ..one("a")[0] }];
    for key in ["k", "l"] {
        let outcome = setup.engine.increment_keyed(&self::key(key), BODY, &much, Guarantee::Journal).await;
        assert_eq!(outcome, Ok(Keyed::Counted));
    }
    let stats = setup.engine.stats();
    assert_eq!((stats.accepted, stats.quarantined, stats.is_balanced()), (2, 1, true));
    assert_eq!(setup.read(DAY).await, counters(&[("a", i64::MAX)]));
}

/// Reads the files of a journal, but for the index of its log, at a moment at which nothing is written.
fn image(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut image = read(dir);
    loop {
        let again = read(dir);
        if image == again {
            return image;
        }
        image = again;
    }
}

fn read(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_content = |file: &PathBuf| file.extension().is_none_or(|extension| extension != "db-shm");
    let mut files: Vec<_> = files.filter(is_content).collect();
    files.sort_unstable();
    files.into_iter().map(|file| (file.clone(), fs::read(&file).unwrap())).collect()
}

/// Puts files back in place: each stays the same one, so that the journal is not taken for a copy.
fn put_back(dir: &Path, image: &[(PathBuf, Vec<u8>)]) {
    for file in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if !image.iter().any(|(known, _)| *known == file) && !file.ends_with("journal.lock") {
            fs::remove_file(file).unwrap();
        }
    }
    image.iter().for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
}

#[tokio::test]
async fn restored_journal_counts_no_request_again() {
    let dir = tempfile::tempdir().unwrap();
    let setup = start(journaled(dir.path())).await;
    setup.faults.claims_otherwise(Fault::LoseReply);
    assert!(setup.count("k", "a").await.is_err());
    let backup = image(dir.path());
    setup.faults.claims_otherwise(Fault::None);
    assert_eq!(setup.repeat("k", "a").await, Keyed::Repeat);
    setup.engine.flush().await;
    assert_eq!(setup.stored(DAY).await, counters(&[("a", 1)]));
    setup.faults.otherwise(Fault::Fail);
    setup.engine.increment("c", "lost with the backup", 1).unwrap();
    setup.engine.shutdown().await;

    put_back(dir.path(), &backup);
    setup.faults.otherwise(Fault::None);
    let restored = start_on(journaled(dir.path()), &setup).await;
    restored.engine.flush().await;
    assert_eq!(restored.stored(DAY).await, counters(&[("a", 1)]));
    assert_eq!(restored.count("k", "a").await, Ok(Keyed::Repeat));
}
