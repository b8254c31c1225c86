//! Closed buckets become one document, and no value changes: beside late writers, copies of their batches, readers, and processes
//! and servers that are killed.
//!
//! Shows G1, G7 and G22.

use std::{
    num::{NonZeroU16, NonZeroUsize},
    time::Duration,
};

use anyhow::{Context, Result};
use countem_core::{
    Batch, Bucket, BucketRange, MetricName,
    jiff::{SignedDuration, Timestamp},
};
use countem_store::{Counters, RowQuery, Select, Store, StoreError};
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
        let direct = without_proxy(&uri, &proxy, &set);
        Ok(Self { database: database(&direct).await?, set, proxy, uri })
    }

    /// Returns the address of the database without the proxy.
    fn direct(&self) -> String {
        without_proxy(&self.uri, &self.proxy, &self.set)
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

fn without_proxy(uri: &str, proxy: &Proxy, set: &ReplicaSet) -> String {
    uri.replace(&format!(":{}/", proxy.port()), &format!(":{}/", set.member(0).port()))
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
    let mut expected: Counters = all.iter().map(|metric| (metric.as_str(), 11)).collect();
    expected.insert(all[0].as_str(), 12);
    let check = async |store: &MongoStore| assert_eq!(day(store, "web").await, expected);
    check(&store).await;
    compact(&store, 3).await?;
    check(&store).await;
    open(&scene.uri).apply(&copy).await?;
    check(&store).await;
    Ok(())
}

#[tokio::test]
async fn batch_in_doubt_outlives_compaction() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let store = scene.store(4, 1);
    let all = metrics(200);
    let counts = || all.iter().map(|metric| ("web", DAY, metric.as_str(), 1));
    deliver(&store, &Lane::new(1).batch(counts())).await;
    let batch = Lane::new(2).batch(counts());
    // So many documents need two commands, and one of them is lost.
    let lost = scene.proxy.drop_request(1, |request| request.is("update") && request.contains("$inc"));
    store.apply(&batch).await.expect_err("a part is not stored");
    lost.happened(1).await?;
    let stored = day(&store, "web").await.total().ok();
    assert!(stored > Some(200) && stored < Some(400), "{stored:?}");
    compact(&store, 1).await?;
    assert_eq!(day(&store, "web").await.total().ok(), stored);
    let query = RowQuery::bucket(collection("web"), bucket(DAY));
    let read = store.read(&query, Some(&batch)).await?;
    let expected: Counters = all.iter().map(|metric| (metric.as_str(), 2)).collect();
    assert_eq!(read[&bucket(DAY)], expected);
    deliver(&open(&scene.uri), &batch).await;
    assert_eq!(day(&store, "web").await, expected);
    compact(&store, 2).await?;
    assert_eq!(day(&store, "web").await, expected);
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

/// Runs `read` so that the server stops it after `steps` steps, in the middle of the documents, until the compaction is done that waits
/// for nothing but its first request.
async fn with_compaction_inside<T: Send + 'static>(
    scene: &Scene,
    n: i64,
    steps: i32,
    read: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let member = scene.set.member(0);
    let held = scene.proxy.hold(|request| request.contains("startTransaction"));
    let compacting = tokio::spawn({
        let store = scene.store(4, 1);
        async move { store.compact(Timestamp::now() + SignedDuration::from_hours(n * 25), 1).await }
    });
    held.arrived().await?;
    let yields = |every: i32| doc! { "setParameter": 1, "internalQueryExecYieldIterations": every };
    member.admin_command(yields(1)).await?;
    let namespace = format!("{}.web", scene.database.name());
    let stop = doc! { "mode": { "skip": steps }, "data": { "namespace": namespace } };
    member.fail_point("setYieldAllLocksHang", stop).await?;
    let reading = tokio::spawn(read);
    let stopped =
        doc! { "waitForFailPoint": "setYieldAllLocksHang", "timesEntered": 1_i64, "maxTimeMS": 30_000 };
    member.admin_command(stopped).await?;
    held.deliver().await?;
    // A transaction does not stop there.
    assert_eq!(compacting.await??, 1);
    member.fail_point("setYieldAllLocksHang", doc! { "mode": "off" }).await?;
    member.admin_command(yields(1000)).await?;
    let found = reading.await?;
    // The pass ends.
    compact(&scene.store(4, 1), n).await?;
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_in_the_middle_of_a_read() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let direct = scene.direct();
    let all = metrics(60);
    let mut lane = Lane::new(1);
    let mut n = 0;
    let page = Select::first(NonZeroUsize::new(5).context("not zero")?);
    for select in [Select::All, Select::One(MetricName::new(&all[7])?), page] {
        for steps in 0..8 {
            n += 1;
            let batch = lane.batch(all.iter().map(|metric| ("web", DAY, metric.as_str(), 1)));
            deliver(&scene.store(4, 1), &batch).await;
            let range = BucketRange::one(bucket(DAY));
            let query = RowQuery { collection: collection("web"), range, select: select.clone() };
            let store = open(&direct);
            let read = async move { store.read(&query, (steps % 2 == 0).then_some(&*batch)).await };
            let rows = with_compaction_inside(&scene, n, steps, read).await??;
            let counters = rows.get(&bucket(DAY)).context("the day is there")?;
            assert!(counters.values().all(|value| value == Ok(n)), "{n} {steps} {select:?}: {counters:?}");
            assert!(!counters.is_empty());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_in_the_middle_of_an_extent() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let direct = scene.direct();
    let all = metrics(60);
    let mut lane = Lane::new(1);
    let period = bucket(DAY).period();
    // Each time in an older bucket, whose root has no counter yet.
    for steps in 0..8 {
        let day = format!("2026-11-{:02}", 20 - steps);
        let counts = all.iter().map(|metric| ("web", day.as_str(), metric.as_str(), 1));
        deliver(&scene.store(4, 1), &lane.batch(counts)).await;
        let store = open(&direct);
        let read = async move { store.extent(&collection("web"), BucketRange::every(period)).await };
        let found = with_compaction_inside(&scene, (steps + 1).into(), steps, read).await??;
        assert_eq!(found, BucketRange::new(bucket(&day), bucket(DAY)), "{steps}");
    }
    Ok(())
}

#[tokio::test]
async fn spread_zeros_are_removed() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    let all = metrics(150);
    let counts = |n| all.iter().map(move |metric| ("web", DAY, metric.as_str(), n));
    let mut lanes: Vec<_> = (1..4).map(Lane::new).collect();
    let mut batches = Vec::new();
    for (lane, (limit, n)) in lanes.iter_mut().zip([(256, 5), (16, -3), (4, -2)]) {
        let batch = lane.batch(counts(n));
        deliver(&scene.store(limit, 2), &batch).await;
        batches.push(batch);
    }
    let store = scene.store(256, 1);
    deliver(&store, &lanes[0].batch([("web", DAY, all[0].as_str(), 1)])).await;
    assert_eq!(day(&store, "web").await.len(), 150);
    let named: Vec<_> =
        all[..140].iter().map(|metric| Ok((bucket(DAY), metric.parse()?))).collect::<Result<_>>()?;
    assert_eq!(store.remove_zeros(&collection("web"), &named).await?, 139);
    let left = || all[140..].iter().map(|metric| (metric.as_str(), 0));
    let expected: Counters = [(all[0].as_str(), 1)].into_iter().chain(left()).collect();
    assert_eq!(day(&store, "web").await, expected);
    assert_eq!(store.remove_zeros(&collection("web"), &named).await?, 0, "it is done");
    for batch in &batches {
        open(&scene.uri).apply(batch).await?;
    }
    compact(&store, 1).await?;
    assert_eq!(day(&store, "web").await, expected);
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
