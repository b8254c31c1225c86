//! A process that counts at level `journal` until it is killed, dies where it was told to, or has counted enough.
//!
//! Called as `crash_node STORE JOURNAL [key=value …]`. It prints one line per thing that a test has to know, each with one
//! write, so that a line which was printed before the process died is read whole.

use std::{
    collections::BTreeMap,
    env, fmt, process,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use countem::{
    Bucket, BucketRange, CollectionName, Collector, Durability, Error, MetricName, Period, Timestamp,
    engine::{Clock, EngineConfig, ManualClock, ScheduleConfig},
    journal::{Health, JournalConfig},
    keyed::{Guarantee, IdempotencyKey, Keyed, KeyedIncrement},
    store::{
        Applied, Batch, Claim, Claimed, Held, Registration, Release, Released, RowQuery, Rows, Schedules,
        Store, StoreError, Writer, async_trait,
    },
};
use tokio::{sync::OnceCell, time::sleep};

/// Arguments of the process: store, journal, and keys with values.
struct Orders {
    store: String,
    journal: String,
    keys: BTreeMap<String, String>,
}

impl Orders {
    fn read() -> Result<Self> {
        let mut arguments = env::args().skip(1);
        let (store, journal) =
            arguments.next().zip(arguments.next()).context("no store and no journal given")?;
        let pair = |argument: String| {
            let (key, value) =
                argument.split_once('=').with_context(|| format!("`{argument}` is no pair"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        Ok(Self { store, journal, keys: arguments.map(pair).collect::<Result<_>>()? })
    }

    /// Returns the value of a key, which has to be understood and used up.
    fn take<T: FromStr>(&mut self, key: &str, default: T) -> Result<T>
    where
        T::Err: fmt::Debug,
    {
        match self.keys.remove(key) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|error| anyhow::anyhow!("`{key}={value}`: {error:?}")),
        }
    }

    fn milliseconds(&mut self, key: &str, default: u64) -> Result<Duration> {
        Ok(Duration::from_millis(self.take(key, default)?))
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let _fail_points = fail::FailScenario::setup();
    let mut orders = Orders::read()?;
    let noon = orders.take("now", "2026-11-20T12:00:00Z".parse().context("noon is a time")?)?;
    let tick = orders.milliseconds("tick", 20)?;
    let max_bytes = orders.take("max_bytes", 1 << 30)?;
    let options = JournalConfig { max_bytes, ..JournalConfig::new(&orders.journal) };
    let config = EngineConfig {
        // Every increment is stored twice in one step, so that a part of one can be told from all of it.
        schedule: ScheduleConfig::of_periods([Period::Day, Period::All]),
        flush_interval: orders.milliseconds("flush", 20)?,
        batch_counters: orders.take("batch", 50_000)?,
        lanes: orders.take("lanes", 2)?,
        retry_first: orders.milliseconds("retry_first", 5)?,
        retry_longest: orders.milliseconds("retry", 100)?,
        shutdown_deadline: Duration::from_secs(60),
        durability: Durability::Journal { options, tick },
        ..EngineConfig::default()
    };
    let die = orders.take("die", String::new())?;
    let store = DeadlyStore::new(&orders.store, &die)?;
    let (prefix, tasks) = (orders.take("prefix", "p".to_owned())?, orders.take("tasks", 4)?);
    let lies = orders.take("lies", false)?;
    let requests = orders.take("requests", u64::MAX)?;
    let (operations, metrics) = (orders.take("operations", u64::MAX)?, orders.take("metrics", 0_u64)?);
    if let Some(unknown) = orders.keys.keys().next() {
        bail!("unknown key `{unknown}`");
    }
    let clock = Clock::Manual(ManualClock::new(noon));
    let collector =
        Collector::builder().engine_config(config).custom_store(store).clock(clock).start().await?;
    println!("started");
    if metrics > 0 {
        return count_much(&collector, metrics, operations).await;
    }
    if requests < u64::MAX {
        let tasks = (0..tasks).map(|task| count_requests(collector.clone(), requests + task, tasks, lies));
        tasks.collect::<tokio::task::JoinSet<_>>().join_all().await;
    }
    tokio::spawn(tell_health(collector.clone()));
    let counting: Vec<_> = (0..tasks)
        .map(|task| tokio::spawn(count(collector.clone(), format!("{prefix}.{task}"), operations, lies)))
        .collect();
    for task in counting {
        task.await?;
    }
    let report = collector.shutdown().await;
    println!("ended {}", report.is_complete() && report.is_balanced());
    Ok(())
}

/// Collections that take turns, so that every lane has something to do.
const COLLECTIONS: [&str; 3] = ["own-0", "own-1", "own-2"];

/// Counts operations one after the other. Each is one increment of the counter `shared` and one of a counter of its own.
///
/// One that `lies` acknowledges what is not durable, as a broken journal would: the test has to notice.
async fn count(collector: Collector, prefix: String, operations: u64, lies: bool) {
    for (operation, collection) in (0..operations).zip(COLLECTIONS.iter().cycle()) {
        let own = format!("{prefix}.{operation}");
        if collector.try_increment("shared", "shared", 1).is_err() {
            println!("none {own}");
            // Refused at once, so others have to be let in.
            sleep(Duration::from_millis(1)).await;
            continue;
        }
        if lies {
            collector.increment(collection, &own, 1);
            println!("ack {own}");
            continue;
        }
        match collector.increment_durable(collection, &own, 1).await {
            Ok(()) => println!("ack {own}"),
            Err(Error::NotDurable(_)) => println!("unsure {own}"),
            Err(_) => println!("half {own}"),
        }
    }
}

/// Sends requests with idempotency keys, each again until its outcome is known. Each is one increment of the counter `shared` and one of
/// a counter with the name of the key.
///
/// One that `lies` acknowledges what is not even sent.
async fn count_requests(collector: Collector, first: u64, step: u64, lies: bool) {
    for number in (first..).step_by(usize::try_from(step).unwrap_or(1)) {
        let name = format!("request-{number}");
        let own = COLLECTIONS[usize::try_from(number).unwrap_or_default() % COLLECTIONS.len()];
        let increments = [("shared", "shared"), (own, name.as_str())]
            .map(|(collection, metric)| KeyedIncrement { collection, metric, n: 1, at: None });
        let Ok(key) = IdempotencyKey::new(&name) else { return println!("none {name}") };
        if lies && number % 2 == 0 {
            println!("ack {name}");
            sleep(Duration::from_millis(1)).await;
            continue;
        }
        loop {
            match collector.increment_keyed(&key, [1; 32], &increments, Guarantee::Journal).await {
                Ok(Keyed::Counted | Keyed::Repeat) => break println!("ack {name}"),
                Ok(Keyed::Mismatch) => break println!("none {name}"),
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

/// Says whenever the health of the journal changes.
async fn tell_health(collector: Collector) {
    let mut told = "ready";
    while let Some(status) = collector.stats().journal {
        let health = match status.health {
            Health::Ready => "ready",
            Health::Full(_) => "full",
            Health::Unavailable(_) => "unavailable",
            Health::Corrupt(_) => "corrupt",
        };
        if health != told {
            println!("health {health}");
            told = health;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Threads that count much.
const THREADS: usize = 2;

/// Counts `increments` increments of `metrics` counters from all threads, says what that has cost, and waits to be killed.
async fn count_much(collector: &Collector, metrics: u64, increments: u64) -> Result<()> {
    let before = resident()?;
    let threads = [(); THREADS].map(|()| {
        let collector = collector.clone();
        std::thread::spawn(move || {
            let names: Vec<_> = (0..metrics).map(|metric| format!("metric-{metric:05}")).collect();
            let turns = names.iter().cycle().zip(0..increments / THREADS as u64);
            turns.map(|(name, _)| u64::from(collector.try_increment("much", name, 1).is_ok())).sum::<u64>()
        })
    });
    let counted: u64 = threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum();
    collector.durable().await?;
    let stats = collector.stats();
    println!("counted {counted}");
    println!("pending {}", stats.pending_counters);
    println!("grown {}", resident()?.saturating_sub(before));
    std::future::pending().await
}

/// Returns the bytes of memory that this process uses at most, where the system tells.
fn resident() -> Result<u64> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(0) };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no `VmHWM`")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

/// A store that ends this process around one of its calls.
#[derive(Debug)]
struct DeadlyStore {
    uri: String,
    /// Opened by the first call, so that it lives on the collector's own runtime.
    inner: OnceCell<Arc<dyn Store>>,
    point: Option<FailPoint>,
    /// Calls that pass before the last one.
    passes: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailPoint {
    BeforeApply,
    AfterApply,
}

impl DeadlyStore {
    /// `die` is empty, or `before@n` or `after@n`: at the n-th batch.
    fn new(uri: &str, die: &str) -> Result<Self> {
        let (point, nth) = match die.split_once('@') {
            None => (None, 1),
            Some(("before", nth)) => (Some(FailPoint::BeforeApply), nth.parse()?),
            Some(("after", nth)) => (Some(FailPoint::AfterApply), nth.parse()?),
            Some(_) => bail!("`die={die}` names no point"),
        };
        let passes = AtomicU32::new(nth - 1);
        Ok(Self { uri: uri.to_owned(), inner: OnceCell::new(), point, passes })
    }

    async fn inner(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.inner.get_or_try_init(|| countem::store::open_store(&self.uri)).await
    }

    fn pass(&self, point: FailPoint) {
        if self.point != Some(point) {
            return;
        }
        let passed = self.passes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if passed.is_err() {
            process::abort();
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for DeadlyStore {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let inner = self.inner().await?;
        self.pass(FailPoint::BeforeApply);
        let applied = inner.apply(batch).await?;
        self.pass(FailPoint::AfterApply);
        Ok(applied)
    }

    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        self.inner().await?.forget(writer).await
    }

    async fn register(&self, writer: &Writer) -> Result<Registration, StoreError> {
        self.inner().await?.register(writer).await
    }

    async fn schedules(&self) -> Result<Option<Schedules>, StoreError> {
        self.inner().await?.schedules().await
    }

    async fn record_schedules(&self, schedules: &Schedules) -> Result<Schedules, StoreError> {
        self.inner().await?.record_schedules(schedules).await
    }

    async fn remembers(&self, writer: &Writer) -> Result<bool, StoreError> {
        self.inner().await?.remembers(writer).await
    }

    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        self.inner().await?.retire(writer).await
    }

    async fn retire_predecessors(&self, writer: &Writer) -> Result<(), StoreError> {
        self.inner().await?.retire_predecessors(writer).await
    }

    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        self.inner().await?.read(query, in_flight).await
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        self.inner().await?.collections().await
    }

    async fn extent(
        &self,
        collection: &CollectionName,
        range: BucketRange,
    ) -> Result<Option<BucketRange>, StoreError> {
        self.inner().await?.extent(collection, range).await
    }

    async fn quarantined(&self) -> Result<Vec<Held>, StoreError> {
        self.inner().await?.quarantined().await
    }

    async fn release(&self, held: &Held, release: Release) -> Result<Released, StoreError> {
        self.inner().await?.release(held, release).await
    }

    async fn remove_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.inner().await?.remove_expired(now, limit).await
    }
    async fn compact(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.inner().await?.compact(now, limit).await
    }

    async fn remove_zeros(
        &self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        self.inner().await?.remove_zeros(collection, counters).await
    }

    async fn verify(&self) -> Result<Vec<String>, StoreError> {
        self.inner().await?.verify().await
    }

    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.inner().await?.marks(prefix).await
    }

    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        self.inner().await?.claim(claims, now).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner().await?.check().await
    }

    fn location(&self) -> String {
        self.uri.clone()
    }
}
