//! How a store opens and uses its file.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

/// Says where the file is and how it is used.
///
/// ```
/// use countem_store_sqlite::{SqliteConfig, Synchronous};
///
/// let options = SqliteConfig { synchronous: Synchronous::Normal, ..SqliteConfig::new("countem.db") };
/// assert_eq!(options.busy_timeout.as_secs(), 5);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The database file. Created when it is missing; its folder must exist.
    pub path: PathBuf,
    /// What survives a power cut. Default: [`Synchronous::Full`].
    pub synchronous: Synchronous,
    /// How long a call waits for other processes that write to the same file, before it says that nothing was applied; up to
    /// a second longer where several queue. Default: 5 seconds.
    pub busy_timeout: Duration,
    /// How many reads run at once. Each needs a thread and a connection, which start with the first read that needs them.
    /// Default: 4.
    pub readers: NonZeroUsize,
    /// Whether the process opens the file, counts once and goes. What is to be written is then written by the thread that asks,
    /// which blocks meanwhile, and once the store has its turn to write it keeps that until it is dropped or a batch fails. That saves such
    /// a process a sixth of its time; any other one would keep others waiting. Default: false.
    pub one_shot: bool,
}

/// What has been stored when [`apply`](countem_store::Store::apply) returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// The batch survives a power cut: its commit waited for the disk.
    #[default]
    Full,
    /// The batch survives the end of the process, but not always a power cut: batches of the last moments may then be
    /// missing, each as a whole and newest first. The file stays sound.
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
            one_shot: false,
        }
    }
}
