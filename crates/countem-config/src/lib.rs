//! The configuration of countem: one set of keys for services, the command line and the server.
//!
//! A value comes from the default, a TOML file, an environment variable `COUNTEM__SECTION__KEY` or a flag;
//! the last of these that has one wins. [`Config::default_toml`] shows every key with its default.
//!
//! A [`Config`] has been checked: every layer as a whole, also values that a later layer hides, so that removing a
//! flag cannot uncover a mistake. All mistakes are reported at once, and no text made here shows a password.
//!
//! ```
//! use countem_config::{Config, Sources};
//!
//! let sources = Sources::default()
//!     .environment([("COUNTEM__FLUSH__INTERVAL", "5s")])
//!     .flag("--store", "store.uri", "mongodb://anna:secret@db/countem");
//! let config = Config::load(&sources)?;
//! assert_eq!(config.to_engine_config().flush_interval.as_secs(), 5);
//! assert_eq!(config.store_uri().to_string(), "mongodb://anna:****@db/countem");
//!
//! let mistyped = Sources::default().assignment("--set", "flush.intervall=5s");
//! assert_eq!(
//!     Config::load(&mistyped).unwrap_err().to_string(),
//!     "unknown key `flush.intervall` in flag `--set`; did you mean `flush.interval`?"
//! );
//! # Ok::<(), countem_config::ConfigError>(())
//! ```

mod assign;
mod durability;
pub mod duration;
mod keys;
mod kind;
mod layer;
mod nearest;
mod problem;
mod raw;
mod render;
mod server;
mod sources;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use countem_core::CollectionName;
use countem_engine::EngineConfig;
use countem_store_uri::{MongodbConfig, StoreUri};

pub use self::{
    durability::{DurabilityConfig, DurabilityLevel},
    nearest::{nearest, similar},
    problem::{ConfigError, Origin, Problem},
    server::{Guarantee, ServerConfig},
    sources::Sources,
};

/// A checked configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    store_uri: StoreUri,
    mongodb: MongodbConfig,
    /// Its durability is in `durability`, which keeps the journal also when the level does not use it.
    engine: EngineConfig,
    durability: DurabilityConfig,
    server: ServerConfig,
    hierarchies: BTreeMap<CollectionName, String>,
    /// The file that was read.
    file: Option<PathBuf>,
    /// By key; a key that is missing has its default.
    origins: BTreeMap<String, Origin>,
}

impl Config {
    /// Reads the layers of `sources` over the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] lists every problem: a file that cannot be read, unknown keys, values of the wrong type or out of
    /// range, and values that contradict each other.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut problems = Vec::new();
        for layer in [layer::file(sources), layer::environment(sources), layer::flags(sources)] {
            config.file = layer.file.or(config.file);
            problems.extend(layer.problems);
            problems
                .extend(layer.entries.iter().filter_map(|entry| assign::assign(&mut config, entry).err()));
        }
        assign::check_order(&config, &mut problems);
        assign::check_retention(&config, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(problems)) }
    }

    /// Returns the configuration of the engine.
    pub fn to_engine_config(&self) -> EngineConfig {
        EngineConfig { durability: self.durability.to_engine(), ..self.engine.clone() }
    }

    /// Returns the address of the store.
    pub fn store_uri(&self) -> &StoreUri {
        &self.store_uri
    }

    /// Returns the section `[mongodb]`.
    pub fn mongodb(&self) -> &MongodbConfig {
        &self.mongodb
    }

    /// Returns the section `[durability]`.
    pub fn durability(&self) -> &DurabilityConfig {
        &self.durability
    }

    /// Returns the section `[server]`.
    pub fn server(&self) -> &ServerConfig {
        &self.server
    }

    /// Raises the level to `journal` unless it was chosen, as a server does, which answers for counts of others.
    pub fn journal_by_default(&mut self) {
        if matches!(self.origin("durability.level"), Origin::Default) {
            self.durability.level = DurabilityLevel::Journal;
        }
    }

    /// Returns the text between two levels of the metrics of a collection, `None` where it has no hierarchy.
    pub fn hierarchy(&self, collection: &CollectionName) -> Option<&str> {
        self.hierarchies.get(collection).map(String::as_str)
    }

    /// Returns the file that was read, if one was.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Lists the keys that have another value than in `other`.
    pub fn differing_keys(&self, other: &Self) -> Vec<&'static str> {
        let differing = keys::KEYS.iter().filter(|key| (key.get)(self) != (key.get)(other));
        differing.map(|key| key.name).collect()
    }

    /// Returns the origin of the value of `key`, such as `flush.interval`.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Two configurations are equal when every key has the same value, whatever its origin.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        // The address by itself: what its key shows hides the password.
        self.store_uri == other.store_uri
            && self.engine.schedule.own == other.engine.schedule.own
            && self.engine.schedule.own_retention == other.engine.schedule.own_retention
            && self.hierarchies == other.hierarchies
            && keys::KEYS.iter().all(|key| (key.get)(self) == (key.get)(other))
    }
}
