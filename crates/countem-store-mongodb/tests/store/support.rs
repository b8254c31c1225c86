//! Batches, stores and a look at the documents, for all tests.

use std::sync::Arc;

use anyhow::{Context, Result};
use countem_core::{Batch, BatchId, Bucket, BucketRange, CollectionName, MetricName, Table, Writer};
use countem_store::{Counters, RowQuery, Select, Store};
use countem_store_mongodb::{MongoConfig, MongoStore};
use mongodb::{
    Client, Database,
    bson::{Document, doc},
};

pub(crate) const DAY: &str = "2026-11-20";

pub(crate) fn open(uri: &str) -> MongoStore {
    open_with(MongoConfig::new(uri))
}

pub(crate) fn open_with(config: MongoConfig) -> MongoStore {
    MongoStore::connect(config).expect("the URI is well formed")
}

/// Returns the database of a connection string, to be read and changed without the store.
pub(crate) async fn database(uri: &str) -> Result<Database> {
    let client = Client::with_uri_str(uri).await?;
    client.default_database().context("the URI names a database")
}

pub(crate) fn bucket(id: &str) -> Bucket {
    id.parse().expect("a constant id is well formed")
}

pub(crate) fn collection(name: &str) -> CollectionName {
    CollectionName::new(name).expect("a constant name is valid")
}

/// The batches of one lane of a writer.
pub(crate) struct Lane {
    pub(crate) writer: Writer,
    pub(crate) number: u16,
    pub(crate) seq: u64,
}

impl Lane {
    pub(crate) fn new(node: u64) -> Self {
        Self { writer: Writer::new(node, 1), number: 0, seq: 0 }
    }

    pub(crate) fn batch<'a>(
        &mut self,
        deltas: impl IntoIterator<Item = (&'a str, &'a str, &'a str, i64)>,
    ) -> Arc<Batch> {
        self.seq += 1;
        self.batch_at(self.seq, deltas)
    }

    /// Returns the batch with the number `seq`, as a process would read it from its journal.
    pub(crate) fn batch_at<'a>(
        &self,
        seq: u64,
        deltas: impl IntoIterator<Item = (&'a str, &'a str, &'a str, i64)>,
    ) -> Arc<Batch> {
        let mut table = Table::new();
        for (collection, day, metric, n) in deltas {
            table.fold(collection, metric, bucket(day), n).expect("the test counts what may be counted");
        }
        Arc::new(Batch::new(BatchId { writer: self.writer.clone(), lane: self.number, seq }, table.drain()))
    }
}

/// Sends a batch as the engine does, the same again until it is resolved, and returns the errors on the way.
pub(crate) async fn deliver(store: &MongoStore, batch: &Arc<Batch>) -> Vec<String> {
    let mut errors = Vec::new();
    loop {
        match store.apply(batch).await {
            Ok(applied) => {
                assert_eq!(applied.quarantined, [], "nothing is quarantined");
                return errors;
            }
            Err(error) => errors.push(format!("{}: {error}", error.kind().name())),
        }
        assert!(errors.len() < 200, "not resolved: {errors:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

pub(crate) async fn day(store: &MongoStore, name: &str) -> Counters {
    let query = RowQuery::bucket(collection(name), bucket(DAY));
    store.read(&query, None).await.expect("a read succeeds").remove(&bucket(DAY)).unwrap_or_default()
}

pub(crate) async fn one(store: &MongoStore, name: &str, metric: &str) -> Option<i64> {
    let metric = MetricName::new(metric).expect("the metric is valid");
    let select = Select::One(metric.clone());
    let query = RowQuery { collection: collection(name), range: BucketRange::one(bucket(DAY)), select };
    let rows = store.read(&query, None).await.expect("a read succeeds");
    rows.get(&bucket(DAY))?.get(metric.as_str()).expect("the counter is readable")
}

/// Returns all documents of a MongoDB collection, by id.
pub(crate) async fn documents(database: &Database, name: &str) -> Result<Vec<Document>> {
    let reply =
        database.run_command(doc! { "find": name, "sort": { "_id": 1 }, "batchSize": 1_000_000 }).await?;
    let documents = reply.get_document("cursor")?.get_array("firstBatch")?;
    Ok(documents.iter().filter_map(|document| document.as_document().cloned()).collect())
}

/// Returns how many watermarks are in the documents of a MongoDB collection.
pub(crate) async fn watermarks(database: &Database, name: &str) -> Result<usize> {
    let documents = documents(database, name).await?;
    Ok(documents.iter().filter_map(|document| document.get_document("w").ok()).map(Document::len).sum())
}
