//! Storing in a SQLite file, each batch waiting for the disk, next to a hand-written transaction.

use countem_bench::{
    sqlite::{HandWritten, StoreFlush},
    step::Step,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn sqlite(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flush existing counters to SQLite, synchronous = FULL");
    for counters in [1_000, 10_000, 100_000] {
        group.throughput(Throughput::Elements(counters as u64));
        group.sample_size(if counters < 100_000 { 50 } else { 10 });
        let steps: [Box<dyn Step>; 2] = [
            Box::new(StoreFlush::open(counters).expect("a file")),
            Box::new(HandWritten::open(counters).expect("a file")),
        ];
        for mut step in steps {
            group.bench_function(step.label(), |bencher| {
                bencher.iter_custom(|times| (0..times).map(|_| step.time()).sum());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, sqlite);
criterion_main!(benches);
