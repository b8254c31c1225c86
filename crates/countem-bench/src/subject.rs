//! countem, as a service uses it: through the public facade, with the default configuration.

use std::{
    env,
    hint::black_box,
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use countem::{Builder, Collector, Counter, Guard, engine::EngineConfig};
use tempfile::TempDir;
use tokio::{
    runtime::{self, Runtime},
    task::JoinSet,
};

use crate::{
    counting::Counting,
    workload::{COLLECTION, Walk},
};

/// Starts a collector with the default configuration but for a flush interval that no benchmark reaches.
///
/// # Errors
/// When it does not start.
pub fn collector() -> Result<Collector> {
    builder().start_blocking().context("cannot start a collector")
}

fn builder() -> Builder {
    let config = EngineConfig { flush_interval: Duration::from_secs(24 * 3600), ..EngineConfig::default() };
    Collector::builder().store("memory://").engine_config(config)
}

/// Returns a runtime on which this thread waits for others.
pub fn runtime() -> Runtime {
    let runtime = runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without I/O and timers needs nothing that could be missing")
}

/// `collector.increment("app-events", name, 1)`.
#[derive(Debug)]
pub struct Increments {
    collector: Collector,
}

/// `collector.increment("app-events", name, 1)` at level `journal`, which keeps the journal beside this program: on a disk,
/// where `/tmp` may be memory.
#[derive(Debug)]
pub struct Journaled {
    collector: Collector,
    /// Deleted after the collector has closed its journal.
    _folder: TempDir,
}

/// `counter.increment(1)` on one handle that all threads share.
#[derive(Debug)]
pub struct Handle {
    collector: Collector,
    counter: Counter,
}

/// `count!("app-events", "MyMethod.calls")` in one place that all threads come through.
#[derive(Debug)]
pub struct CallSite {
    collector: Collector,
}

impl Increments {
    /// Starts a collector.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        Ok(Self { collector: collector()? })
    }

    /// Returns the collector, for what happens beside counting.
    pub fn collector(&self) -> &Collector {
        &self.collector
    }
}

impl Journaled {
    /// Starts a collector with an empty journal.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        let program = env::current_exe()?;
        let folder = tempfile::tempdir_in(program.parent().unwrap_or(Path::new(".")))?;
        let collector = builder().journal(folder.path().join("journal")).start_blocking();
        Ok(Self { collector: collector.context("cannot start a collector")?, _folder: folder })
    }

    /// Lets `tasks` tasks make `each` durable increments one after the other, and returns how long that took.
    ///
    /// # Panics
    /// When the journal cannot be written.
    pub fn acknowledge(&self, tasks: usize, each: u64) -> Duration {
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

impl Handle {
    /// Starts a collector and makes a handle.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        let collector = collector()?;
        let counter = collector.counter(COLLECTION, "MyMethod.calls")?;
        Ok(Self { collector, counter })
    }
}

impl CallSite {
    /// Makes a collector the process-wide one. There is only one for the whole process.
    ///
    /// # Errors
    /// When it does not start, or another one is installed.
    pub fn install() -> Result<Self> {
        static INSTALLED: OnceLock<(Collector, Guard)> = OnceLock::new();
        let collector = match INSTALLED.get() {
            Some((collector, _)) => collector.clone(),
            None => {
                let collector = collector()?;
                let guard = countem::install(collector.clone())?;
                INSTALLED.get_or_init(|| (collector, guard)).0.clone()
            }
        };
        Ok(Self { collector })
    }
}

impl Counting for Increments {
    fn label(&self) -> &'static str {
        "countem `collector.increment`"
    }

    fn count(&self, walk: &Walk, times: u64) {
        walk.each(times, |name| black_box(&self.collector).increment(COLLECTION, name, 1));
    }

    fn counted(&self) -> Option<u64> {
        Some(self.collector.stats().accepted)
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

impl Counting for Handle {
    fn label(&self) -> &'static str {
        "countem `counter.increment`, one shared handle"
    }

    fn count(&self, walk: &Walk, times: u64) {
        walk.each(times, |_| black_box(&self.counter).increment(1));
    }

    fn counted(&self) -> Option<u64> {
        Some(self.collector.stats().accepted)
    }
}

impl Counting for CallSite {
    fn label(&self) -> &'static str {
        "countem `count!`"
    }

    fn count(&self, walk: &Walk, times: u64) {
        walk.each(times, |_| countem::count!("app-events", "MyMethod.calls", black_box(1)));
    }

    fn counted(&self) -> Option<u64> {
        Some(self.collector.stats().accepted)
    }
}
