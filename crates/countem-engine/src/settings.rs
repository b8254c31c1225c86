//! What can be set about counting and flushing.

use std::{collections::BTreeMap, thread, time::Duration};

use countem_core::{CollectionName, Period};
use countem_journal::JournalConfig;
use jiff::tz::TimeZone;

/// What can be set about counting and flushing. [`Default`] is what a user gets who sets nothing.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// IANA zone of days and coarser periods.
    pub zone: TimeZone,
    /// Stored periods of every collection that has none of its own.
    pub periods: Vec<Period>,
    /// Stored periods of single collections.
    pub collection_periods: BTreeMap<CollectionName, Vec<Period>>,
    /// How long deltas gather before they are sent to the store.
    pub flush_interval: Duration,
    /// Fraction of the interval by which a flush may come earlier, so that nodes do not flush in step. 0 to 1.
    pub flush_jitter: f64,
    /// Number of pending counters that starts a flush before its time.
    pub flush_counters: usize,
    /// Most counters in one batch.
    pub batch_counters: usize,
    /// Number of storage actors. Collections are spread over them.
    pub lanes: u16,
    /// Whether to start only if the store can be used at once. If not, counting begins while the store is away.
    pub store_required: bool,
    /// Fewest collectors.
    pub collectors_min: usize,
    /// Most collectors; two per core when `None`. Never fewer than `collectors_min`.
    pub collectors_max: Option<usize>,
    /// Most distinct metrics in one (collection, bucket); what is beyond goes to `__overflow__`.
    pub metrics_per_bucket: usize,
    /// Most distinct counters pending on this node; beyond it increments of new counters are refused. Up to half of it is set
    /// aside for the collectors' tables, so that refusals may begin when half as many wait for the store.
    pub pending_counters: usize,
    /// How old the time of an increment may be.
    pub past_window: Duration,
    /// How far in the future the time of an increment may be.
    pub future_window: Duration,
    /// First wait after a failed attempt to store.
    pub retry_first: Duration,
    /// Longest wait between two attempts to store.
    pub retry_longest: Duration,
    /// How long a shutdown tries to store what is pending.
    pub shutdown_deadline: Duration,
    /// What a killed process loses.
    pub durability: Durability,
}

/// What a killed process loses.
#[derive(Debug, Clone)]
pub enum Durability {
    /// What it has not stored yet.
    Memory,
    /// What it accepted since the last tick; nothing that was acknowledged by `increment_durable`.
    Journal {
        /// Where the journal is, and its bounds. The number of lanes is taken from [`EngineConfig::lanes`].
        options: JournalConfig,
        /// How long accepted increments gather before they are recorded, if nobody waits for them.
        tick: Duration,
    },
}

impl Durability {
    /// Records every 20 milliseconds in the journal that `options` describe.
    pub fn journal(options: JournalConfig) -> Self {
        Self::Journal { options, tick: Duration::from_millis(20) }
    }
}

impl EngineConfig {
    /// Returns most collectors on this machine. Asks for its cores, which reads several files of the control group.
    pub(crate) fn collectors_most(&self) -> usize {
        let per_core = || thread::available_parallelism().map_or(8, |cores| cores.get().max(2) * 2);
        self.collectors_max.unwrap_or_else(per_core).max(self.collectors_min).max(1)
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            zone: TimeZone::UTC,
            periods: vec![Period::Day],
            collection_periods: BTreeMap::new(),
            flush_interval: Duration::from_secs(10),
            flush_jitter: 0.1,
            flush_counters: 100_000,
            batch_counters: 50_000,
            lanes: 2,
            store_required: false,
            collectors_min: 1,
            collectors_max: None,
            metrics_per_bucket: 1_000_000,
            pending_counters: 4_000_000,
            past_window: Duration::from_secs(366 * 24 * 3600),
            future_window: Duration::from_secs(3600),
            retry_first: Duration::from_millis(100),
            retry_longest: Duration::from_secs(30),
            shutdown_deadline: Duration::from_secs(30),
            durability: Durability::Memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_collectors_are_never_fewer_than_the_fewest() {
        let most = |min, max| {
            EngineConfig { collectors_min: min, collectors_max: max, ..EngineConfig::default() }
                .collectors_most()
        };
        assert_eq!([most(0, Some(0)), most(1, Some(3)), most(5, Some(3)), most(4096, None)], [1, 3, 5, 4096]);
        assert!(most(1, None) >= 4, "two per core, and at least those of two cores");
    }
}
