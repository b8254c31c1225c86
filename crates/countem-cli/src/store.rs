//! Opens the store that the user means.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use countem::{Calendar, EngineConfig, Reader};
use countem_config::{Config, Sources};
use countem_store::Store;
use countem_stores::open_store_with;
use jiff::Timestamp;

use crate::{
    cli::Global,
    exit::{NotFound, UsageError},
};

/// How long MongoDB is sure to know a batch after it was stored. 48 hours after a writer was released, its watermarks leave the
/// documents that live long, and a batch of it would be added to those once more. The hour is for clocks that differ, and for
/// the time that a replay takes.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(47 * 3600);

/// The configuration in effect, and what follows from it.
pub(crate) struct Effective {
    pub(crate) config: Config,
    pub(crate) settings: EngineConfig,
    pub(crate) calendar: Arc<Calendar>,
}

impl Effective {
    /// Reads the configuration: defaults, file, environment, flags.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn load(global: &Global) -> Result<Self> {
        let config = load_config(global)?;
        let settings = config.to_engine_config();
        let schedules = settings.schedules().map_err(|error| UsageError::new(error.to_string()))?;
        let calendar = Calendar::new(Arc::new(schedules), Timestamp::now());
        Ok(Self { config, settings, calendar: Arc::new(calendar) })
    }

    /// Opens the store, makes it if need be, and checks that it can be written.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(open_store_with(self.config.store_uri(), self.config.mongodb()).await?)
    }

    /// Returns since when the store is sure to know every batch that it has: whether it has an older one, neither reading
    /// nor sending it again can tell.
    pub(crate) fn remembered_since(&self) -> SystemTime {
        match self.config.store_uri().scheme() {
            // For ever.
            "sqlite" | "memory" => UNIX_EPOCH,
            _ => SystemTime::now() - REMEMBERED,
        }
    }

    /// Tells whether the store is a file that does not exist.
    pub(crate) fn lacks_store(&self) -> bool {
        let path = self.config.store_uri().expose().strip_prefix("sqlite://");
        path.is_some_and(|path| !Path::new(path).exists())
    }

    /// Opens the store for reading; a file that does not exist is not made.
    ///
    /// # Errors
    /// [`NotFound`] when there is no such file; else what is wrong with the store.
    pub(crate) async fn open_reader(&self) -> Result<Reader> {
        if self.lacks_store() {
            let uri = self.config.store_uri();
            let advice = "count something first, or name another store with `--store`";
            return Err(NotFound::new(format!("there is no store `{uri}`: {advice}")).into());
        }
        Ok(Reader::of_store(self.open().await?, Arc::clone(self.calendar.schedules())))
    }
}

/// Reads the configuration: defaults, file, environment, flags.
///
/// # Errors
/// A [`UsageError`] with everything that is wrong with it, line by line.
pub(crate) fn load_config(global: &Global) -> Result<Config> {
    let mut sources = Sources::of_process();
    if let Some(file) = &global.config {
        sources = sources.file(file);
    }
    for assignment in &global.set {
        sources = sources.assignment("--set", assignment);
    }
    if let Some(uri) = &global.store {
        sources = sources.flag("--store", "store.uri", uri);
    }
    Config::load(&sources).map_err(|error| UsageError::new(error.to_string()).into())
}

/// Runs `command` on this thread; timers, signals and a store's own threads are all it needs.
///
/// # Errors
/// What the command reports.
pub(crate) fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start")?.block_on(command)
}
