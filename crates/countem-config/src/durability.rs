//! The section `[durability]`.

use std::{path::PathBuf, time::Duration};

use countem_engine::Durability;
use countem_journal::JournalConfig;

/// `[durability]`: the journal, and whether it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DurabilityConfig {
    /// Durability level.
    pub level: DurabilityLevel,
    /// Directory of the journal.
    pub dir: PathBuf,
    /// Time that increments gather before they are recorded.
    pub tick: Duration,
    /// Maximum size of the journal in bytes.
    pub max_bytes: u64,
    /// Time that stored batches are kept in the journal.
    pub keep_resolved: Duration,
}

/// Durability level: the loss when a process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurabilityLevel {
    /// Loses what is not stored yet.
    Memory,
    /// Loses nothing that was acknowledged.
    Journal,
}

impl DurabilityConfig {
    /// Returns the journal, at any level.
    pub fn to_journal_config(&self) -> JournalConfig {
        let mut config = JournalConfig::new(&self.dir);
        config.max_bytes = self.max_bytes;
        config.resolved_retention = self.keep_resolved;
        config
    }

    pub(crate) fn to_engine(&self) -> Durability {
        match self.level {
            DurabilityLevel::Memory => Durability::Memory,
            DurabilityLevel::Journal => {
                Durability::Journal { options: self.to_journal_config(), tick: self.tick }
            }
        }
    }
}

impl Default for DurabilityConfig {
    fn default() -> Self {
        let dir = PathBuf::from("countem-journal");
        let JournalConfig { max_bytes, resolved_retention: keep_resolved, .. } = JournalConfig::new(&dir);
        Self {
            level: DurabilityLevel::Memory,
            dir,
            tick: Duration::from_millis(20),
            max_bytes,
            keep_resolved,
        }
    }
}
