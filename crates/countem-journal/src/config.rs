//! How a journal is opened and bounded.

use std::{path::PathBuf, time::Duration};

use crate::fail::FailPoints;

/// Says where the journal is and how it is used.
///
/// ```
/// use countem_journal::JournalConfig;
///
/// let options = JournalConfig { max_bytes: 64 << 20, ..JournalConfig::new("data/journal") };
/// assert_eq!(options.resolved_retention.as_secs(), 24 * 3600);
/// ```
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// The directory, which belongs to one process at a time. Created when it is missing.
    pub dir: PathBuf,
    /// Number of lanes of the engine. What was recorded with another number keeps it until the journal is empty, see
    /// [`Recovered::lanes`](crate::Recovered::lanes). Default: 2.
    pub lanes: u16,
    /// Most bytes of the file and its write-ahead log together that [`record`](crate::Journal::record) fills. What is
    /// recorded already can be frozen and resolved beyond it. Default: 1 GiB.
    pub max_bytes: u64,
    /// How long a resolved batch is kept, for a store that is restored to an older point. Default: 24 hours.
    pub resolved_retention: Duration,
    /// Most bytes of resolved batches that are kept; the oldest go first, and before anything is refused for want of
    /// room. Default: 256 MiB.
    pub resolved_bytes: u64,
    /// Whether a damaged journal is renamed, and a new one begun under a fresh identity, instead of an error. Its counts
    /// are then missing until a person has looked at it. Default: no.
    pub set_aside_corrupt: bool,
    /// What becomes of pending deltas that are found in a copy of a journal. Default: [`CopiedPending::Quarantine`].
    pub copied_pending: CopiedPending,
    /// Where this journal fails or dies. Default: what the environment says.
    #[cfg(feature = "failpoints")]
    pub fail_points: FailPoints,
}

/// What becomes of pending deltas that are found in a copy of a journal.
///
/// Frozen batches need no such choice: they are sent under their old identity, and a store counts an identity once,
/// whoever sends it. Pending deltas have no identity yet. Where both the original and the copy are started, or where the
/// copy is a backup whose original has gone on, they would be counted twice.
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
            #[cfg(feature = "failpoints")]
            fail_points: FailPoints::from_env(),
        }
    }

    #[cfg(feature = "failpoints")]
    pub(crate) fn fail_points(&self) -> FailPoints {
        self.fail_points.clone()
    }

    #[cfg(not(feature = "failpoints"))]
    pub(crate) fn fail_points(&self) -> FailPoints {
        FailPoints
    }
}
