//! Increments of counters that are not pending yet, next to a map of the standard library.

use countem_bench::{
    new_key::{NewKeys, NewKeysInMap},
    step::Step,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn new_key(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("increment new counters");
    for counters in [10_000] {
        group.throughput(Throughput::Elements(counters as u64));
        group.sample_size(if counters < 100_000 { 50 } else { 10 });
        let steps: [Box<dyn Step>; 2] =
            [Box::new(NewKeys::start(counters).expect("a collector")), Box::new(NewKeysInMap::new(counters))];
        for mut step in steps {
            group.bench_function(step.label(), |bencher| {
                bencher.iter_custom(|times| (0..times).map(|_| step.time()).sum());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, new_key);
criterion_main!(benches);
