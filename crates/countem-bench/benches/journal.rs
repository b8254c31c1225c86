//! What level `journal` costs beside level `memory`, and how many increments a second are acknowledged by it.

use std::{
    env,
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use countem::Collector;
use countem_bench::{
    counting::Counting,
    crew::Crew,
    subject::Increments,
    workload::{COLLECTION, KNOWN, WALK, Walk, names},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use tokio::{
    runtime::{self, Runtime},
    task::JoinSet,
};

/// A collector that keeps a journal beside this program: on a disk, where `/tmp` may be memory.
struct Journaled {
    collector: Collector,
    _folder: TempDir,
}

fn runtime() -> Runtime {
    runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

impl Journaled {
    fn start() -> Self {
        let program = env::current_exe().expect("this program has a path");
        let folder = tempfile::tempdir_in(program.parent().unwrap_or(Path::new("."))).expect("a folder");
        let builder = Collector::builder().store("memory://").journal(folder.path().join("journal"));
        let collector = runtime().block_on(builder.flush_interval(Duration::from_secs(24 * 3600)).start());
        Self { collector: collector.expect("a collector"), _folder: folder }
    }

    /// Lets `tasks` tasks acknowledge `each` increments one after the other.
    fn acknowledge(&self, tasks: usize, each: u64) -> Duration {
        let began = Instant::now();
        runtime().block_on(async {
            let mut counting = JoinSet::new();
            for task in 0..tasks {
                let collector = self.collector.clone();
                counting.spawn(async move {
                    let metric = format!("task-{task}");
                    for _ in 0..each {
                        let acknowledged = collector.increment_durable(COLLECTION, &metric, 1).await;
                        acknowledged.expect("the disk has room");
                    }
                });
            }
            while let Some(counted) = counting.join_next().await {
                counted.expect("no task panics");
            }
        });
        began.elapsed()
    }
}

impl Counting for Journaled {
    fn label(&self) -> &'static str {
        "countem `collector.increment`, level `journal`"
    }

    fn count(&self, walk: &Walk, times: u64) {
        walk.each(times, |name| black_box(&self.collector).increment(COLLECTION, name, 1));
    }

    fn counted(&self) -> Option<u64> {
        Some(self.collector.stats().accepted)
    }
}

fn increment(criterion: &mut Criterion) {
    let crew = Crew::new(2, &names(KNOWN.into()));
    let memory: Arc<dyn Counting> = Arc::new(Increments::start().expect("a collector"));
    let journal: Arc<dyn Counting> = Arc::new(Journaled::start());
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
    let journaled = Journaled::start();
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
