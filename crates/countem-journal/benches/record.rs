//! Cost of making counts durable, beside the cost of the disk alone.

use std::{
    fs::File,
    hint::black_box,
    io::{Seek as _, SeekFrom, Write as _},
    sync::mpsc::channel,
};

use countem_core::{Batch, BatchId, Deltas, Table};
use countem_journal::{Journal, JournalConfig, Record};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Deltas of `size` counters with names of about 25 bytes.
fn deltas(size: usize) -> Deltas {
    let mut table = Table::new();
    for at in 0..size {
        let metric = format!("GET /api/v1/things/{at:06}");
        table.fold("app-events", &metric, "2026-11-20".parse().expect("a day"), 3).expect("valid names");
    }
    table.drain()
}

fn record(size: usize) -> Record {
    Record { lanes: vec![(0, deltas(size))], ..Record::default() }
}

fn open() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().expect("a folder");
    let (journal, _) = Journal::open(JournalConfig::new(dir.path())).expect("a journal");
    (dir, journal)
}

fn durable(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    group.bench_function("baseline: write 8 KiB and wait for the disk", |bencher| {
        let mut file = tempfile::tempfile().expect("a file");
        let block = vec![7; 8192];
        let write = |file: &mut File| {
            file.write_all(&block).expect("written");
            file.sync_data().expect("on the disk");
        };
        (0..256).for_each(|_| write(&mut file));
        let mut at = 0;
        // In place, as a log is overwritten that has reached its size.
        bencher.iter(|| {
            file.seek(SeekFrom::Start(at % 256 * 8192)).expect("the offset");
            write(&mut file);
            at += 1;
        });
    });
    for size in [1, 1_000, 10_000] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("record known counters", size), |bencher| {
            let (_dir, journal) = open();
            journal.record_blocking(record(size)).expect("recorded");
            bencher.iter_batched(
                || record(size),
                |record| journal.record_blocking(record).expect("recorded"),
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("freeze pending counters", size), |bencher| {
            let (_dir, journal) = open();
            let mut seq = 0;
            bencher.iter_batched(
                || {
                    journal.record_blocking(record(size)).expect("recorded");
                    seq += 1;
                    Batch::new(BatchId { writer: journal.writer(), lane: 0, seq }, deltas(size))
                },
                |batch| {
                    journal.freeze_blocking(0, std::slice::from_ref(&batch)).expect("frozen");
                    journal.resolve(batch.id(), Vec::new(), drop);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.throughput(Throughput::Elements(64));
    group.bench_function("record one counter for each of 64 callers at once", |bencher| {
        let (_dir, journal) = open();
        bencher.iter_batched(
            || (0..64).map(|_| record(1)).collect::<Vec<_>>(),
            |records| {
                let (done, waiting) = channel();
                for record in records {
                    let done = done.clone();
                    journal
                        .record(record, move |outcome| done.send(outcome.is_ok()).expect("the bench waits"));
                }
                drop(done);
                assert!(waiting.iter().all(black_box));
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, durable);
criterion_main!(benches);
