//! Memory of pending counters.
//!
//! Measured as resident set of a process that does nothing else, from `/proc/self/status`: what the operating system has
//! given, the allocator's slack included. Names are made one by one in a reused buffer and take no part.

use std::{
    collections::BTreeMap,
    fs, io,
    pin::pin,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context as TaskContext, Waker},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use countem::{
    CollectionName, Collector,
    engine::EngineConfig,
    store::{Applied, Batch, RowQuery, Rows, Store, StoreError, Writer, async_trait},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::workload::{COLLECTION, write_name};

/// Pending counters of a measurement.
pub const COUNTERS: usize = 1_000_000;

/// Stage of the pending counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In the table of a collector.
    Table,
    /// Drained into a lane while the store is away and a batch is unresolved.
    Lane,
    /// Frozen into batches when the store has come back, the first of them not stored yet.
    Batches,
}

/// Result of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// Additional resident memory with all counters pending, in bytes.
    pub pending: u64,
    /// Maximum of additional resident memory on the way there, in bytes.
    pub peak: u64,
}

impl State {
    /// Every state, in the order in which a counter comes through them.
    pub const ALL: [Self; 3] = [Self::Table, Self::Lane, Self::Batches];

    /// Returns the word for this state on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Lane => "lane",
            Self::Batches => "batches",
        }
    }

    /// Says in words where the counters are.
    pub fn label(self) -> &'static str {
        match self {
            Self::Table => "in the table of a collector",
            Self::Lane => "drained into a lane while the store is away",
            Self::Batches => "frozen into batches when the store is back",
        }
    }

    /// Returns the default configuration, but for the first state: there the table has to hold what else would have gone to a lane.
    fn config(self) -> EngineConfig {
        let mut config = EngineConfig {
            flush_interval: Duration::from_secs(24 * 3600),
            // Nothing is to be stored at the end.
            shutdown_deadline: Duration::ZERO,
            ..EngineConfig::default()
        };
        if self == Self::Table {
            config.collectors_max = Some(1);
            config.flush_counters = 2 * COUNTERS;
            config.pending_counters = 4 * config.flush_counters;
        }
        config
    }
}

impl FromStr for State {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        let state = Self::ALL.into_iter().find(|state| state.word() == word);
        state.with_context(|| format!("`{word}` is not a state; expected table, lane or batches"))
    }
}

/// Fills a collector with [`COUNTERS`] counters and measures this process. Nothing else should run in it.
///
/// # Errors
/// When the system does not tell, or not everything is pending.
pub fn measure(state: State) -> Result<Resident> {
    let (away, asked) = Away::new();
    let away = Arc::new(away);
    let builder = Collector::builder().custom_store(Arc::clone(&away)).engine_config(state.config());
    let collector = builder.start_blocking().context("cannot start a collector")?;
    let was_asked = || asked.recv().context("the collector does not ask its store");
    if state != State::Table {
        // From now on one batch is unresolved, and what is drained merges in the lane.
        collector.increment(COLLECTION, "the first of all", 1);
        begin_flush(&collector);
        was_asked()?;
    }
    let before = resident()?;
    let mut name = String::new();
    for i in 0..COUNTERS {
        write_name(&mut name, i);
        collector.try_increment(COLLECTION, &name, 1)?;
    }
    if state != State::Table {
        begin_flush(&collector);
    }
    if state == State::Batches {
        away.take_one.notify_one();
        was_asked()?;
    }
    let after = resident()?;
    let expected = COUNTERS as u64 + u64::from(state == State::Lane);
    let pending = collector.stats().pending;
    ensure!(pending == expected, "{pending} increments are pending, expected were {expected}");
    Ok(Resident {
        pending: after.now.saturating_sub(before.now),
        peak: after.most.saturating_sub(before.now),
    })
}

/// Drains all tables and asks the lanes to flush, without waiting for the store.
fn begin_flush(collector: &Collector) {
    let flush = pin!(collector.flush());
    let is_done = flush.poll(&mut TaskContext::from_waker(Waker::noop())).is_ready();
    debug_assert!(!is_done, "the store is away");
}

struct ResidentNow {
    now: u64,
    most: u64,
}

fn resident() -> Result<ResidentNow> {
    let status = match fs::read_to_string("/proc/self/status") {
        Ok(status) => status,
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("this system has no `/proc`"),
        Err(error) => return Err(error).context("cannot read `/proc/self/status`"),
    };
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name.to_owned())?;
        let kib = line.trim().strip_suffix("kB").context(line.to_owned())?;
        Ok(kib.trim().parse::<u64>()? * 1024)
    };
    Ok(ResidentNow { now: field("VmRSS:")?, most: field("VmHWM:")? })
}

/// A store that answers only when it is told to.
#[derive(Debug)]
struct Away {
    asked: Mutex<Sender<()>>,
    take_one: Notify,
}

impl Away {
    fn new() -> (Self, Receiver<()>) {
        let (asked, was_asked) = channel();
        (Self { asked: Mutex::new(asked), take_one: Notify::new() }, was_asked)
    }
}

#[async_trait]
impl Store for Away {
    async fn apply(&self, _: &Arc<Batch>) -> Result<Applied, StoreError> {
        // The measurement does not listen to the end.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).send(()).ok();
        self.take_one.notified().await;
        Ok(Applied::default())
    }

    async fn forget(&self, _: &Writer) -> Result<(), StoreError> {
        Ok(())
    }

    async fn read(&self, _: &RowQuery, _: Option<&Batch>) -> Result<Rows, StoreError> {
        Ok(Rows::new())
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        Ok(Vec::new())
    }

    async fn marks(&self, _: &str) -> Result<BTreeMap<String, String>, StoreError> {
        Ok(BTreeMap::new())
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn location(&self) -> String {
        "away://".to_owned()
    }
}
