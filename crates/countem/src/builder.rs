//! Starting a collector.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use countem_core::{CollectionName, Period, jiff::tz::TimeZone};
use countem_engine::{Clock, Durability, Engine, EngineConfig, StartError};
use countem_journal::JournalConfig;
use countem_store::{ErrorKind, Store, StoreError};

use crate::{Collector, MongodbConfig, StoreUri, StoreUriError, open_store_with};

/// Collects what a [`Collector`] needs to start. Everything has a default: a SQLite file `countem.db`, flushed every ten seconds.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    store: Opening,
    mongodb: MongodbConfig,
    settings: EngineConfig,
    clock: Clock,
}

#[derive(Debug, Clone)]
enum Opening {
    Uri(Result<StoreUri, StoreUriError>),
    Given(Arc<dyn Store>),
}

impl Builder {
    pub(crate) fn new() -> Self {
        let store = Opening::Uri(Ok(StoreUri::default()));
        Self {
            store,
            mongodb: MongodbConfig::default(),
            settings: EngineConfig::default(),
            clock: Clock::System,
        }
    }

    /// Stores counts in the store that `uri` names; see [`open_store`](crate::open_store). What is wrong with it is said by `start`.
    pub fn store(self, uri: impl AsRef<str>) -> Self {
        Self { store: Opening::Uri(StoreUri::new(uri.as_ref())), ..self }
    }

    /// Sets how documents are kept when the store is MongoDB.
    pub fn mongodb(self, mongodb: MongodbConfig) -> Self {
        Self { mongodb, ..self }
    }

    /// Stores counts in a store of your own.
    pub fn custom_store(self, store: impl Store) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// Stores counts in a store that others use, too.
    pub fn shared_store(self, store: Arc<dyn Store>) -> Self {
        Self { store: Opening::Given(store), ..self }
    }

    /// Replaces all settings, such as those of a configuration file.
    pub fn settings(self, settings: EngineConfig) -> Self {
        Self { settings, ..self }
    }

    /// Sets how long deltas gather before they are sent to the store. Default: 10 seconds.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.settings.flush_interval = interval;
        self
    }

    /// Sets the IANA zone of days and coarser periods. Default: UTC.
    pub fn zone(mut self, zone: TimeZone) -> Self {
        self.settings.zone = zone;
        self
    }

    /// Sets the stored periods of every collection that has none of its own. Default: `day`.
    pub fn periods(mut self, periods: impl IntoIterator<Item = Period>) -> Self {
        self.settings.periods = periods.into_iter().collect();
        self
    }

    /// Sets the stored periods of one collection.
    pub fn collection_periods(
        mut self,
        collection: CollectionName,
        periods: impl IntoIterator<Item = Period>,
    ) -> Self {
        self.settings.collection_periods.insert(collection, periods.into_iter().collect());
        self
    }

    /// Refuses to start while the store cannot be used. Default: start, count in memory, deliver once it can.
    pub fn require_store(mut self) -> Self {
        self.settings.store_required = true;
        self
    }

    /// Keeps a journal in the directory `dir`, so that a killed process loses nothing that was acknowledged
    /// ([`increment_durable`](crate::Collector::increment_durable)) and at most 20 ms of what was not. Default: no journal.
    ///
    /// The directory belongs to one process at a time.
    pub fn journal(self, dir: impl Into<PathBuf>) -> Self {
        self.durability(Durability::journal(JournalConfig::new(dir)))
    }

    /// Sets what a killed process loses.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Sets how long a shutdown tries to store what is pending. Default: 30 seconds.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.settings.shutdown_deadline = deadline;
        self
    }

    /// Counts by another clock than the machine's, for tests.
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Opens the store and starts counting, on threads of the collector's own.
    ///
    /// # Errors
    /// [`StartError`]: the store could not be opened, or threads could not be made. Nothing runs.
    pub async fn start(self) -> Result<Collector, StartError> {
        let Self { store, mongodb, settings, clock } = self;
        let open = async move {
            match store {
                Opening::Uri(Ok(uri)) => open_store_with(&uri, &mongodb).await,
                Opening::Uri(Err(error)) => Err(StoreError::new(ErrorKind::Refused, error.to_string())),
                Opening::Given(store) => Ok::<_, StoreError>(store),
            }
        };
        Ok(Collector::new(Engine::start(settings, clock, open).await?))
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

/// Polls a future on this thread. The engine's own runtime does the work that the future waits for.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without I/O and timers needs nothing that could be missing").block_on(future)
}
