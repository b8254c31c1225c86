//! How many counters per second are added to a file, each batch waiting for the disk.

use std::sync::Arc;

use std::{hint::black_box, path::Path};

use countem_core::{Batch, BatchId, Bucket, CollectionName, Table, Writer};
use countem_store::{Query, Store as _};
use countem_store_sqlite::{SqliteConfig, SqliteStore};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rusqlite::Connection;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// Makes batches of one lane, each with the same metrics of about 25 bytes.
struct Lane {
    metrics: Vec<String>,
    seq: u64,
    day: Bucket,
}

impl Lane {
    fn new(size: usize) -> Self {
        let metrics = (0..size).map(|i| format!("GET /api/v1/things/{i:06}")).collect();
        Self { metrics, seq: 0, day: "2026-11-20".parse().expect("a day") }
    }

    fn batch(&mut self) -> Arc<Batch> {
        let mut table = Table::new();
        for metric in &self.metrics {
            table.fold("app-events", metric, self.day, 3).expect("valid names");
        }
        self.seq += 1;
        Arc::new(Batch::new(BatchId { writer: Writer::new(1, 1), lane: 0, seq: self.seq }, table.drain()))
    }

    fn batch_of_next_day(&mut self) -> Arc<Batch> {
        self.day = self.day.next().expect("a day before the year 9999");
        self.batch()
    }
}

fn flush(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("sqlite");
    for size in SIZES {
        group.throughput(Throughput::Elements(size as u64));
        group.sample_size(if size == 100_000 { 10 } else { 30 });
        type Make = fn(&mut Lane) -> Arc<Batch>;
        let cases: [(&str, Make); 2] =
            [("add to existing counters", Lane::batch), ("create counters", Lane::batch_of_next_day)];
        for (name, make) in cases {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let folder = tempfile::tempdir().expect("a folder");
                let store =
                    SqliteStore::open(SqliteConfig::new(folder.path().join("countem.db"))).expect("a store");
                let mut lane = Lane::new(size);
                runtime.block_on(store.apply(&lane.batch())).expect("applied");
                bencher.iter_batched(
                    || make(&mut lane),
                    |batch| runtime.block_on(store.apply(&batch)).expect("applied"),
                    BatchSize::PerIteration,
                );
            });
        }
        for (name, make) in cases {
            let name = format!("baseline: one upsert each, {name}");
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let folder = tempfile::tempdir().expect("a folder");
                let mut plain = Plain::new(folder.path()).expect("a file");
                let mut lane = Lane::new(size);
                plain.apply(&lane.batch()).expect("applied");
                bencher.iter_batched(
                    || make(&mut lane),
                    |batch| plain.apply(&batch).expect("applied"),
                    BatchSize::PerIteration,
                );
            });
        }
        group.bench_function(BenchmarkId::new("read a bucket", size), |bencher| {
            let folder = tempfile::tempdir().expect("a folder");
            let store =
                SqliteStore::open(SqliteConfig::new(folder.path().join("countem.db"))).expect("a store");
            let mut lane = Lane::new(size);
            runtime.block_on(store.apply(&lane.batch())).expect("applied");
            let query = Query::bucket(CollectionName::new("app-events").expect("a name"), lane.day);
            bencher.iter(|| black_box(runtime.block_on(store.read(&query, None)).expect("read")));
        });
    }
    group.finish();
}

/// What a program would write without this crate: one `upsert` per counter, in one transaction.
struct Plain {
    connection: Connection,
}

impl Plain {
    const TABLE: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536;
        CREATE TABLE counter (collection TEXT, bucket TEXT, metric TEXT, value INTEGER NOT NULL,
            PRIMARY KEY (collection, bucket, metric)) STRICT, WITHOUT ROWID";
    const ADD: &str = "INSERT INTO counter VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET value = value + excluded.value";

    fn new(folder: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(folder.join("plain.db"))?;
        connection.execute_batch(Self::TABLE)?;
        Ok(Self { connection })
    }

    fn apply(&mut self, batch: &Arc<Batch>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut add = transaction.prepare_cached(Self::ADD)?;
        for delta in batch.deltas() {
            add.execute((delta.collection, delta.bucket.to_string(), delta.metric, delta.n))?;
        }
        drop(add);
        transaction.commit()
    }
}

/// A node flushes few of the counters that the bucket has.
fn flush_few_of_many(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(SqliteConfig::new(folder.path().join("countem.db"))).expect("a store");
    let mut lane = Lane::new(100_000);
    runtime.block_on(store.apply(&lane.batch())).expect("applied");
    lane.metrics = lane.metrics.into_iter().step_by(100).collect();
    let mut group = criterion.benchmark_group("sqlite");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("add to every hundredth of 100000 counters", |bencher| {
        bencher.iter_batched(
            || lane.batch(),
            |batch| runtime.block_on(store.apply(&batch)).expect("applied"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, flush, flush_few_of_many);
criterion_main!(benches);
