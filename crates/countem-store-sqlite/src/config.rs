//! Configuration of the store.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

/// Location of the file, and how it is used.
///
/// ```
/// use countem_store_sqlite::{SqliteConfig, Synchronous};
///
/// let config = SqliteConfig { synchronous: Synchronous::Normal, ..SqliteConfig::new("countem.db") };
/// assert_eq!(config.busy_timeout.as_secs(), 5);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The database file. Created when it is missing; its folder must exist.
    pub path: PathBuf,
    /// Durability of batches in a power cut. Default: [`Synchronous::Full`].
    pub synchronous: Synchronous,
    /// Maximum time that a call waits for other processes that write to the same file, before it fails with nothing applied.
    /// Default: 5 seconds.
    pub busy_timeout: Duration,
    /// Maximum number of concurrent reads. Each needs a thread and a connection, which start with the first read that needs them.
    /// Default: 4.
    pub readers: NonZeroUsize,
}

/// Durability of a batch when [`apply`](countem_store::Store::apply) returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// The batch survives a power cut: its commit waited for the disk.
    #[default]
    Full,
    /// The batch survives the end of the process, but not always a power cut: the newest batches may then be missing, each as a
    /// whole. The file stays sound.
    Normal,
}

impl SqliteConfig {
    /// Returns the defaults for the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(5),
            readers: const { NonZeroUsize::new(4).expect("four is not zero") },
        }
    }
}
