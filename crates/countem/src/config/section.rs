//! The sections of the configuration and their defaults.
//!
//! What the engine has a default for is taken from there; only the store and `auto` are decided here.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use countem_core::{CollectionName, Period, jiff::tz::TimeZone};
use countem_engine::{Durability, EngineConfig};
use countem_journal::JournalConfig;
use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::duration;
use crate::{MongodbConfig, StoreUri};

/// `[store]`: where counters live and how many storage actors bring them there.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StoreConfig {
    /// The store.
    pub uri: StoreUri,
    /// Number of storage actors.
    pub lanes: NonZeroU16,
    /// Whether to start only if the store can be used at once.
    pub required: bool,
}

/// `[collectors]`: how many in-memory tables the router may have.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CollectorsConfig {
    /// Fewest collectors.
    pub min: NonZeroUsize,
    /// Most collectors.
    pub max: CollectorsMax,
}

/// Most collectors: by the number of cores, or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectorsMax {
    /// By the number of cores, and never fewer than `collectors.min`.
    Auto,
    /// This many on every machine.
    Exactly(NonZeroUsize),
}

/// `[flush]`: when and how counts go to the store.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FlushConfig {
    /// How long deltas gather.
    #[serde(serialize_with = "duration::serialize")]
    pub interval: Duration,
    /// Fraction of the interval by which a flush may come earlier, 0 to 1.
    pub jitter: f64,
    /// Number of pending counters that starts a flush before its time.
    pub counters: NonZeroUsize,
    /// Most counters in one batch.
    pub batch_counters: NonZeroUsize,
    /// First wait after a failed attempt to store.
    #[serde(serialize_with = "duration::serialize")]
    pub retry_first: Duration,
    /// Longest wait between two attempts to store.
    #[serde(serialize_with = "duration::serialize")]
    pub retry_longest: Duration,
}

/// `[time]`: into which buckets an increment goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TimeConfig {
    /// IANA zone of days and coarser periods.
    #[serde(serialize_with = "zone")]
    pub zone: TimeZone,
    /// Stored periods, from fine to coarse, never empty.
    #[serde(serialize_with = "periods")]
    pub periods: Vec<Period>,
    /// How old the time of an increment may be.
    #[serde(serialize_with = "duration::serialize")]
    pub past_window: Duration,
    /// How far in the future the time of an increment may be.
    #[serde(serialize_with = "duration::serialize")]
    pub future_window: Duration,
}

/// `[limits]`: what bounds the memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Most distinct metrics in one (collection, bucket).
    pub metrics_per_bucket: NonZeroUsize,
    /// Most distinct counters pending on this node.
    pub pending_counters: NonZeroUsize,
}

/// `[durability]`: what a killed process loses.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DurabilityConfig {
    /// Whether there is a journal.
    pub level: DurabilityLevel,
    /// The directory of the journal.
    pub dir: PathBuf,
    /// How long increments gather before they are recorded in the journal.
    #[serde(serialize_with = "duration::serialize")]
    pub tick: Duration,
    /// Most bytes of the journal.
    pub max_bytes: NonZeroU64,
    /// How long the journal keeps batches that are stored.
    #[serde(serialize_with = "duration::serialize")]
    pub keep_resolved: Duration,
}

/// What a killed process loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityLevel {
    /// What it has not stored yet.
    Memory,
    /// Nothing that was acknowledged.
    Journal,
}

impl DurabilityConfig {
    pub(super) fn to_engine(&self) -> Durability {
        match self.level {
            DurabilityLevel::Memory => Durability::Memory,
            DurabilityLevel::Journal => {
                let mut options = JournalConfig::new(&self.dir);
                options.max_bytes = self.max_bytes.get();
                options.resolved_retention = self.keep_resolved;
                Durability::Journal { options, tick: self.tick }
            }
        }
    }
}

impl Default for DurabilityConfig {
    fn default() -> Self {
        let JournalConfig { max_bytes, resolved_retention, .. } = JournalConfig::new("");
        Self {
            level: DurabilityLevel::Memory,
            dir: PathBuf::from("countem-journal"),
            tick: Duration::from_millis(20),
            max_bytes: NonZeroU64::new(max_bytes).unwrap_or(NonZeroU64::MIN),
            keep_resolved: resolved_retention,
        }
    }
}

/// `[shutdown]`: how the end goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ShutdownConfig {
    /// How long a shutdown tries to store what is pending.
    #[serde(serialize_with = "duration::serialize")]
    pub deadline: Duration,
}

/// `[collections.NAME]`: what one collection has of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CollectionConfig {
    /// Stored periods, from fine to coarse, never empty.
    #[serde(serialize_with = "periods")]
    pub periods: Vec<Period>,
}

/// Writes `[mongodb]`.
pub(super) fn mongodb<S: Serializer>(settings: &MongodbConfig, serializer: S) -> Result<S::Ok, S::Error> {
    let MongodbConfig { metrics_per_document, writer_shards, retention, deadline } = settings;
    let mut section = serializer.serialize_struct("mongodb", 4)?;
    section.serialize_field("metrics_per_document", metrics_per_document)?;
    section.serialize_field("writer_shards", writer_shards)?;
    section.serialize_field("retention", &retention.map_or_else(|| "forever".to_owned(), duration::text))?;
    section.serialize_field("deadline", &duration::text(*deadline))?;
    section.end()
}

impl CollectorsMax {
    /// Returns the number, if it is the same on every machine.
    pub fn exactly(self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Exactly(most) => Some(most.get()),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        let lanes = NonZeroU16::new(EngineConfig::default().lanes).unwrap_or(NonZeroU16::MIN);
        Self { uri: StoreUri::default(), lanes, required: EngineConfig::default().store_required }
    }
}

impl Default for CollectorsConfig {
    fn default() -> Self {
        Self { min: counted(EngineConfig::default().collectors_min), max: CollectorsMax::Auto }
    }
}

impl Default for FlushConfig {
    fn default() -> Self {
        let engine = EngineConfig::default();
        Self {
            interval: engine.flush_interval,
            jitter: engine.flush_jitter,
            counters: counted(engine.flush_counters),
            batch_counters: counted(engine.batch_counters),
            retry_first: engine.retry_first,
            retry_longest: engine.retry_longest,
        }
    }
}

impl Default for TimeConfig {
    fn default() -> Self {
        let engine = EngineConfig::default();
        Self {
            zone: engine.zone,
            periods: engine.periods,
            past_window: engine.past_window,
            future_window: engine.future_window,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let engine = EngineConfig::default();
        Self {
            metrics_per_bucket: counted(engine.metrics_per_bucket),
            pending_counters: counted(engine.pending_counters),
        }
    }
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { deadline: EngineConfig::default().shutdown_deadline }
    }
}

/// The engine's defaults are not zero, which the test that compares the defaults would notice.
fn counted(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

impl Serialize for CollectorsMax {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Exactly(most) => most.serialize(serializer),
        }
    }
}

fn zone<S: Serializer>(zone: &TimeZone, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(zone.iana_name().unwrap_or("Etc/Unknown"))
}

fn periods<S: Serializer>(periods: &[Period], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(periods.iter().map(|period| period.name()))
}

pub(super) fn collections<S: Serializer>(
    collections: &BTreeMap<CollectionName, CollectionConfig>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(collections.iter().map(|(name, collection)| (name.as_str(), collection)))
}
