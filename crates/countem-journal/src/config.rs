//! Configuration of a journal.

use std::{path::PathBuf, time::Duration};

/// Directory, bounds and recovery rules of a journal.
///
/// ```
/// use countem_journal::JournalConfig;
///
/// let config = JournalConfig { max_bytes: 64 << 20, ..JournalConfig::new("data/journal") };
/// assert_eq!(config.resolved_retention.as_secs(), 24 * 3600);
/// ```
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// The directory, which belongs to one process at a time. Created when it is missing.
    pub dir: PathBuf,
    /// Number of lanes of the engine. Counts recorded with another number keep it until the journal is empty, see
    /// [`Recovered::lanes`](crate::Recovered::lanes). Default: 2.
    pub lanes: u16,
    /// Maximum number of bytes of the file and its write-ahead log together up to which
    /// [`record`](crate::Journal::record) is accepted. Recorded counts can be frozen and resolved beyond it.
    /// Default: 1 GiB.
    pub max_bytes: u64,
    /// Time for which a resolved batch is kept, for a store that is restored to an older point. Default: 24 hours.
    pub resolved_retention: Duration,
    /// Maximum number of bytes of resolved batches; the oldest are deleted first, and before a record is refused for want
    /// of room. Default: 256 MiB.
    pub resolved_bytes: u64,
    /// Renames a damaged journal and begins a new one under a fresh identity, instead of failing. The counts of the
    /// damaged one are then missing until a person has restored them. Default: no.
    pub set_aside_corrupt: bool,
    /// Rule for pending deltas found in a copy of a journal. Default: [`CopiedPending::Quarantine`].
    pub copied_pending: CopiedPending,
}

/// Rule for pending deltas found in a copy of a journal.
///
/// Frozen batches need no such choice: they are sent under their old identity, and a store counts an identity once.
/// Pending deltas have no identity yet. Where both the original and the copy are started, or where the copy is a backup
/// whose original has gone on, they would be counted twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopiedPending {
    /// They are quarantined: never counted twice and never lost, a person retries or drops them.
    #[default]
    Quarantine,
    /// They are counted. Right where the directory was moved and its original does not exist any more.
    Count,
}

impl JournalConfig {
    /// Returns the defaults for the directory `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            lanes: 2,
            max_bytes: 1 << 30,
            resolved_retention: Duration::from_secs(24 * 3600),
            resolved_bytes: 256 << 20,
            set_aside_corrupt: false,
            copied_pending: CopiedPending::Quarantine,
        }
    }
}
