//! Increments of known counters, countem next to its peers.

use std::{hint::black_box, sync::Arc};

use countem_bench::{
    counting::Counting,
    crew::Crew,
    peers,
    subject::Increments,
    workload::{KNOWN, WALK, names},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn increment(criterion: &mut Criterion) {
    let names = names(KNOWN.into());
    let crew = Crew::new(4, &names);
    let mut ways: Vec<Arc<dyn Counting>> = vec![Arc::new(Increments::start().expect("a collector"))];
    ways.extend(peers::all(&names).expect("every peer can be set up"));
    let mut group = criterion.benchmark_group("increment one of 1,000 known counters");
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

criterion_group!(benches, increment);
criterion_main!(benches);
