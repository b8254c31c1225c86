//! Servers that die with writes that no other server has.
//!
//! Shows G11.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use countem_store::{ErrorKind, Store};
use countem_store_mongodb::MongoConfig;
use countem_testkit::{Mongod, Options, ReplicaSet, in_own_database, require_mongod};
use mongodb::{
    Client,
    bson::{Document, doc},
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::support::{DAY, Lane, database, day, deliver, open, open_with};

#[tokio::test]
async fn rolled_back_batch_is_applied_again() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut set = ReplicaSet::start(3).await?;
    let uri = in_own_database(&set.uri());
    let mut config = MongoConfig::new(&uri);
    config.deadline = Duration::from_millis(1200);
    let store = open_with(config);
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch([("web", DAY, "before", 1)])).await;

    let old = set.wait_for_primary().await?;
    let others: Vec<_> = set.members().filter(|member| *member != old).collect();
    // No member copies the primary's next write; it stays primary for the two seconds of the election timeout.
    for other in &others {
        set.kill(*other)?;
    }
    let batch = lane.batch([("web", DAY, "during", 1), ("web", DAY, "before", 1)]);
    let error = store.apply(&batch).await.expect_err("there is no majority");
    assert_eq!(error.kind(), ErrorKind::InDoubt, "{error}");
    let name = database(&uri).await?.name().to_owned();
    let direct = Client::with_uri_str(set.member(old).uri()).await?.database(&name);
    let web = direct.collection::<Document>("web");
    let root = web.find_one(doc! { "_id": format!("{DAY}/1") }).await?.context("the document is there")?;
    assert_eq!(root.get_document("c")?.get_i64("during")?, 1, "the primary has it, and only the primary");

    set.kill(old)?;
    for other in &others {
        set.restart(*other).await?;
    }
    set.wait_for_primary().await?;
    assert_eq!(day(&open(&uri), "web").await.get("during"), Ok(None), "the new primary never had it");
    set.restart(old).await?;
    set.wait_for_secondaries().await?;
    deliver(&store, &batch).await;
    deliver(&store, &lane.batch([("web", DAY, "after", 1)])).await;
    let counters = day(&store, "web").await;
    assert_eq!((counters["before"], counters["during"], counters["after"]), (2, 1, 1));
    Ok(())
}

/// Writers that count until they are told to stop, each batch with a counter that all share and one of its own, which tells a
/// loss from a double.
struct Load {
    writers: Vec<JoinHandle<Written>>,
    /// One message for each batch that is resolved.
    progress: mpsc::UnboundedReceiver<()>,
    stop: Arc<AtomicBool>,
    uri: String,
}

struct Written {
    batches: u64,
    retried: usize,
}

impl Load {
    fn start(uri: &str) -> Self {
        let (resolved, progress) = mpsc::unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..4).map(|node| {
            let (resolved, stop, uri) = (resolved.clone(), Arc::clone(&stop), uri.to_owned());
            tokio::spawn(async move {
                let mut config = MongoConfig::new(&uri);
                config.deadline = Duration::from_secs(5);
                let store = open_with(config);
                let (mut lane, mut retried) = (Lane::new(node), 0);
                while !stop.load(Ordering::Relaxed) {
                    let own = format!("{node} {}", lane.seq);
                    let batch = lane.batch([("web", DAY, "shared", 1), ("web", DAY, own.as_str(), 1)]);
                    retried += deliver(&store, &batch).await.len();
                    resolved.send(()).ok();
                }
                Written { batches: lane.seq, retried }
            })
        });
        Self { writers: writers.collect(), progress, stop, uri: uri.to_owned() }
    }

    async fn resolves(&mut self, batches: usize) -> Result<()> {
        for _ in 0..batches {
            self.progress.recv().await.context("the writers go on")?;
        }
        Ok(())
    }

    /// Checks that everything was counted once.
    async fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut batches, mut retried) = (0, 0);
        for writer in self.writers {
            let written = writer.await?;
            batches += written.batches;
            retried += written.retried;
        }
        assert!(retried > 0, "no batch met a server that was away");
        let counters = day(&open(&self.uri), "web").await;
        let wrong: Vec<_> =
            counters.iter().filter(|(metric, n)| *metric != "shared" && *n != Ok(1)).collect();
        assert!(wrong.is_empty(), "after {retried} retries: {wrong:?}");
        assert_eq!(counters["shared"], i64::try_from(batches)?, "after {retried} retries");
        assert_eq!(counters.len(), usize::try_from(batches)? + 1, "after {retried} retries");
        Ok(())
    }
}

#[tokio::test]
async fn repeatedly_killed_standalone_counts_once() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut mongod = Mongod::start(Options::default()).await?;
    let mut load = Load::start(&in_own_database(&mongod.uri()));
    for _ in 0..6 {
        load.resolves(60).await?;
        mongod.restart().await?;
    }
    load.resolves(60).await?;
    load.finish().await
}

#[tokio::test]
async fn failovers_under_load_count_once() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut set = ReplicaSet::start(3).await?;
    let mut load = Load::start(&in_own_database(&set.uri()));
    for round in 0..4 {
        load.resolves(200).await?;
        let primary = set.wait_for_primary().await?;
        if round % 2 == 1 {
            set.kill(primary)?;
            set.wait_for_primary().await?;
            set.restart(primary).await?;
        } else {
            set.step_down(10).await?;
        }
    }
    load.resolves(200).await?;
    load.finish().await
}
