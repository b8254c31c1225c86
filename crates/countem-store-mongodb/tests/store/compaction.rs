//! Closed buckets become one document, and no value changes: beside late writers, copies of their batches, readers, and processes
//! and servers that are killed.
//!
//! Shows G1, G7.

use std::{
    num::{NonZeroU16, NonZeroUsize},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use countem_core::{
    Batch, Bucket, BucketRange, MetricName,
    jiff::{SignedDuration, Timestamp},
};
use countem_store::{Counters, RowQuery, Rows, Select, Store, StoreError};
use countem_store_mongodb::{MongoConfig, MongoStore};
use countem_testkit::{Proxy, ReplicaSet, Server, in_own_database, require_mongod, require_server};
use mongodb::{
    Database,
    bson::{Document, doc},
};

use crate::support::{
    DAY, Lane, bucket, collection, database, day, deliver, documents, one, open, open_with,
};

mod kill;
mod random;

const NEXT_DAY: &str = "2026-11-21";

/// A set of one server, and a store with a proxy between them.
struct Scene {
    set: ReplicaSet,
    proxy: Proxy,
    uri: String,
    database: Database,
}

impl Scene {
    async fn start() -> Result<Self> {
        let set = ReplicaSet::start(1).await?;
        let proxy = Proxy::start(set.member(0).port())?;
        let uri = in_own_database(&proxy.uri());
        let direct = uri.replace(&proxy.port().to_string(), &set.member(0).port().to_string());
        Ok(Self { database: database(&direct).await?, set, proxy, uri })
    }

    /// Returns a store that knows nothing of the documents.
    fn store(&self, metrics: usize, shards: u16) -> MongoStore {
        with(&self.uri, metrics, shards)
    }

    /// Lets the hour pass after which empty children may be removed.
    async fn age(&self) -> Result<()> {
        let hours = doc! { "$inc": { "compacted": -7_200_000_i64 } };
        let web = self.database.collection::<Document>("web");
        web.update_many(doc! { "compacted": { "$exists": true } }, hours).await?;
        Ok(())
    }
}

fn with(uri: &str, metrics: usize, shards: u16) -> MongoStore {
    let mut config = MongoConfig::new(uri);
    config.metrics_per_document = NonZeroUsize::new(metrics).expect("not zero");
    config.writer_shards = NonZeroU16::new(shards).expect("not zero");
    open_with(config)
}

/// Lets the server end the transactions of a killed process after a second.
async fn end_transactions_soon(set: &ReplicaSet) -> Result<()> {
    let limit = doc! { "setParameter": 1, "transactionLifetimeLimitSeconds": 1 };
    set.member(0).admin_command(limit).await.map(drop)
}

/// Compacts all closed buckets on the `n`th day from now.
async fn compact(store: &MongoStore, n: i64) -> Result<usize, StoreError> {
    let now = Timestamp::now() + SignedDuration::from_hours(n * 25);
    let mut all = 0;
    loop {
        match store.compact(now, 2).await? {
            0 => return Ok(all),
            count => all += count,
        }
    }
}

fn metrics(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("GET /things/{i:04}")).collect()
}

/// Counts in two days, by several writers with different limits, so that both have many documents.
async fn spread(scene: &Scene, lanes: &mut [Lane]) -> Result<()> {
    let all = metrics(120);
    for (i, lane) in lanes.iter_mut().enumerate() {
        for (limit, shards) in [(16, 1), (256, 4), (8, 2)] {
            let store = scene.store(limit, shards);
            for day in [DAY, NEXT_DAY] {
                let counts = all.iter().skip(i).map(|metric| ("web", day, metric.as_str(), 7));
                deliver(&store, &lane.batch(counts)).await;
            }
        }
    }
    Ok(())
}

/// Reads two days in many ways that have to agree, and returns the counters of the first.
async fn read_all(store: &MongoStore) -> Result<Counters, StoreError> {
    let range = BucketRange::new(bucket(DAY), bucket(NEXT_DAY)).expect("the days are in order");
    let query = |select| RowQuery { collection: collection("web"), range, select };
    let mut rows = store.read(&query(Select::All), None).await?;
    let mut counters = rows.remove(&bucket(DAY)).unwrap_or_default();
    assert_eq!(counters, day(store, "web").await);
    for metric in counters.metrics().step_by(31) {
        assert_eq!(Ok(one(store, "web", metric).await), counters.get(metric));
    }
    let mut page = store.read(&query(Select::first(NonZeroUsize::new(10).expect("not zero"))), None).await?;
    assert_eq!(store.extent(&collection("web"), BucketRange::every(range.period())).await?, Some(range));
    let all = counters.clone();
    counters.truncate(10);
    assert_eq!(page.remove(&bucket(DAY)).unwrap_or_default(), counters);
    Ok(all)
}

async fn ids(scene: &Scene) -> Result<Vec<String>> {
    let documents = documents(&scene.database, "web").await?;
    documents.iter().map(|document| Ok(document.get_str("_id")?.to_owned())).collect()
}

#[tokio::test]
async fn closed_bucket_becomes_one_document() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let store = scene.store(256, 1);
    let mut lanes: Vec<_> = (1..4).map(Lane::new).collect();
    spread(&scene, &mut lanes).await?;
    let before = read_all(&store).await?;
    assert!(documents(&scene.database, "web").await?.len() > 40);

    let early: Timestamp = "2026-11-22T23:59:59Z".parse()?;
    assert_eq!(store.compact(early, 8).await?, 0, "no bucket is closed for two days");
    assert_eq!(compact(&store, 1).await?, 2);
    assert_eq!(read_all(&store).await?, before);
    let watermarks = crate::support::watermarks(&scene.database, "web").await?;
    for document in documents(&scene.database, "web").await? {
        let is_root = document.get_str("_id")?.ends_with("/1");
        assert_eq!(document.get_document("c")?.len(), if is_root { 120 } else { 0 }, "{document}");
        assert!(document.contains_key("compacted"));
    }
    assert_eq!(compact(&store, 1).await?, 0, "the pass of this day is over");
    assert_eq!(compact(&store, 2).await?, 2);
    assert_eq!(crate::support::watermarks(&scene.database, "web").await?, watermarks, "the writers live");

    // Copies of the last batches, and later ones.
    for lane in &mut lanes {
        let fresh = open(&scene.uri);
        let copy = lane.batch_at(lane.seq, [("web", NEXT_DAY, "GET /things/0100", 7)]);
        fresh.apply(&copy).await?;
    }
    assert_eq!(read_all(&store).await?, before);

    for lane in &lanes {
        store.retire(&lane.writer).await?;
    }
    store.prune(Duration::ZERO).await?;
    compact(&store, 3).await?;
    assert_eq!(crate::support::watermarks(&scene.database, "web").await?, 0);
    compact(&store, 4).await?;
    assert!(ids(&scene).await?.len() > 40, "a reader may have begun before");
    scene.age().await?;
    compact(&store, 5).await?;
    let left = documents(&scene.database, "web").await?;
    assert!(left.iter().all(|document| document.contains_key("split")), "{left:?}");
    assert_eq!(read_all(&store).await?, before);
    Ok(())
}

#[tokio::test]
async fn removed_children_are_created_again() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let (store, knows) = (scene.store(256, 1), scene.store(16, 1));
    let (mut lane, mut late) = (Lane::new(1), Lane::new(2));
    let all = metrics(100);
    let counts = |n| all.iter().map(move |metric| ("web", DAY, metric.as_str(), n));
    deliver(&knows, &lane.batch(counts(1))).await;
    // It has to know the children, so that it sends its next batch to them at once.
    deliver(&knows, &late.batch([("web", DAY, all[0].as_str(), 1)])).await;
    for writer in [&lane.writer, &late.writer] {
        store.retire(writer).await?;
    }
    store.prune(Duration::ZERO).await?;
    compact(&store, 1).await?;
    scene.age().await?;
    compact(&store, 2).await?;
    assert_eq!(ids(&scene).await?, [format!("{DAY}/1")]);

    let mut later = Lane::new(3);
    deliver(&knows, &later.batch(counts(10))).await;
    let copy = later.batch_at(1, counts(10));
    open(&scene.uri).apply(&copy).await?;
    let expected: Counters =
        all.iter().map(|metric| (metric.clone(), 11)).collect::<Vec<_>>().into_iter().fold(
            Counters::new(),
            |mut sum, (metric, n)| {
                sum.insert(metric, n);
                sum
            },
        );
    let check = async |store: &MongoStore| {
        let mut counters = day(store, "web").await;
        assert_eq!(counters.remove(&all[0]), Some(Ok(12)));
        let mut expected = expected.clone();
        expected.remove(&all[0]);
        assert_eq!(counters, expected);
    };
    check(&store).await;
    compact(&store, 3).await?;
    check(&store).await;
    open(&scene.uri).apply(&copy).await?;
    check(&store).await;
    Ok(())
}

#[tokio::test]
async fn standalone_is_left_alone() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let store = with(&uri, 4, 1);
    let all = metrics(60);
    deliver(&store, &Lane::new(1).batch(all.iter().map(|metric| ("web", DAY, metric.as_str(), 1)))).await;
    let database = database(&uri).await?;
    let before = documents(&database, "web").await?;
    assert_eq!(compact(&store, 1).await?, 0);
    assert_eq!(documents(&database, "web").await?, before);
    Ok(())
}

#[tokio::test]
async fn damaged_and_quarantined_buckets_keep_their_counters() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let store = scene.store(4, 1);
    let all = metrics(40);
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch(all.iter().map(|metric| ("web", DAY, metric.as_str(), 1)))).await;
    let web = scene.database.collection::<Document>("web");
    let child = web.find_one(doc! { "c": { "$ne": {} } }).await?.context("a child has counters")?;
    let child = doc! { "_id": child.get_str("_id")? };
    let damages = [
        (doc! { "$set": { "c.bad": "text" } }, doc! { "$unset": { "c.bad": true } }),
        (doc! { "$set": { "c.bad": 0.5 } }, doc! { "$unset": { "c.bad": true } }),
        (doc! { "$set": { "c.bad": i64::MAX } }, doc! { "$unset": { "c.bad": true } }),
        (doc! { "$set": { "held": [] } }, doc! { "$unset": { "held": true } }),
        (doc! { "$rename": { "c": "away" } }, doc! { "$rename": { "away": "c" } }),
    ];
    let mut n = 0;
    for (damage, repair) in damages {
        let renamed = damage.contains_key("$rename");
        web.update_one(child.clone(), damage.clone()).await?;
        if renamed {
            web.update_one(child.clone(), doc! { "$set": { "c": [] } }).await?;
        }
        let before = documents(&scene.database, "web").await?;
        n += 1;
        assert_eq!(compact(&store, n).await?, 1);
        assert_eq!(documents(&scene.database, "web").await?, before, "{damage}");
        web.update_one(child.clone(), repair).await?;
    }
    let before = day(&store, "web").await;
    compact(&store, n + 1).await?;
    assert_eq!(day(&store, "web").await, before);
    let emptied = web.find_one(child).await?.context("the child is there")?;
    assert!(emptied.get_document("c")?.is_empty(), "{emptied}");
    Ok(())
}

/// Waits until the server stops a read between two documents of a bucket.
async fn read_is_stopped(scene: &Scene) -> Result<()> {
    let waiting =
        doc! { "waitForFailPoint": "setYieldAllLocksHang", "timesEntered": 1_i64, "maxTimeMS": 30_000 };
    scene.set.member(0).admin_command(waiting).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_in_the_middle_of_a_read() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let member = scene.set.member(0);
    let direct = scene.uri.replace(&scene.proxy.port().to_string(), &member.port().to_string());
    let all = metrics(60);
    let mut lane = Lane::new(1);
    let mut n = 0;
    let selects = [
        Select::All,
        Select::One(MetricName::new(&all[7])?),
        Select::first(NonZeroUsize::new(5).context("not zero")?),
    ];
    for select in selects {
        for in_flight in [false, true] {
            n += 1;
            let batch = lane.batch(all.iter().map(|metric| ("web", DAY, metric.as_str(), 1)));
            deliver(&scene.store(4, 1), &batch).await;
            let compacting = tokio::spawn({
                let store = scene.store(4, 1);
                async move { compact(&store, n).await }
            });
            let held = scene.proxy.hold(|request| request.contains("startTransaction"));
            held.arrived().await?;
            member.admin_command(doc! { "setParameter": 1, "internalQueryExecYieldIterations": 1 }).await?;
            let namespace = format!("{}.web", scene.database.name());
            let hang = doc! { "mode": "alwaysOn", "data": { "namespace": namespace } };
            member.fail_point("setYieldAllLocksHang", hang).await?;
            let query = RowQuery {
                collection: collection("web"),
                range: BucketRange::one(bucket(DAY)),
                select: select.clone(),
            };
            let reading = tokio::spawn({
                let store = open(&direct);
                async move { store.read(&query, in_flight.then_some(&*batch)).await }
            });
            read_is_stopped(&scene).await?;
            held.deliver().await?;
            assert_eq!(compacting.await??, 1);
            member.fail_point("setYieldAllLocksHang", doc! { "mode": "off" }).await?;
            let rows: Rows = reading.await??;
            let counters = rows.get(&bucket(DAY)).context("the day is there")?;
            assert!(counters.values().all(|value| value == Ok(n)), "{n} {select:?}: {counters:?}");
            assert!(!counters.is_empty());
            member
                .admin_command(doc! { "setParameter": 1, "internalQueryExecYieldIterations": 1000 })
                .await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn compaction_in_the_middle_of_an_extent() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let member = scene.set.member(0);
    let direct = scene.uri.replace(&scene.proxy.port().to_string(), &member.port().to_string());
    let all = metrics(60);
    let mut lane = Lane::new(1);
    for day in [DAY, NEXT_DAY] {
        let counts = all.iter().map(|metric| ("web", day, metric.as_str(), 1));
        deliver(&scene.store(4, 1), &lane.batch(counts)).await;
    }
    let compacting = tokio::spawn({
        let store = scene.store(4, 1);
        async move { compact(&store, 1).await }
    });
    let held = scene.proxy.hold(|request| request.contains("startTransaction"));
    held.arrived().await?;
    member.admin_command(doc! { "setParameter": 1, "internalQueryExecYieldIterations": 1 }).await?;
    let namespace = format!("{}.web", scene.database.name());
    let hang = doc! { "mode": "alwaysOn", "data": { "namespace": namespace } };
    member.fail_point("setYieldAllLocksHang", hang).await?;
    let expected = BucketRange::new(bucket(DAY), bucket(NEXT_DAY));
    let reading = tokio::spawn({
        let store = open(&direct);
        async move { store.extent(&collection("web"), BucketRange::every(bucket(DAY).period())).await }
    });
    read_is_stopped(&scene).await?;
    held.deliver().await?;
    // The root has the counters that were in the children, and the second day waits for its own look.
    let root = doc! { "_id": format!("{DAY}/1"), "compacted": { "$exists": true } };
    let web = scene.database.collection::<Document>("web");
    let begun = Instant::now();
    member.fail_point("setYieldAllLocksHang", doc! { "mode": "off" }).await?;
    while web.find_one(root.clone()).await?.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it was not compacted");
    }
    assert_eq!(reading.await??, expected);
    assert_eq!(compacting.await??, 2);
    Ok(())
}

#[tokio::test]
async fn quarantine_is_reported_after_compaction() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let store = scene.store(4, 1);
    let all = metrics(40);
    let mut lane = Lane::new(1);
    let counts = || all.iter().map(|metric| ("web", DAY, metric.as_str(), 1));
    deliver(&store, &lane.batch(counts())).await;
    let web = scene.database.collection::<Document>("web");
    let field = format!("c.{}", all[3]);
    let holder = doc! { &field: { "$exists": true } };
    web.update_one(holder.clone(), doc! { "$set": { &field: "text" } }).await?;
    let batch = lane.batch(counts());
    let journaled = std::sync::Arc::new(Batch::decode(&batch.encode())?.journaled());
    let first = store.apply(&journaled).await?;
    assert_eq!(first.quarantined.len(), 1);
    web.update_one(holder, doc! { "$unset": { &field: true } }).await?;
    let before = day(&store, "web").await;
    compact(&store, 1).await?;
    let root = web.find_one(doc! { "_id": format!("{DAY}/1") }).await?.context("the root is there")?;
    assert_eq!(root.get_document("c")?.len(), 39);
    assert_eq!(open(&scene.uri).apply(&journaled).await?, first);
    assert_eq!(day(&store, "web").await, before);
    Ok(())
}
