//! Draining a collector, next to a map of the standard library.

use countem_bench::{
    drain::{Drain, DrainMap},
    step::Step,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn drain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("drain what is pending");
    for counters in [1_000, 10_000, 100_000] {
        group.throughput(Throughput::Elements(counters as u64));
        group.sample_size(if counters < 100_000 { 50 } else { 10 });
        let steps: [Box<dyn Step>; 2] =
            [Box::new(Drain::start(counters).expect("a collector")), Box::new(DrainMap::new(counters))];
        for mut step in steps {
            group.bench_function(step.label(), |bencher| {
                bencher.iter_custom(|times| (0..times).map(|_| step.time()).sum());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, drain);
criterion_main!(benches);
