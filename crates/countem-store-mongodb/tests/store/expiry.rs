//! Buckets expire as one, whatever the configuration of the processes that count in them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use countem_core::{
    Batch, Bucket, Period,
    jiff::{SignedDuration, Timestamp, tz::TimeZone},
};
use countem_store::{ErrorKind, RowQuery, Store, StoreError};
use countem_store_mongodb::{MongoConfig, MongoStore};
use countem_testkit::{Server, in_own_database, require_server};
use mongodb::{
    Database,
    bson::{Document, doc},
};

use crate::support::{Lane, collection, database, deliver, documents, open_with};

/// Days for which a bucket is kept, by the first of two processes.
const LONG: Duration = Duration::from_secs(400 * 24 * 3600);

/// A store whose documents hold few metrics.
fn open_small(uri: &str, retention: Option<Duration>) -> MongoStore {
    let metrics_per_document = 8.try_into().expect("eight is not zero");
    open_with(MongoConfig { retention, metrics_per_document, ..MongoConfig::new(uri) })
}

/// The day three days ago.
fn day() -> Bucket {
    let then = Timestamp::now() - SignedDuration::from_hours(72);
    Bucket::containing(Period::Day, then, &TimeZone::UTC).expect("it is a day of this era")
}

/// Returns the retention after which the documents of `bucket` expire in `wait`.
fn retention_until(bucket: Bucket, wait: SignedDuration) -> Duration {
    let end = bucket.next().expect("a day has an end").start_instant(&TimeZone::UTC);
    let kept = Timestamp::now().duration_since(end) - SignedDuration::from_hours(12) + wait;
    kept.try_into().expect("three days are longer than a day and a half")
}

fn count(lane: &mut Lane, metrics: std::ops::Range<usize>) -> Arc<Batch> {
    let (day, names) = (day().to_string(), metrics.map(|n| format!("metric {n}")).collect::<Vec<_>>());
    lane.batch(names.iter().map(|name| ("web", day.as_str(), name.as_str(), 1)))
}

async fn sum(store: &MongoStore) -> Result<i64, StoreError> {
    let mut rows = store.read(&RowQuery::bucket(collection("web"), day()), None).await?;
    let counters = rows.remove(&day()).unwrap_or_default();
    Ok(counters.values().map(|value| value.expect("the counter is readable")).sum())
}

/// Removes documents, as the TTL index does.
async fn remove(database: &Database, filter: Document) -> Result<()> {
    database.collection::<Document>("web").delete_many(filter).await?;
    Ok(())
}

#[tokio::test]
async fn children_expire_with_their_root() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let database = database(&uri).await?;
    let mut lane = Lane::new(1);
    deliver(&open_small(&uri, Some(LONG)), &count(&mut lane, 0..5)).await;
    for (retention, metrics) in [(None, 0..100), (Some(LONG * 2), 0..400), (None, 0..400)] {
        deliver(&open_small(&uri, retention), &count(&mut lane, metrics)).await;
    }
    let documents = documents(&database, "web").await?;
    assert!(documents.len() > 8, "{} documents", documents.len());
    let removals: BTreeSet<_> =
        documents.iter().map(|document| document.get_datetime("expires_at").ok()).collect();
    assert_eq!(removals.len(), 1, "{removals:?}");
    assert!(removals.first().is_some_and(Option::is_some));
    Ok(())
}

#[tokio::test]
async fn bucket_expires_as_one_and_for_ever() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let database = database(&uri).await?;
    let short = retention_until(day(), SignedDuration::from_secs(6));
    let (expiring, forever) = (open_small(&uri, Some(short)), open_small(&uri, None));
    let mut lane = Lane::new(1);
    deliver(&expiring, &count(&mut lane, 0..5)).await;
    let in_doubt = count(&mut lane, 0..395);
    deliver(&forever, &in_doubt).await;
    assert_eq!(sum(&forever).await?, 400);
    let begun = Instant::now();
    loop {
        match sum(&forever).await? {
            400 => assert!(begun.elapsed() < Duration::from_secs(60), "it does not expire"),
            0 => break,
            part => panic!("{part} of 400"),
        }
    }
    // The documents are still there, then some, then none.
    let mut others = Lane::new(2);
    let root = format!("{}/1", day());
    for filter in [None, Some(doc! { "_id": root }), Some(doc! {})] {
        if let Some(filter) = filter {
            remove(&database, filter).await?;
        }
        let late = count(&mut others, 0..20);
        for _ in 0..2 {
            let quarantined = forever.apply(&late).await?.quarantined;
            assert_eq!(quarantined.len(), 20);
            assert!(quarantined[0].reason.contains("expired"), "{}", quarantined[0].reason);
            assert_eq!(sum(&forever).await?, 0);
        }
    }
    // A process that remembers nothing sends what was counted, and removed since.
    let retry = open_small(&uri, None).apply(&in_doubt).await?;
    assert_eq!(retry.quarantined.len(), 395);
    assert_eq!(sum(&forever).await?, 0);
    assert!(
        documents(&database, "web")
            .await?
            .iter()
            .all(|document| document.get_bool("expired").unwrap_or(false))
    );
    Ok(())
}

#[tokio::test]
async fn children_without_root_are_refused() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let store = open_small(&uri, None);
    deliver(&store, &count(&mut Lane::new(1), 0..100)).await;
    remove(&database(&uri).await?, doc! { "_id": format!("{}/1", day()) }).await?;
    let error = sum(&store).await.expect_err("a part is missing");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("not complete"), "{error}");
    Ok(())
}

#[tokio::test]
async fn removed_documents_leave_no_known_split() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let store = open_small(&uri, None);
    let mut lane = Lane::new(1);
    deliver(&store, &count(&mut lane, 0..100)).await;
    remove(&database(&uri).await?, doc! {}).await?;
    let next = count(&mut lane, 0..5);
    deliver(&store, &next).await;
    deliver(&open_small(&uri, None), &next).await;
    assert_eq!(sum(&store).await?, 5);
    Ok(())
}
