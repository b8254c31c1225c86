//! What level `journal` costs beside level `memory`, and how many increments a second are acknowledged by it.

use std::{hint::black_box, sync::Arc};

use countem_bench::{
    counting::Counting,
    crew::Crew,
    subject::{Increments, Journaled},
    workload::{KNOWN, WALK, names},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn increment(criterion: &mut Criterion) {
    let crew = Crew::new(2, &names(KNOWN.into()));
    let memory: Arc<dyn Counting> = Arc::new(Increments::start().expect("a collector"));
    let journal: Arc<dyn Counting> = Arc::new(Journaled::start().expect("a collector"));
    let mut group = criterion.benchmark_group("increment one of 1,000 known counters, by level");
    for (threads, on) in [(1, "on one thread"), (2, "on two threads")] {
        group.throughput(Throughput::Elements((threads * WALK) as u64));
        for way in [&memory, &journal] {
            group.bench_function(BenchmarkId::new(way.label(), on), |bencher| {
                bencher.iter_custom(|times| crew.time(black_box(way), threads, times));
            });
        }
    }
    group.finish();
}

fn acknowledge(criterion: &mut Criterion) {
    const EACH: u64 = 50;
    let journaled = Journaled::start().expect("a collector");
    let mut group = criterion.benchmark_group("acknowledge increments, each waiting for the disk");
    group.sample_size(20);
    for tasks in [1, 64, 1_000] {
        group.throughput(Throughput::Elements(tasks as u64 * EACH));
        group.bench_function(BenchmarkId::from_parameter(format!("from {tasks} tasks")), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| journaled.acknowledge(tasks, EACH)).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, increment, acknowledge);
criterion_main!(benches);
