//! Many writers create the same documents at the same moment.

use std::sync::Arc;

use anyhow::{Result, ensure};
use countem_core::{Batch, BucketRange, Delta, Period};
use countem_store::{RowQuery, Select, Store};
use countem_store_mongodb::MongoStore;
use countem_testkit::{Mongod, Options, ReplicaSet, Server, in_own_database, require_mongod, require_server};
use mongodb::{
    Database,
    bson::{Bson, Document, doc},
};

use crate::support::{Lane, collection, database, open};

const WRITERS: u64 = 8;
const DOCUMENTS: usize = 3_000;
const INCREMENTS: i64 = 24_000;
const NAME: &str = "created";

/// A receiver of batches.
trait Target: Send + Sync + 'static {
    fn add(&self, batch: &Arc<Batch>) -> impl Future<Output = Result<()>> + Send;
}

impl Target for MongoStore {
    async fn add(&self, batch: &Arc<Batch>) -> Result<()> {
        ensure!(self.apply(batch).await?.quarantined.is_empty(), "nothing is quarantined");
        Ok(())
    }
}

/// A mistaken store: it takes "the key exists already" for "the batch is in it already".
struct DuplicateMeansApplied(Database);

impl Target for DuplicateMeansApplied {
    async fn add(&self, batch: &Arc<Batch>) -> Result<()> {
        let watermark = format!("w.{}", batch.id().writer);
        let seq = i64::try_from(batch.id().seq)?;
        let update = |delta: Delta<'_>| {
            Bson::from(doc! {
                "q": { "_id": format!("{}/1", delta.bucket), &watermark: { "$not": { "$gte": seq } } },
                "u": { "$inc": { format!("c.{}", delta.metric): delta.n }, "$set": { &watermark: seq } },
                "upsert": true,
            })
        };
        let updates: Vec<_> = batch.deltas().map(update).collect();
        let reply = self.0.run_command(doc! { "update": NAME, "ordered": false, "updates": updates }).await?;
        let errors = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
        let is_duplicate = |error: &Document| error.get_i32("code").is_ok_and(|code| code == 11000);
        ensure!(errors.iter().filter_map(Bson::as_document).all(is_duplicate), "another error: {errors:?}");
        Ok(())
    }
}

/// Lets eight writers, each with a connection of its own, create 3,000 documents at once.
async fn create<T: Target>(targets: Vec<T>) -> Result<()> {
    let minutes: Vec<String> = (0..DOCUMENTS)
        .map(|i| format!("2026-11-{:02}T{:02}:{:02}", 1 + i / 1440, i / 60 % 24, i % 60))
        .collect();
    let start = Arc::new(tokio::sync::Barrier::new(targets.len()));
    let mut writers = tokio::task::JoinSet::new();
    for (node, target) in (0..WRITERS).zip(targets) {
        let batch = Lane::new(node).batch(minutes.iter().map(|minute| (NAME, minute.as_str(), "m", 1)));
        let start = Arc::clone(&start);
        writers.spawn(async move {
            start.wait().await;
            target.add(&batch).await
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

async fn sum(store: &MongoStore) -> Result<(usize, i64)> {
    let query = RowQuery {
        collection: collection(NAME),
        range: BucketRange::every(Period::Minute),
        select: Select::All,
    };
    let rows = store.read(&query, None).await?;
    Ok((rows.len(), rows.values().flat_map(|counters| counters.values()).map(Result::unwrap).sum()))
}

async fn loses_none(uri: &str) -> Result<()> {
    let uri = in_own_database(uri);
    create((0..WRITERS).map(|_| open(&uri)).collect()).await?;
    assert_eq!(sum(&open(&uri)).await?, (DOCUMENTS, INCREMENTS));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_creation_on_standalone_loses_no_count() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    loses_none(&Server::any().await?.uri()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_creation_on_replica_set_loses_no_count() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    loses_none(&ReplicaSet::start(3).await?.uri()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicate_key_taken_for_applied_is_caught() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    const UPSERT: &str = "hangBeforeUpsertPerformsInsert";
    let server = Mongod::start(Options::default()).await?;
    let uri = in_own_database(&server.uri());
    let mut targets = Vec::new();
    for _ in 0..WRITERS {
        targets.push(DuplicateMeansApplied(database(&uri).await?));
    }
    // All writers meet at the creation of the first document.
    server.fail_point(UPSERT, doc! { "mode": "alwaysOn" }).await?;
    let creating = tokio::spawn(create(targets));
    let all = i64::try_from(WRITERS)?;
    server
        .admin_command(doc! { "waitForFailPoint": UPSERT, "timesEntered": all, "maxTimeMS": 20_000 })
        .await?;
    server.fail_point(UPSERT, doc! { "mode": "off" }).await?;
    creating.await??;
    let (documents, sum) = sum(&open(&uri)).await?;
    assert_eq!(documents, DOCUMENTS);
    assert!(sum < INCREMENTS, "the mistake goes unnoticed: {sum}");
    Ok(())
}
