//! Cases beside those of `cargo xtask bench`: new counters, few counters among many, and reads. Each batch waits for the disk.

use std::{hint::black_box, sync::Arc};

use countem_core::{Batch, BatchId, Bucket, CollectionName, Table, Writer};
use countem_store::{RowQuery, Store as _};
use countem_store_sqlite::{SqliteConfig, SqliteStore};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

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
        group.bench_function(BenchmarkId::new("create counters", size), |bencher| {
            let folder = tempfile::tempdir().expect("a folder");
            let store =
                SqliteStore::open(SqliteConfig::new(folder.path().join("countem.db"))).expect("a store");
            let mut lane = Lane::new(size);
            bencher.iter_batched(
                || lane.batch_of_next_day(),
                |batch| runtime.block_on(store.apply(&batch)).expect("applied"),
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("read a bucket", size), |bencher| {
            let folder = tempfile::tempdir().expect("a folder");
            let store =
                SqliteStore::open(SqliteConfig::new(folder.path().join("countem.db"))).expect("a store");
            let mut lane = Lane::new(size);
            runtime.block_on(store.apply(&lane.batch())).expect("applied");
            let query = RowQuery::bucket(CollectionName::new("app-events").expect("a name"), lane.day);
            bencher.iter(|| black_box(runtime.block_on(store.read(&query, None)).expect("read")));
        });
    }
    group.finish();
}

/// Flushes few of the counters of a bucket.
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
