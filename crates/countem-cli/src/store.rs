//! The configuration in effect, and the store that it names.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::Args;
use countem_config::Config;
use countem_core::{
    BucketRange, CollectionName, Period, Schedules,
    jiff::{SignedDuration, Timestamp, tz::TimeZone},
};
use countem_engine::{AgreementError, CorrectionError, Corrections, EngineConfig, agree_on_schedules};
use countem_query::{ReadError, Reader, Source, StoreSource};
use countem_store::{ErrorKind, RowQuery, Rows, Store, StoreError, async_trait};
use countem_store_uri::{MongodbConfig, open_store_for_reading, open_store_with, open_store_with_pending};

use crate::{
    exit::{NotFound, UsageError},
    global::Global,
    output::say,
};

/// Time for which a store is sure to remember a stored batch. Its bookkeeping goes 48 hours after its writer was retired: MongoDB
/// counts a batch that is sent again after that twice in long-lived documents, and SQLite quarantines it. One hour is left for clocks that differ and for
/// the duration of a replay.
pub(crate) const STORE_MEMORY: Duration = Duration::from_secs(47 * 3600);

/// The configuration in effect.
pub(crate) struct Effective {
    pub(crate) config: Config,
    pub(crate) engine: EngineConfig,
    /// The schedules of a store that has none recorded.
    pub(crate) schedules: Arc<Schedules>,
    /// Maximum duration of the command.
    timeout: Option<Duration>,
}

/// Flag of the commands that count.
#[derive(Debug, Args)]
pub(crate) struct ChangeSchedule {
    /// Change zone and stored periods of the store to the configured ones, from the beginning of a later day on
    #[arg(long)]
    change_schedule: bool,
}

/// Flag of the commands that end soon, whatever the store does.
#[derive(Debug, Args)]
pub(crate) struct Timeout {
    /// Maximum time that the store may take, such as 10s or 500ms
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: Duration,
}

fn timeout(text: &str) -> Result<Duration, &'static str> {
    let duration = countem_config::duration::parse(text).filter(|duration| !duration.is_zero());
    duration.ok_or("expected a duration such as `10s`, `500ms` or `1m`")
}

impl Timeout {
    /// Returns the duration.
    pub(crate) fn limit(&self) -> Duration {
        self.timeout
    }

    /// Runs `command` as [`block_on`] does, until the limit.
    ///
    /// # Errors
    /// The error of the command, or that of a store that does not answer in time.
    pub(crate) fn block_on<T>(&self, command: impl Future<Output = Result<T>>) -> Result<T> {
        block_on(async {
            tokio::time::timeout(self.timeout, command).await.unwrap_or_else(|_| {
                let limit = self.timeout;
                let why = format!("the store did not answer within {limit:?} (`--timeout` is the limit)");
                Err(StoreError::new(ErrorKind::NotApplied, why).into())
            })
        })
    }
}

impl Effective {
    /// Loads the configuration as [`load`](Self::load) does, for a command with a timeout: no request takes longer.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn load_within(global: &Global, timeout: &Timeout) -> Result<Self> {
        Ok(Self { timeout: Some(timeout.limit()), ..Self::load(global)? })
    }

    /// Loads the configuration: defaults, file, environment, flags.
    ///
    /// # Errors
    /// A [`UsageError`] with all problems of the configuration.
    pub(crate) fn load(global: &Global) -> Result<Self> {
        let config = global.load_config()?;
        let engine = config.to_engine_config();
        let schedules = engine.schedule.without_retention().schedules();
        let schedules = schedules.map_err(|error| UsageError::new(error.to_string()))?;
        Ok(Self { config, engine, schedules: Arc::new(schedules), timeout: None })
    }

    /// Returns the schedules that a writer gives a store that has none recorded.
    ///
    /// # Errors
    /// A [`UsageError`]: they are not possible.
    pub(crate) fn wanted_schedules(&self) -> Result<Schedules, UsageError> {
        self.engine.schedule.schedules().map_err(|error| UsageError::new(error.to_string()))
    }

    /// Returns the zone of days and coarser periods now, that of the store if it exists.
    ///
    /// # Errors
    /// The store could not be read.
    pub(crate) async fn zone(&self) -> Result<TimeZone> {
        let recorded =
            if self.lacks_store() { None } else { self.open_for_reading().await?.schedules().await? };
        Ok(recorded.as_ref().unwrap_or(&self.schedules).zone(Timestamp::now()).clone())
    }

    /// Opens the store, creates it if need be, and checks that it can be written.
    ///
    /// # Errors
    /// The store cannot be used.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        let store = open_store_with(self.config.store_uri(), &self.mongodb(), self.busy_timeout()).await?;
        finish_correction(store, &self.schedules).await
    }

    /// Opens a store that exists, to read it; a SQLite file also without the right to write it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn open_for_reading(&self) -> Result<Arc<dyn Store>, StoreError> {
        finish_correction(self.open_as_it_is().await?, &self.schedules).await
    }

    /// Opens a store as [`open_for_reading`](Self::open_for_reading) does, and looks at nothing in it, to examine it.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) async fn open_as_it_is(&self) -> Result<Arc<dyn Store>, StoreError> {
        open_store_for_reading(self.config.store_uri(), &self.mongodb(), self.busy_timeout()).await
    }

    /// Returns `store` for reading; that of another countem with what it has pending, which a correction must not see.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) async fn with_pending(&self, store: Arc<dyn Store>) -> Result<Arc<dyn Store>, StoreError> {
        match self.config.store_uri().scheme() {
            "countem" => {
                open_store_with_pending(self.config.store_uri(), &self.mongodb(), self.busy_timeout()).await
            }
            _ => Ok(store),
        }
    }

    fn mongodb(&self) -> MongodbConfig {
        let mut mongodb = self.config.mongodb().clone();
        if let Some(limit) = self.timeout {
            // So that a failure is known for what it is before the command has to end.
            mongodb.deadline = mongodb.deadline.min(limit / 2);
        }
        mongodb
    }

    /// Returns the maximum wait for other processes that write to a SQLite file: with a tenth of the command's limit left, in which
    /// the command can still tell that nothing was stored.
    fn busy_timeout(&self) -> Option<Duration> {
        self.timeout.map(|limit| limit * 9 / 10)
    }

    /// Opens the store for counting, and returns the schedules by which it is counted.
    ///
    /// # Errors
    /// A [`UsageError`] if the store is counted by other schedules than the configured ones; else the error of the store.
    pub(crate) async fn open_writer(
        &self,
        change: &ChangeSchedule,
    ) -> Result<(Arc<dyn Store>, Arc<Schedules>)> {
        let store = self.open().await?;
        let mut wanted = self.engine.schedule.clone();
        wanted.change |= change.change_schedule;
        let ahead = SignedDuration::try_from(self.engine.future_window).unwrap_or(SignedDuration::MAX);
        let agreed = agree_on_schedules(&*store, &wanted, Timestamp::now(), ahead).await;
        match agreed {
            Ok(agreed) => Ok((store, Arc::new(agreed))),
            Err(AgreementError::Store(error)) => Err(error.into()),
            Err(error) => Err(UsageError::new(error.to_string()).into()),
        }
    }

    /// Opens a store that exists already, for reading. Unless `quiet`, says what is configured otherwise than the store is counted.
    ///
    /// # Errors
    /// [`NotFound`] when there is no such file; else the error of the store.
    pub(crate) async fn open_reader(&self, quiet: bool) -> Result<Reader> {
        self.require_store()?;
        let store = self.open_for_reading().await?;
        self.say_differences(&*store, quiet).await?;
        let corrections = Corrections::new(Arc::clone(&store), Arc::clone(&self.schedules));
        let store = self.with_pending(store).await?;
        let source = StoreSource { store, unrecorded: Arc::clone(&self.schedules) };
        Ok(Reader::new(Arc::new(CorrectedSource { source, corrections })))
    }

    /// Unless `quiet`, says which configured zone or periods are not those of the store, by which it is read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn say_differences(&self, store: &dyn Store, quiet: bool) -> Result<()> {
        let wanted = &self.engine.schedule;
        if quiet || (wanted.zone.is_none() && wanted.periods.is_none()) {
            return Ok(());
        }
        let Some(recorded) = store.schedules().await? else { return Ok(()) };
        let now = Timestamp::now();
        let list =
            |periods: &[Period]| periods.iter().map(|period| period.name()).collect::<Vec<_>>().join(",");
        let zone = |zone: &TimeZone| zone.iana_name().unwrap_or("unknown").to_owned();
        let pairs = [
            ("time.zone", wanted.zone.as_ref().map(zone), zone(recorded.zone(now))),
            (
                "time.periods",
                wanted.periods.as_deref().map(list),
                list(recorded.default_schedule().periods(now)),
            ),
        ];
        for (key, wanted, stored) in pairs {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != stored) {
                let origin = self.config.origin(key);
                say(format_args!(
                    "countem: `{key}` is {wanted} ({origin}), but the store is counted by {stored}, and read by it"
                ));
            }
        }
        Ok(())
    }

    /// Checks that the store exists already, if it is a file.
    ///
    /// # Errors
    /// [`NotFound`]: there is no such file.
    pub(crate) fn require_store(&self) -> Result<()> {
        if self.lacks_store() {
            let uri = self.config.store_uri();
            let advice = "count something first, or name another store with `--store`";
            return Err(NotFound::new(format!("there is no store `{uri}`: {advice}")).into());
        }
        Ok(())
    }

    /// Returns whether the store is a file that does not exist.
    pub(crate) fn lacks_store(&self) -> bool {
        let path = self.config.store_uri().expose().strip_prefix("sqlite://");
        path.is_some_and(|path| Path::new(path).try_exists().is_ok_and(|exists| !exists))
    }

    /// Returns the time since when the store is sure to remember every batch that it got. For an older one, neither reading
    /// nor sending it again can tell whether it is stored.
    pub(crate) fn remembered_since(&self) -> SystemTime {
        match self.config.store_uri().scheme() {
            "memory" => UNIX_EPOCH,
            _ => SystemTime::now() - STORE_MEMORY,
        }
    }
}

/// Finishes a correction that was interrupted: until then counters are neither those of before nor those of after it.
///
/// # Errors
/// The store could not be read, or the correction could not be finished.
pub(crate) async fn finish_correction(
    store: Arc<dyn Store>,
    unrecorded: &Arc<Schedules>,
) -> Result<Arc<dyn Store>, StoreError> {
    let corrections = Corrections::new(Arc::clone(&store), Arc::clone(unrecorded));
    finish(&corrections).await.map(|_| store)
}

async fn finish(corrections: &Corrections) -> Result<bool, StoreError> {
    let finished = async {
        if let Some(open) = corrections.unfinished().await? {
            say(format_args!(
                "countem: finishing the correction {} ({open}), which has begun and was not finished",
                open.id
            ));
        }
        corrections.finish_open().await
    };
    finished.await.map_err(|error| match error {
        CorrectionError::Store(error) => error,
        CorrectionError::Unfinished { ref source, .. } => StoreError::new(source.kind(), error.to_string()),
        error => StoreError::new(ErrorKind::Refused, error.to_string()),
    })
}

/// A store beside whose corrections is read: what was read while one was under way is read again once it is finished.
#[derive(Debug)]
struct CorrectedSource {
    source: StoreSource,
    corrections: Corrections,
}

/// Maximum number of corrections that a read waits for.
const MAX_CORRECTIONS: usize = 10;

#[async_trait]
impl Source for CorrectedSource {
    async fn rows(&self, query: &RowQuery) -> Result<Rows, ReadError> {
        for _ in 0..MAX_CORRECTIONS {
            let rows = self.source.rows(query).await?;
            if !finish(&self.corrections).await? {
                return Ok(rows);
            }
        }
        let why = "the store is corrected all the time: try again later";
        Err(StoreError::new(ErrorKind::NotApplied, why).into())
    }

    async fn extent(
        &self,
        collection: &CollectionName,
        range: BucketRange,
    ) -> Result<Option<BucketRange>, ReadError> {
        self.source.extent(collection, range).await
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, ReadError> {
        self.source.collections().await
    }

    async fn schedules(&self) -> Result<Arc<Schedules>, ReadError> {
        self.source.schedules().await
    }
}

/// Runs `command` on this thread. Timers, signals and the threads of stores need nothing else.
///
/// # Errors
/// The error of the command.
pub(crate) fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(command)
}
