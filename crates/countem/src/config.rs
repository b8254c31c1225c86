//! The configuration of countem: one set of keys for services, the command line and the server.
//!
//! A value comes from the default, a TOML file, an environment variable `COUNTEM__SECTION__KEY` or a flag;
//! the last of these that has one wins. [`Config::default_toml`] shows every key with its default.
//!
//! A [`Config`] has been checked: every layer as a whole, also what a later layer hides, so that removing a
//! flag cannot uncover a mistake. All mistakes are reported at once, and no text made here shows a password.
//!
//! ```
//! use countem::config::{Config, Sources};
//!
//! let sources = Sources::default()
//!     .environment([("COUNTEM__FLUSH__INTERVAL", "5s")])
//!     .flag("--store", "store.uri", "mongodb://anna:secret@db/countem");
//! let config = Config::load(&sources)?;
//! assert_eq!(config.flush().interval.as_secs(), 5);
//! assert_eq!(config.store().uri.to_string(), "mongodb://anna:****@db/countem");
//!
//! let mistyped = Sources::default().assignment("--set", "flush.intervall=5s");
//! assert_eq!(
//!     Config::load(&mistyped).unwrap_err().to_string(),
//!     "unknown key `flush.intervall` in flag `--set`; did you mean `flush.interval`?"
//! );
//! # Ok::<(), countem::config::ConfigError>(())
//! ```

mod duration;
mod given;
mod layer;
mod nearest;
mod problem;
mod render;
mod schema;
mod section;
mod sources;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

use countem_core::CollectionName;
use countem_engine::EngineConfig;
use serde::Serialize;

use crate::MongodbConfig;

pub use self::{
    problem::{ConfigError, Origin, Problem},
    section::{
        CollectionConfig, CollectorsConfig, CollectorsMax, DurabilityConfig, DurabilityLevel, FlushConfig,
        LimitsConfig, ShutdownConfig, StoreConfig, TimeConfig,
    },
    sources::Sources,
};

/// What a user can set, checked.
///
/// Serialises to the structure of the file, with passwords replaced.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Config {
    store: StoreConfig,
    #[serde(serialize_with = "section::mongodb")]
    mongodb: MongodbConfig,
    collectors: CollectorsConfig,
    flush: FlushConfig,
    time: TimeConfig,
    limits: LimitsConfig,
    durability: DurabilityConfig,
    shutdown: ShutdownConfig,
    #[serde(serialize_with = "section::collections")]
    collections: BTreeMap<CollectionName, CollectionConfig>,
    #[serde(skip)]
    provenance: Provenance,
}

/// Where the values came from.
#[derive(Debug, Clone, Default)]
struct Provenance {
    file: Option<std::path::PathBuf>,
    /// By key; a key that is missing has its default.
    origins: BTreeMap<String, Origin>,
}

impl Config {
    /// Reads the layers of `sources` over the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] lists everything that is wrong: a file that cannot be read, unknown keys, values of the wrong
    /// type or out of range, and values that contradict each other.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut problems = Vec::new();
        for layer in [layer::file(sources), layer::environment(sources), layer::flags(sources)] {
            config.provenance.file = layer.file.or(config.provenance.file);
            problems.extend(layer.problems);
            for entry in layer.entries {
                match schema::set(&mut config, &entry) {
                    Ok(()) => {}
                    Err(problem) => problems.push(problem),
                }
            }
        }
        schema::check_pairs(&config, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(problems)) }
    }

    /// Returns the text of `config/countem.toml`: every key at its default, with what it means.
    pub fn default_toml() -> &'static str {
        include_str!("../../../config/countem.toml")
    }

    /// Returns the configuration in effect as TOML: every key with what it means, and where its value came from
    /// unless it is the default. Passwords are replaced.
    pub fn to_toml(&self) -> String {
        render::toml(self)
    }

    /// Returns what the engine is told.
    pub fn to_engine_config(&self) -> EngineConfig {
        let Self {
            store,
            mongodb: _,
            collectors,
            flush,
            time,
            limits,
            durability,
            shutdown,
            collections,
            provenance: _,
        } = self;
        let collection_periods =
            collections.iter().map(|(name, collection)| (name.clone(), collection.periods.clone())).collect();
        EngineConfig {
            zone: time.zone.clone(),
            periods: time.periods.clone(),
            collection_periods,
            flush_interval: flush.interval,
            flush_jitter: flush.jitter,
            flush_counters: flush.counters.get(),
            batch_counters: flush.batch_counters.get(),
            lanes: store.lanes.get(),
            store_required: store.required,
            collectors_min: collectors.min.get(),
            collectors_max: collectors.max.exactly(),
            metrics_per_bucket: limits.metrics_per_bucket.get(),
            pending_counters: limits.pending_counters.get(),
            past_window: time.past_window,
            future_window: time.future_window,
            retry_first: flush.retry_first,
            retry_longest: flush.retry_longest,
            shutdown_deadline: shutdown.deadline,
            durability: durability.to_engine(),
        }
    }

    /// Returns the section `[store]`.
    pub fn store(&self) -> &StoreConfig {
        &self.store
    }

    /// Returns the section `[mongodb]`.
    pub fn mongodb(&self) -> &MongodbConfig {
        &self.mongodb
    }

    /// Returns the section `[collectors]`.
    pub fn collectors(&self) -> &CollectorsConfig {
        &self.collectors
    }

    /// Returns the section `[flush]`.
    pub fn flush(&self) -> &FlushConfig {
        &self.flush
    }

    /// Returns the section `[time]`.
    pub fn time(&self) -> &TimeConfig {
        &self.time
    }

    /// Returns the section `[limits]`.
    pub fn limits(&self) -> &LimitsConfig {
        &self.limits
    }

    /// Returns the section `[durability]`.
    pub fn durability(&self) -> &DurabilityConfig {
        &self.durability
    }

    /// Returns the section `[shutdown]`.
    pub fn shutdown(&self) -> &ShutdownConfig {
        &self.shutdown
    }

    /// Returns the sections `[collections.NAME]`.
    pub fn collections(&self) -> &BTreeMap<CollectionName, CollectionConfig> {
        &self.collections
    }

    /// Returns the file that was read, if one was.
    pub fn file(&self) -> Option<&Path> {
        self.provenance.file.as_deref()
    }

    /// Returns where the value of `key`, such as `flush.interval`, came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.provenance.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Two configurations are equal when every key has the same value, wherever the values came from.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            store,
            mongodb,
            collectors,
            flush,
            time,
            limits,
            durability,
            shutdown,
            collections,
            provenance: _,
        } = self;
        *store == other.store
            && *mongodb == other.mongodb
            && *collectors == other.collectors
            && *flush == other.flush
            && *time == other.time
            && *limits == other.limits
            && *durability == other.durability
            && *shutdown == other.shutdown
            && *collections == other.collections
    }
}
