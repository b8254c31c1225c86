//! Buckets with many metrics: documents stay small, and no growth of the tree counts a batch twice.

use std::{
    num::{NonZeroU16, NonZeroUsize},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use countem_core::{Batch, BucketRange, Period};
use countem_store::{Counters, RowQuery, Select, Store};
use countem_store_mongodb::{MongoConfig, MongoStore};
use countem_testkit::{Proxy, Server, in_own_database, require_server};
use mongodb::{
    Database,
    bson::{Document, doc},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::support::{
    DAY, Lane, bucket, collection, database, day, deliver, documents, one, open, open_with,
};

const MEGABYTE: i64 = 1_000_000;

fn metrics(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("GET /api/v1/things/{i:06}")).collect()
}

fn on_day(metrics: &[String]) -> impl Iterator<Item = (&str, &str, &str, i64)> {
    metrics.iter().map(|metric| ("web", DAY, metric.as_str(), 1))
}

/// Returns the number of documents and the bytes of the largest.
async fn sizes(database: &Database, name: &str) -> Result<(usize, i64)> {
    let size = doc! { "$group": { "_id": null, "count": { "$sum": 1 }, "most": { "$max": { "$bsonSize": "$$ROOT" } } } };
    let reply = database.run_command(doc! { "aggregate": name, "pipeline": [size], "cursor": {} }).await?;
    let found = reply.get_document("cursor")?.get_array("firstBatch")?;
    let found = found.first().and_then(|found| found.as_document()).context("there are documents")?;
    Ok((usize::try_from(found.get_i32("count")?)?, found.get_i32("most")?.into()))
}

fn all_one(counters: &Counters, count: usize) {
    let wrong: Vec<_> = counters.iter().filter(|(_, value)| *value != Ok(1)).take(5).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(counters.len(), count);
}

#[tokio::test]
async fn large_batches_make_small_documents() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (store, database) = (open(&uri), database(&uri).await?);
    let all = metrics(100_000);
    let mut lane = Lane::new(1);
    for half in all.chunks(50_000) {
        deliver(&store, &lane.batch(on_day(half))).await;
    }
    let (count, most) = sizes(&database, "web").await?;
    assert!((200..1500).contains(&count) && most < 100_000, "{count} documents of up to {most} bytes");
    all_one(&day(&store, "web").await, 100_000);
    Ok(())
}

/// A replay sends batches in order that were all sent before, some of them to documents that were split since.
#[tokio::test]
async fn replay_after_splits_counts_nothing_twice() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let all = metrics(40);
    let (mut lane, mut other) = (Lane::new(1), Lane::new(2));
    let batches: Vec<_> = (0..4).map(|_| lane.batch(on_day(&all[..8]))).collect();
    let wide = open_with(MongoConfig {
        metrics_per_document: NonZeroUsize::new(64).unwrap(),
        ..MongoConfig::new(&uri)
    });
    for batch in &batches {
        deliver(&wide, batch).await;
    }
    let narrow = open_with(MongoConfig {
        metrics_per_document: NonZeroUsize::new(1).unwrap(),
        ..MongoConfig::new(&uri)
    });
    deliver(&narrow, &other.batch(on_day(&all))).await;
    let replaying = open(&uri);
    // It learns of the split by a batch that was sent after it.
    deliver(&replaying, &other.batch(on_day(&all))).await;
    let stored = day(&wide, "web").await;
    for batch in &batches {
        deliver(&replaying, &Arc::new(Batch::decode(&batch.encode())?)).await;
    }
    assert!(documents(&database(&uri).await?, "web").await?.len() > 1, "the root is split");
    assert_eq!(day(&wide, "web").await, stored);
    Ok(())
}

#[tokio::test]
async fn many_small_batches_make_small_documents() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (mut store, database) = (open(&uri), database(&uri).await?);
    let all = metrics(100_000);
    let mut lane = Lane::new(1);
    for (i, hundred) in all.chunks(100).enumerate() {
        // Now and then by a process that knows nothing of the tree.
        if i % 97 == 0 {
            store = open(&uri);
        }
        deliver(&store, &lane.batch(on_day(hundred))).await;
    }
    let (count, most) = sizes(&database, "web").await?;
    assert!(count < 2000 && most < MEGABYTE / 10, "{count} documents of up to {most} bytes");
    all_one(&day(&open(&uri), "web").await, 100_000);
    Ok(())
}

#[tokio::test]
async fn longest_names_make_small_documents() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (store, database) = (open(&uri), database(&uri).await?);
    // Every character needs three in the document.
    let all: Vec<String> = (0..2000).map(|i| format!("{i:04}{}", ".".repeat(508))).collect();
    let mut lane = Lane::new(1);
    for part in all.chunks(400) {
        deliver(&store, &lane.batch(on_day(part))).await;
    }
    let (count, most) = sizes(&database, "web").await?;
    assert!(most < MEGABYTE, "{count} documents of up to {most} bytes");
    all_one(&day(&store, "web").await, 2000);
    Ok(())
}

#[tokio::test]
async fn flush_time_is_linear_in_its_counters() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let mut best = Vec::new();
    for count in [20_000, 80_000] {
        let store = open(&in_own_database(&server.uri()));
        let all = metrics(count);
        let mut lane = Lane::new(1);
        let mut times = Vec::new();
        for _ in 0..5 {
            let batch = lane.batch(on_day(&all));
            let start = Instant::now();
            deliver(&store, &batch).await;
            times.push(start.elapsed());
        }
        best.push(times.into_iter().min().context("there are rounds")?);
    }
    // Four times the counters; quadratic would be sixteen times the time.
    assert!(best[1] < best[0] * 8, "{best:?}");
    Ok(())
}

/// Returns the server's profile of the last `find` of a collection.
async fn last_find(database: &Database, name: &str) -> Result<Document> {
    let command = doc! {
        "find": "system.profile",
        "filter": { "ns": format!("{}.{name}", database.name()), "op": "query" },
        "sort": { "ts": -1 },
        "limit": 1,
    };
    let reply = database.run_command(command).await?;
    let found = reply.get_document("cursor")?.get_array("firstBatch")?;
    found.first().and_then(|found| found.as_document().cloned()).context("the read was profiled")
}

fn number(profile: &Document, field: &str) -> i64 {
    profile.get_i64(field).or_else(|_| profile.get_i32(field).map(i64::from)).unwrap_or(i64::MAX)
}

#[tokio::test]
async fn reads_examine_few_documents() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (store, database) = (open(&uri), database(&uri).await?);
    let all = metrics(20_000);
    let mut lane = Lane::new(1);
    for day in ["2026-11-19", DAY, "2026-11-21"] {
        deliver(&store, &lane.batch(all.iter().map(|metric| ("web", day, metric.as_str(), 1)))).await;
    }
    // Documents of other periods lie among those of the days.
    let minutes: Vec<String> = (0..1440).map(|i| format!("{DAY}T{:02}:{:02}", i / 60, i % 60)).collect();
    deliver(&store, &lane.batch(minutes.iter().map(|minute| ("web", minute.as_str(), "m", 1)))).await;
    let (count, _) = sizes(&database, "web").await?;
    let per_day = (i64::try_from(count)? - 1440) / 3;
    database.run_command(doc! { "profile": 2 }).await?;

    assert_eq!(day(&store, "web").await.len(), 20_000);
    let profile = last_find(&database, "web").await?;
    assert_eq!(number(&profile, "docsExamined"), per_day, "{profile}");
    assert_eq!(number(&profile, "nreturned"), per_day, "one reply has all of it");

    assert_eq!(one(&store, "web", &all[77]).await, Some(1));
    let profile = last_find(&database, "web").await?;
    assert!(number(&profile, "docsExamined") <= 3, "{profile}");
    assert!(number(&profile, "responseLength") < 1000, "{profile}");

    let range = BucketRange::new(bucket("2026-11-01"), bucket("2026-11-30")).context("in order")?;
    for range in [range, BucketRange::every(Period::Day)] {
        let select = Select::One(all[77].parse()?);
        let rows = store.read(&RowQuery { collection: collection("web"), range, select }, None).await?;
        assert_eq!(rows.len(), 3);
        let profile = last_find(&database, "web").await?;
        assert!(number(&profile, "docsExamined") <= 9, "{profile}");
        let query = RowQuery { collection: collection("web"), range, select: Select::All };
        let rows = store.read(&query, None).await?;
        assert_eq!(rows.values().map(Counters::len).collect::<Vec<_>>(), [20_000; 3]);
        let profile = last_find(&database, "web").await?;
        assert_eq!(number(&profile, "docsExamined"), 3 * per_day, "{profile}");
    }
    Ok(())
}

fn with(uri: &str, metrics: usize, shards: u16) -> MongoStore {
    let mut config = MongoConfig::new(uri);
    config.metrics_per_document = NonZeroUsize::new(metrics).expect("not zero");
    config.writer_shards = NonZeroU16::new(shards).expect("not zero");
    config.deadline = Duration::from_secs(20);
    open_with(config)
}

#[tokio::test]
async fn writer_shards_may_change_at_any_time() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let mut lanes: Vec<_> = (0..16).map(Lane::new).collect();
    let mut expected = 0;
    for shards in [1, 4, 2, 8, 1, 16] {
        let stores = [with(&uri, 256, shards), with(&uri, 256, 1)];
        for (i, lane) in lanes.iter_mut().enumerate() {
            deliver(&stores[i % 2], &lane.batch([("web", DAY, "hot", 1), ("web", DAY, "warm", 2)])).await;
            expected += 1;
        }
        let counters = day(&open(&uri), "web").await;
        assert_eq!((counters["hot"], counters["warm"]), (expected, 2 * expected), "{shards} shards");
        assert_eq!(one(&stores[0], "web", "hot").await, Some(expected));
    }
    let documents = documents(&database(&uri).await?, "web").await?;
    let hot = documents.iter().filter(|d| d.get_document("c").is_ok_and(|c| c.contains_key("hot")));
    assert!(hot.count() > 8, "the writers are spread: {documents:?}");
    Ok(())
}

/// One writer of the random test.
struct Life {
    lane: Lane,
    unresolved: Option<Arc<Batch>>,
    /// Metrics of the last batch.
    last: Vec<String>,
}

impl Life {
    fn count(&mut self, metrics: Vec<String>) {
        self.unresolved = Some(self.lane.batch(on_day(&metrics)));
        self.last = metrics;
    }

    fn add_to(&self, counters: &mut Counters) {
        for metric in &self.last {
            counters.add(metric, 1);
        }
    }
}

/// Sends random batches of three writers through random faults by processes that restart at random, each with its own
/// configuration. While a batch is in doubt the other writers go on, so that the tree grows meanwhile.
async fn random_lives(seed: u64, proxy: &Proxy) -> Result<()> {
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let uri = in_own_database(&proxy.uri());
    let harmless = database(&uri).await?;
    let all = metrics(400);
    let mut resolved = Counters::new();
    let new_life = |node| Life { lane: Lane::new(node), unresolved: None, last: Vec::new() };
    let mut lives: Vec<_> = (0..3).map(new_life).collect();
    let start = |random: &mut StdRng| {
        let metrics = *[1, 3, 16, 256].choose(random).expect("there are choices");
        with(&uri, metrics, *[1, 1, 2, 4].choose(random).expect("there are choices"))
    };
    let mut store = start(&mut random);
    for step in 0..70 {
        let life = random.random_range(0..lives.len());
        if lives[life].unresolved.is_none() {
            let size = *[1, 5, 60, 300].choose(&mut random).expect("there are choices");
            lives[life].count(all.choose_multiple(&mut random, size).cloned().collect());
        }
        let skip = std::sync::atomic::AtomicI32::new(random.random_range(0..4));
        let is_chosen = move |request: &countem_testkit::Message| {
            (request.is("update") || request.is("find"))
                && skip.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 0
        };
        let fault = match random.random_range(0..6) {
            0 => Some(proxy.drop_request(1, is_chosen)),
            1 | 2 => Some(proxy.drop_reply(1, is_chosen)),
            _ => None,
        };
        let batch = lives[life].unresolved.as_ref().expect("it has one");
        let applied = store.apply(batch).await;
        while fault.as_ref().is_some_and(|fault| fault.count() == 0) {
            // A fault that found no request must not hit what comes next.
            harmless.run_command(doc! { "find": "nothing" }).await.ok();
        }
        if random.random_bool(0.2) {
            store = start(&mut random);
        }
        let query = RowQuery::bucket(collection("web"), bucket(DAY));
        let read = store.read(&query, lives[life].unresolved.as_deref()).await?;
        // The writer's own increments are seen exactly; those in doubt of the others may or may not be.
        let mut least = resolved.clone();
        lives[life].add_to(&mut least);
        let mut most = resolved.clone();
        lives.iter().filter(|life| life.unresolved.is_some()).for_each(|life| life.add_to(&mut most));
        let day = read.get(&bucket(DAY)).cloned().unwrap_or_default();
        for metric in &all {
            let of = |counters: &Counters| {
                counters.get(metric).expect("the counter is readable").unwrap_or_default()
            };
            let (low, value, high) = (of(&least), of(&day), of(&most));
            assert!(low <= value && value <= high, "seed {seed} step {step} {metric}: {low} {value} {high}");
        }
        if applied.is_ok() {
            lives[life].unresolved = None;
            resolved = least;
        }
    }
    for life in &mut lives {
        if let Some(batch) = life.unresolved.take() {
            deliver(&store, &batch).await;
            life.add_to(&mut resolved);
        }
    }
    assert_eq!(day(&store, "web").await, resolved, "seed {seed}");
    for life in &lives {
        store.apply(&life.lane.batch_at(life.lane.seq, on_day(&life.last))).await?;
    }
    assert_eq!(day(&store, "web").await, resolved, "copies of the last batches changed something");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_resends_count_every_batch_once() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let (_server, proxy) = Server::behind_proxy().await?;
    for seed in [1, rand::random()] {
        random_lives(seed, &proxy).await?;
    }
    Ok(())
}
