//! Configuration of counting and flushing.

use std::{thread, time::Duration};

use countem_core::ScheduleConfig;
use countem_journal::JournalConfig;
use jiff::SignedDuration;

use crate::{collect::IntakeLimits, deliver::LaneLimits};

/// Configuration of counting and flushing. [`Default`] is the documented default of every key.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Zone and stored periods, as far as they are not left to the store.
    pub schedule: ScheduleConfig,
    /// Time for which deltas gather before they are sent to the store.
    pub flush_interval: Duration,
    /// Fraction of the interval by which a flush may come earlier, so that nodes do not flush in step. 0 to 1.
    pub flush_jitter: f64,
    /// Number of pending counters that starts a flush before its time.
    pub flush_counters: usize,
    /// Maximum number of counters in one batch.
    pub batch_counters: usize,
    /// Number of storage actors. Collections are spread over them.
    pub lanes: u16,
    /// Start only if the store can be used at once. Otherwise counting begins while the store is away.
    pub store_required: bool,
    /// Minimum number of collectors.
    pub collectors_min: usize,
    /// Maximum number of collectors; two per core when `None`. Never below `collectors_min`.
    pub collectors_max: Option<usize>,
    /// Maximum number of distinct metrics in one (collection, bucket); further ones are counted as `__overflow__`.
    pub metrics_per_bucket: usize,
    /// Maximum number of label sets of one metric in one (collection, bucket); further ones are counted under its label set
    /// `{__overflow__="true"}`.
    pub label_sets: usize,
    /// Maximum number of distinct counters pending in this process; beyond it increments of new counters are refused. Up to half
    /// of it is set aside for the collectors' tables, so that refusals may begin when half as many wait for the store.
    pub pending_counters: usize,
    /// Write the first refused increment to the standard error stream, in a process without a subscriber of `tracing`.
    pub warn_on_stderr: bool,
    /// Maximum age of the time of an increment.
    pub past_window: Duration,
    /// Maximum distance of the time of an increment into the future.
    pub future_window: Duration,
    /// Maximum age of the stored value in the answer of `increment_and_get`, zero to read it for each: counts that other engines have
    /// stored since are not in it.
    pub stored_age: Duration,
    /// First wait after a failed attempt to store.
    pub retry_first: Duration,
    /// Longest wait between two attempts to store.
    pub retry_longest: Duration,
    /// Time for which a shutdown tries to store the pending counts.
    pub shutdown_deadline: Duration,
    /// Counts that a killed process loses.
    pub durability: Durability,
}

/// The counts that a killed process loses.
#[derive(Debug, Clone)]
pub enum Durability {
    /// Those that are not stored yet.
    Memory,
    /// Those accepted since the last tick, and none that was acknowledged by `increment_durable`.
    Journal {
        /// Directory and bounds of the journal. The number of lanes is taken from [`EngineConfig::lanes`].
        options: JournalConfig,
        /// Time for which accepted increments gather before they are recorded, if no caller waits for them.
        tick: Duration,
    },
}

impl Durability {
    /// Records every 20 milliseconds in the journal that `options` describes.
    pub fn journal(options: JournalConfig) -> Self {
        Self::Journal { options, tick: Duration::from_millis(20) }
    }
}

impl EngineConfig {
    /// Returns the maximum lead of the time of an increment.
    pub(crate) fn ahead(&self) -> SignedDuration {
        SignedDuration::try_from(self.future_window).unwrap_or(SignedDuration::MAX)
    }

    /// Returns the maximum number of collectors on this machine. Asks for its cores, which reads several files of the control
    /// group.
    fn max_collectors(&self) -> usize {
        let per_core = || thread::available_parallelism().map_or(8, |cores| cores.get().max(2) * 2);
        self.collectors_max.unwrap_or_else(per_core).max(self.collectors_min).max(1)
    }

    /// Returns the sizes of the intake and of the lanes, which share the pending counters.
    pub(crate) fn limits(&self) -> (IntakeLimits, LaneLimits) {
        let collectors_max = self.max_collectors();
        let table_counters = self.flush_counters.min(self.pending_counters / (2 * collectors_max)).max(1);
        let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let intake = IntakeLimits {
            collectors_min: self.collectors_min,
            collectors_max,
            table_counters,
            handles_max: self.pending_counters,
            past_window: signed(self.past_window),
            future_window: signed(self.future_window),
            warn_on_stderr: self.warn_on_stderr,
        };
        let lanes = LaneLimits {
            lanes: self.lanes,
            batch_counters: self.batch_counters,
            metrics_per_bucket: self.metrics_per_bucket,
            label_sets: self.label_sets,
            counters_max: self.pending_counters.saturating_sub(table_counters * collectors_max),
            flush_counters: self.flush_counters,
        };
        (intake, lanes)
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            schedule: ScheduleConfig::default(),
            flush_interval: Duration::from_secs(10),
            flush_jitter: 0.1,
            flush_counters: 100_000,
            batch_counters: 50_000,
            lanes: 2,
            store_required: false,
            collectors_min: 1,
            collectors_max: None,
            metrics_per_bucket: 1_000_000,
            label_sets: 10_000,
            pending_counters: 4_000_000,
            warn_on_stderr: true,
            past_window: Duration::from_secs(366 * 24 * 3600),
            future_window: Duration::from_secs(3600),
            stored_age: Duration::from_secs(1),
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
    fn max_collectors_is_never_below_min() {
        let max = |min, max| {
            EngineConfig { collectors_min: min, collectors_max: max, ..EngineConfig::default() }
                .max_collectors()
        };
        assert_eq!([max(0, Some(0)), max(1, Some(3)), max(5, Some(3)), max(4096, None)], [1, 3, 5, 4096]);
        assert!(max(1, None) >= 4, "two per core, and at least those of two cores");
    }
}
