//! Counters per second into MongoDB, beside the alternatives of a service without countem.
//!
//! One run measures all of them on servers of its own, a standalone and a replica set of three nodes; each write waits for
//! the journal and the majority. Absolute numbers are those of the machine; only the ratios matter.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use countem_core::{Batch, BatchId, Bucket, CollectionName, Table, Writer};
use countem_store::{RowQuery, Store};
use countem_store_mongodb::{MongoConfig, MongoStore};
use countem_testkit::{Mongod, Options, ReplicaSet, require_mongod};
use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc},
    options::ClientOptions,
};

const DAY: &str = "2026-11-20";
const EVENTS_FOR: Duration = Duration::from_secs(3);
const CONNECTIONS: u32 = 64;
const ROUNDS: usize = 15;

#[tokio::main]
async fn main() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let standalone = Mongod::start(Options::default()).await?;
    measure("standalone", &standalone.uri()).await?;
    drop(standalone);
    let set = ReplicaSet::start(3).await?;
    measure("three nodes, majority", &set.uri()).await
}

async fn measure(deployment: &str, uri: &str) -> Result<()> {
    println!("\n## {deployment}\n");
    let mut options = ClientOptions::parse(uri).await?;
    options.max_pool_size = Some(CONNECTIONS);
    let database = Client::with_options(options)?.database("bench");

    let sequential = increment_per_event(&database, 1).await?;
    report("`$inc` per event, one after another", sequential);
    let connections = increment_per_event(&database, CONNECTIONS).await?;
    report("`$inc` per event, 64 connections", connections);
    let per_metric = one_document_per_metric(&database, 10_000).await?;
    report("10,000 counters, one document per metric", per_metric);
    report("10,000 counters, one document per day", one_document_per_day(&database, 10_000).await?);

    for size in [1_000, 10_000, 50_000] {
        let rate = flush(uri, size).await?;
        report(&format!("countem, {size} counters per flush"), rate);
        println!(
            "{:>58}  {:.1} × one document per metric, {:.0} × `$inc` per event from 64 connections",
            "",
            rate / per_metric,
            rate / connections
        );
    }
    let (mut first, mut once) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        first.push(first_flush(uri, round, 10_000).await?);
        once.push(one_shot(uri, round).await?);
    }
    println!("first flush of a day, 10,000 counters: {:.1} ms", median(&mut first));
    println!("a process that connects, counts once, retires: {:.1} ms", median(&mut once));
    Ok(())
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// Creates and splits the documents of a new bucket.
async fn first_flush(uri: &str, round: usize, size: usize) -> Result<Duration> {
    let store = open(uri, &format!("bench_first_{round}"))?;
    store.check().await?;
    let batch = batch(1, size);
    let start = Instant::now();
    store.apply(&batch).await?;
    Ok(start.elapsed())
}

async fn one_shot(uri: &str, round: usize) -> Result<Duration> {
    let node = u64::try_from(round)?;
    let start = Instant::now();
    let store = open(uri, "bench_once")?;
    let mut table = Table::new();
    table.fold("app-events", "m", DAY.parse()?, 1)?;
    let id = BatchId { writer: Writer::new(node, 1), lane: 0, seq: 1 };
    store.apply(&Arc::new(Batch::new(id.clone(), table.drain()))).await?;
    store.forget(&id.writer).await?;
    Ok(start.elapsed())
}

fn open(uri: &str, database: &str) -> Result<MongoStore> {
    let (base, options) = uri.split_once("/?").context("a URI without a database")?;
    Ok(MongoStore::connect(MongoConfig::new(format!("{base}/{database}?{options}")))?)
}

fn report(what: &str, per_second: f64) {
    println!("{what:<44} {per_second:>12.0}/s");
}

/// Counts events for [`EVENTS_FOR`], each with an update of its own.
async fn increment_per_event(database: &Database, connections: u32) -> Result<f64> {
    let until = Instant::now() + EVENTS_FOR;
    let workers = (0..connections).map(|worker| {
        let database = database.clone();
        tokio::spawn(async move {
            let mut events = 0_u32;
            while Instant::now() < until {
                let metric = format!("metric-{:04}", (events * 31 + worker * 7) % 1000);
                let inc = doc! { "q": { "_id": metric }, "u": { "$inc": { "n": 1_i64 } }, "upsert": true };
                update(&database, "events", vec![inc]).await?;
                events += 1;
            }
            anyhow::Ok(events)
        })
    });
    let mut events = 0;
    for worker in workers.collect::<Vec<_>>() {
        events += worker.await??;
    }
    Ok(f64::from(events) / EVENTS_FOR.as_secs_f64())
}

async fn one_document_per_metric(database: &Database, size: usize) -> Result<f64> {
    let all = |_: usize| {
        let one = |metric| doc! { "q": { "_id": metric }, "u": { "$inc": { "n": 3_i64 } }, "upsert": true };
        metrics(size).map(one).collect::<Vec<_>>()
    };
    rate(size, ROUNDS, async |round| update(database, "per_metric", all(round)).await).await
}

async fn one_document_per_day(database: &Database, size: usize) -> Result<f64> {
    let inc: Document = metrics(size).map(|metric| (format!("c.{metric}"), Bson::Int64(3))).collect();
    let all = doc! { "q": { "_id": DAY }, "u": { "$inc": inc }, "upsert": true };
    rate(size, 5, async |_| update(database, "per_day", vec![all.clone()]).await).await
}

async fn update(database: &Database, collection: &str, updates: Vec<Document>) -> Result<()> {
    let command = doc! {
        "update": collection,
        "updates": updates,
        "ordered": false,
        "writeConcern": { "w": "majority", "j": true },
    };
    let reply = database.run_command(command).await?;
    ensure!(!reply.contains_key("writeErrors") && !reply.contains_key("writeConcernError"), "{reply}");
    Ok(())
}

async fn flush(uri: &str, size: usize) -> Result<f64> {
    let store = open(uri, &format!("bench_{size}"))?;
    let batches: Vec<_> = (1..).map(|seq| batch(seq, size)).take(ROUNDS + 3).collect();
    let rate = rate(size, ROUNDS, async |round| {
        let applied = store.apply(&batches[round]).await?;
        ensure!(applied.quarantined.is_empty(), "nothing is quarantined");
        Ok(())
    })
    .await?;

    let query = RowQuery::bucket(CollectionName::new("app-events")?, DAY.parse()?);
    let mut reads = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let rows = store.read(&query, None).await?;
        reads.push(start.elapsed());
        let expected = i64::try_from(3 * batches.len())?;
        let day = rows.values().next().context("the day is there")?;
        ensure!(day.len() == size && day.values().all(|value| value == Ok(expected)), "the counts are wrong");
    }
    println!("read back {size} counters: {:.1} ms", median(&mut reads));
    Ok(rate)
}

fn metrics(size: usize) -> impl Iterator<Item = String> {
    (0..size).map(|i| format!("GET /api/v1/things/{i:06}"))
}

fn batch(seq: u64, size: usize) -> Arc<Batch> {
    let mut table = Table::new();
    let day: Bucket = DAY.parse().expect("a day");
    for metric in metrics(size) {
        table.fold("app-events", &metric, day, 3).expect("valid names");
    }
    Arc::new(Batch::new(BatchId { writer: Writer::new(1, 1), lane: 0, seq }, table.drain()))
}

/// Returns items per second: the median of `rounds` after three that create what is missing.
async fn rate<F: Future<Output = Result<()>>>(
    items: usize,
    rounds: usize,
    round: impl Fn(usize) -> F,
) -> Result<f64> {
    let mut times = Vec::new();
    for i in 0..rounds + 3 {
        let start = Instant::now();
        round(i).await?;
        times.push(start.elapsed());
    }
    let mut times = times.split_off(3);
    times.sort_unstable();
    Ok(f64::from(u32::try_from(items)?) / times[times.len() / 2].as_secs_f64())
}
