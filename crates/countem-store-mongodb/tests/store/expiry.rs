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
use countem_testkit::{Mongod, Options, Server, in_own_database, require_mongod, require_server};
use mongodb::{
    Database,
    bson::{Document, doc},
};

use crate::support::{Lane, collection, database, deliver, documents, open_with};

/// A store whose documents hold few metrics.
fn open_small(uri: &str) -> MongoStore {
    let metrics_per_document = 8.try_into().expect("eight is not zero");
    open_with(MongoConfig { metrics_per_document, ..MongoConfig::new(uri) })
}

/// Records the schedules of `text`.
async fn record(store: &MongoStore, text: &str) -> Result<()> {
    let schedules = text.parse()?;
    assert_eq!(store.record_schedules(&schedules).await?, schedules);
    Ok(())
}

/// The day three days ago.
fn day() -> Bucket {
    let then = Timestamp::now() - SignedDuration::from_hours(72);
    Bucket::containing(Period::Day, then, &TimeZone::UTC).expect("it is a day of this era")
}

/// Returns the retention in seconds after which `bucket` is hidden in `wait` seconds.
fn retention_until(bucket: Bucket, wait: i64) -> i64 {
    let end = bucket.next().expect("a day has an end").start_instant(&TimeZone::UTC);
    Timestamp::now().duration_since(end).as_secs() - 3600 + wait
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

/// Moves the removal of documents, which is an hour after they are hidden, into the past, and returns when the server has removed
/// them.
async fn let_server_remove(database: &Database, store: &MongoStore, filter: Document) -> Result<()> {
    let web = database.collection::<Document>("web");
    let filter = doc! { "$and": [filter, { "expires_at": { "$type": "date" } }] };
    let at = doc! { "$dateSubtract": { "startDate": "$expires_at", "unit": "hour", "amount": 2 } };
    let moved = web.update_many(filter.clone(), vec![doc! { "$set": { "expires_at": at } }]).await?;
    assert!(moved.modified_count > 0, "no document is there");
    let begun = Instant::now();
    while web.count_documents(filter.clone()).await? > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the server removes nothing");
        assert_eq!(sum(store).await?, 0, "a part of an expired bucket is read");
    }
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
    let store = open_small(&uri);
    let tomorrow = Bucket::containing(Period::Day, Timestamp::now(), &TimeZone::UTC)?.next();
    let mut since = tomorrow.expect("time goes on").start_instant(&TimeZone::UTC);
    let mut text = "beginning UTC day:34560000s".to_owned();
    let mut lane = Lane::new(1);
    record(&store, &text).await?;
    deliver(&store, &count(&mut lane, 0..5)).await;
    for (stored, metrics) in [("day", 0..100), ("day:69120000s", 0..400), ("day", 0..400)] {
        text += &format!("\n{since} UTC {stored}");
        since += SignedDuration::from_hours(24);
        record(&store, &text).await?;
        deliver(&open_small(&uri), &count(&mut lane, metrics)).await;
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
    let schedules = format!("beginning UTC day:{}s", retention_until(day(), 6));
    let store = open_small(&uri);
    record(&store, &schedules).await?;
    let mut lane = Lane::new(1);
    deliver(&store, &count(&mut lane, 0..5)).await;
    let in_doubt = count(&mut lane, 0..395);
    deliver(&store, &in_doubt).await;
    assert_eq!(sum(&store).await?, 400);
    let begun = Instant::now();
    loop {
        match sum(&store).await? {
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
            let quarantined = store.apply(&late).await?.quarantined;
            assert_eq!(quarantined.len(), 20);
            assert!(quarantined[0].reason.contains("expired"), "{}", quarantined[0].reason);
            assert_eq!(sum(&store).await?, 0);
        }
    }
    // A retention that is made longer brings nothing back. A process that remembers nothing sends what was counted, and removed
    // since.
    let tomorrow = Bucket::containing(Period::Day, Timestamp::now(), &TimeZone::UTC)?.next();
    let since = tomorrow.expect("time goes on").start_instant(&TimeZone::UTC);
    record(&store, &format!("{schedules}\n{since} UTC day")).await?;
    remove(&database, doc! {}).await?;
    let retry = open_small(&uri).apply(&in_doubt).await?;
    assert_eq!(retry.quarantined.len(), 395);
    assert_eq!(sum(&store).await?, 0);
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
    let store = open_small(&uri);
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
    let store = open_small(&uri);
    let mut lane = Lane::new(1);
    deliver(&store, &count(&mut lane, 0..100)).await;
    remove(&database(&uri).await?, doc! {}).await?;
    let next = count(&mut lane, 0..5);
    deliver(&store, &next).await;
    deliver(&open_small(&uri), &next).await;
    assert_eq!(sum(&store).await?, 5);
    Ok(())
}

#[tokio::test]
async fn removal_by_the_server_leaves_no_part() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let server = Mongod::start(Options::default()).await?;
    let root = format!("{}/1", day());
    for first in [doc! { "_id": root.as_str() }, doc! { "_id": { "$ne": root.as_str() } }] {
        let uri = in_own_database(&server.uri());
        let (database, store, mut lane) = (database(&uri).await?, open_small(&uri), Lane::new(1));
        record(&store, &format!("beginning UTC day:{}s", retention_until(day(), 6))).await?;
        deliver(&store, &count(&mut lane, 0..5)).await;
        let in_doubt = count(&mut lane, 0..395);
        deliver(&store, &in_doubt).await;
        assert!(documents(&database, "web").await?.len() > 8);
        let begun = Instant::now();
        loop {
            match sum(&store).await? {
                400 => assert!(begun.elapsed() < Duration::from_secs(60), "it does not expire"),
                0 => break,
                part => panic!("{part} of 400"),
            }
        }
        for filter in [first, doc! {}] {
            let_server_remove(&database, &store, filter).await?;
            // A process that remembers nothing sends the batch again.
            let retry = open_small(&uri).apply(&in_doubt).await?;
            assert_eq!(retry.quarantined.len(), 395);
            assert_eq!(sum(&store).await?, 0);
        }
    }
    Ok(())
}
