//! Starting a collector.

use std::{fmt, sync::Arc, thread, time::Duration};

use countem_core::{
    CollectionName, Period,
    jiff::{Timestamp, tz::TimeZone},
};
use countem_engine::{Clock, Durability, Engine, EngineConfig, ManualClock, StartError};
use countem_store::{ErrorKind, MemoryStore, Store, StoreError};
use countem_store_uri::{MongodbConfig, StoreUri, StoreUriError, open_store_with};

use crate::{Collector, blocking::block_on};

impl Collector {
    /// Returns a builder with the defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts a collector for tests: a store in memory, and a clock that stands still at `2026-01-01T12:00:00Z` until it is
    /// set. Flushes only when asked to. Works in sync and async tests.
    ///
    /// # Panics
    /// When its threads cannot be started.
    pub fn for_test() -> (Self, ManualClock) {
        let noon = Timestamp::from_second(1_767_268_800).expect("a time of this century is valid");
        let clock = ManualClock::new(noon);
        let builder = Self::builder()
            .custom_store(MemoryStore::new())
            .clock(Clock::Manual(clock.clone()))
            .flush_interval(Duration::from_secs(3600));
        // A thread of its own: this one may belong to a runtime, which refuses to be blocked.
        let started = thread::spawn(|| builder.start_blocking()).join();
        let collector = started.expect("starting does not panic").expect("threads can be started");
        (collector, clock)
    }
}

/// Describes a [`Collector`]. Everything has a default: a SQLite file `countem.db`, flushed every ten seconds.
///
/// The order of the calls has no effect: a single setter wins over [`engine_config`](Self::engine_config), and both win
/// over a whole configuration.
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    store: Option<StoreSource>,
    mongodb: Option<MongodbConfig>,
    engine: Option<EngineConfig>,
    configured: Configured,
    changes: Changes,
    clock: Clock,
}

#[derive(Debug, Clone)]
enum StoreSource {
    Uri(Result<StoreUri, StoreUriError>),
    Open(Arc<dyn Store>),
}

/// Values of a whole configuration, which single setters override.
#[derive(Debug, Clone, Default)]
struct Configured {
    store: StoreUri,
    mongodb: MongodbConfig,
    engine: EngineConfig,
}

/// Changes of the engine's configuration by single setters.
#[derive(Clone, Default)]
struct Changes(Vec<Arc<Change>>);

type Change = dyn Fn(&mut EngineConfig) + Send + Sync;

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changes", self.0.len())
    }
}

impl Builder {
    /// Takes all of a configuration: store, MongoDB, and engine.
    #[cfg(feature = "config")]
    pub fn config(mut self, config: &crate::config::Config) -> Self {
        self.configured = Configured {
            store: config.store_uri().clone(),
            mongodb: config.mongodb().clone(),
            engine: config.to_engine_config(),
        };
        self
    }

    /// Sets the whole configuration of the engine.
    pub fn engine_config(mut self, config: EngineConfig) -> Self {
        self.engine = Some(config);
        self
    }

    /// Stores counts in the store that `uri` names; see [`open_store`](crate::store::open_store). `start` reports a wrong URI.
    pub fn store(mut self, uri: impl AsRef<str>) -> Self {
        self.store = Some(StoreSource::Uri(StoreUri::new(uri.as_ref())));
        self
    }

    /// Sets layout and limits for a store that is MongoDB.
    pub fn mongodb(mut self, config: MongodbConfig) -> Self {
        self.mongodb = Some(config);
        self
    }

    /// Stores counts in a store of your own.
    pub fn custom_store(self, store: impl Store) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// Stores counts in a store that is open already.
    pub fn shared_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(StoreSource::Open(store));
        self
    }

    /// Sets the interval between two flushes. Default: 10 seconds.
    pub fn flush_interval(self, interval: Duration) -> Self {
        self.change(move |engine| engine.flush_interval = interval)
    }

    /// Sets the IANA zone of days and coarser periods. Default: that of the store, and UTC for a new one.
    pub fn zone(self, zone: TimeZone) -> Self {
        self.change(move |engine| engine.schedule.zone = Some(zone.clone()))
    }

    /// Sets the stored periods of every collection that has none of its own. Default: those of the store, and `day` for a new one.
    pub fn periods(self, periods: impl IntoIterator<Item = Period>) -> Self {
        let periods: Vec<_> = periods.into_iter().collect();
        self.change(move |engine| engine.schedule.periods = Some(periods.clone()))
    }

    /// Sets the stored periods of one collection.
    pub fn collection_periods(
        self,
        collection: CollectionName,
        periods: impl IntoIterator<Item = Period>,
    ) -> Self {
        let periods: Vec<_> = periods.into_iter().collect();
        self.change(move |engine| {
            engine.schedule.own.insert(collection.clone(), periods.clone());
        })
    }

    /// Keeps the buckets of `period` for `keep` after their end; those of periods without a retention are kept for ever.
    pub fn retention(self, period: Period, keep: Duration) -> Self {
        self.change(move |engine| {
            let kept = engine.schedule.retention.take().unwrap_or_default();
            engine.schedule.retention = Some(kept.iter().chain([(period, keep.try_into().ok())]).collect());
        })
    }

    /// Changes zone and stored periods of a store that has others than this configuration, from the beginning of a later day on. Default:
    /// `start` refuses such a configuration, and the store stays as it is.
    pub fn change_schedule(self) -> Self {
        self.change(|engine| engine.schedule.change = true)
    }

    /// Refuses to start while the store cannot be used. Default: start, count in memory, deliver once it can.
    pub fn require_store(self) -> Self {
        self.change(|engine| engine.store_required = true)
    }

    /// Keeps a journal in the directory `dir`, so that a killed process loses nothing that was acknowledged
    /// ([`increment_durable`](crate::Collector::increment_durable)) and at most 20 ms of the rest. Default: no journal.
    ///
    /// The directory belongs to one process at a time.
    #[cfg(feature = "journal")]
    pub fn journal(self, dir: impl Into<std::path::PathBuf>) -> Self {
        self.durability(Durability::journal(countem_journal::JournalConfig::new(dir)))
    }

    /// Sets the loss when the process is killed.
    pub fn durability(self, durability: Durability) -> Self {
        self.change(move |engine| engine.durability = durability.clone())
    }

    /// Sets the time that a shutdown tries to store what is pending. Default: 30 seconds.
    pub fn shutdown_deadline(self, deadline: Duration) -> Self {
        self.change(move |engine| engine.shutdown_deadline = deadline)
    }

    /// Sets the maximum age of the stored value in an answer of [`increment_and_get`](Collector::increment_and_get), zero to read it for each.
    /// Default: 1 second.
    pub fn stored_age(self, age: Duration) -> Self {
        self.change(move |engine| engine.stored_age = age)
    }

    /// Counts by another clock than the machine's, for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    fn change(mut self, change: impl Fn(&mut EngineConfig) + Send + Sync + 'static) -> Self {
        self.changes.0.push(Arc::new(change));
        self
    }

    /// Opens the store and starts counting, on threads of the collector's own.
    ///
    /// # Errors
    /// [`StartError`]: the store could not be opened, or threads could not be made. Nothing runs.
    pub async fn start(self) -> Result<Collector, StartError> {
        let Self { store, mongodb, engine, configured, changes, clock } = self;
        let mut engine = engine.unwrap_or(configured.engine);
        changes.0.iter().for_each(|change| change(&mut engine));
        let store = store.unwrap_or(StoreSource::Uri(Ok(configured.store)));
        let mongodb = mongodb.unwrap_or(configured.mongodb);
        if let StoreSource::Uri(Ok(uri)) = &store
            && let Some(warning) = short_shutdown(uri, engine.shutdown_deadline, mongodb.deadline)
        {
            tracing::warn!("{warning}");
        }
        let open = async move {
            match store {
                StoreSource::Uri(Ok(uri)) => open_store_with(&uri, &mongodb, None).await,
                StoreSource::Uri(Err(error)) => Err(StoreError::new(ErrorKind::Refused, error.to_string())),
                StoreSource::Open(store) => Ok::<_, StoreError>(store),
            }
        };
        Ok(Collector::new(Engine::start(engine, clock, open).await?))
    }

    /// Does what [`start`](Self::start) does, for programs without a runtime.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// When called from async code, which must not be blocked.
    pub fn start_blocking(self) -> Result<Collector, StartError> {
        block_on(self.start())
    }
}

/// Returns a warning if a shutdown ends before a request to MongoDB has to.
fn short_shutdown(uri: &StoreUri, shutdown: Duration, request: Duration) -> Option<String> {
    (uri.scheme().starts_with("mongodb") && shutdown < request).then(|| {
        format!(
            "`shutdown.deadline` is {shutdown:?}, shorter than `mongodb.deadline`, {request:?}: a shutdown may end before a \
             server is found or has answered, and leave counts in doubt"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutdown_shorter_than_a_request_is_named() {
        let warning = |uri: &str, shutdown| {
            short_shutdown(
                &StoreUri::new(uri).unwrap(),
                Duration::from_secs(shutdown),
                Duration::from_secs(10),
            )
        };
        let warned = warning("mongodb://localhost", 2).unwrap();
        assert!(
            warned.starts_with("`shutdown.deadline` is 2s, shorter than `mongodb.deadline`, 10s"),
            "{warned}"
        );
        assert_eq!(warning("mongodb://localhost", 10), None);
        assert_eq!(warning("memory://", 2), None);
    }
}
