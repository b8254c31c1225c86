//! Increments through a pre-resolved handle and through `count!`, next to one atomic number.

use std::{hint::black_box, sync::Arc};

use countem_bench::{
    counting::Counting,
    crew::Crew,
    peers::FetchAdd,
    subject::{CallSite, Handle},
    workload::{KNOWN, WALK, names},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn handle(criterion: &mut Criterion) {
    let crew = Crew::new(4, &names(KNOWN.into()));
    let ways: [Arc<dyn Counting>; 3] = [
        Arc::new(FetchAdd::default()),
        Arc::new(Handle::start().expect("a collector")),
        Arc::new(CallSite::install().expect("the only process-wide collector")),
    ];
    let mut group = criterion.benchmark_group("increment one hot counter");
    for (threads, on) in [(1, "on one thread"), (2, "on two threads"), (4, "on four threads")] {
        group.throughput(Throughput::Elements((threads * WALK) as u64));
        for way in &ways {
            group.bench_function(BenchmarkId::new(way.label(), on), |bencher| {
                bencher.iter_custom(|times| crew.time(black_box(way), threads, times));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, handle);
criterion_main!(benches);
