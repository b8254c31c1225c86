//! Refused increments.

use std::{
    fmt,
    io::{self, Write},
    sync::Once,
};

use countem_core::{BucketError, FoldError, LabelError, NameError};

/// An increment was not accepted. It was not counted at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The collection or the metric has no valid name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The labels make no metric.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The collector was shut down.
    #[error("collector is shut down")]
    Closed,
    /// The store is behind and too many distinct counters are pending. Known counters are still counted.
    #[error("too many distinct counters are pending, the store is behind")]
    Full,
    /// The journal has no room. Nothing is counted until it has.
    #[error("journal is full")]
    JournalFull,
    /// The pending amount of the counter would leave the range of `i64`.
    #[error("pending amount of the counter would exceed the range of a 64-bit integer")]
    Overflow,
    /// The time of the increment lies outside the configured window.
    #[error("time `{timestamp}` lies outside the window in which increments are accepted")]
    Window {
        /// The time of the increment.
        timestamp: jiff::Timestamp,
    },
    /// The time of the increment has no bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// Every stored bucket of the time of the increment has expired: none is kept so long.
    #[error("time `{timestamp}` has expired: no stored period is kept so long")]
    Expired {
        /// The time of the increment.
        timestamp: jiff::Timestamp,
    },
    /// This process is a fork of the one that started the collector, without the threads that store. Start a collector after
    /// the fork.
    #[error("collector was started before this process was forked")]
    Forked,
}

/// Writes the first warning of the process to the standard error stream, if no subscriber of `tracing` would show it.
pub fn warn_on_stderr(warning: impl fmt::Display) {
    static FIRST: Once = Once::new();
    if !tracing::dispatcher::has_been_set() {
        FIRST.call_once(|| {
            let more = "the stats count further ones, and a subscriber of `tracing` shows them";
            // Where the stream is closed, the warning is lost.
            writeln!(io::stderr(), "countem: {warning} ({more})").ok();
        });
    }
}

/// The words under which refused increments are counted, in the order of [`Refusal::index`].
pub(super) const REASONS: [&str; 8] =
    ["name", "closed", "full", "overflow", "time", "journal_full", "forked", "expired"];

impl Refusal {
    /// Returns the one word under which refused increments are counted in the stats.
    pub fn reason(&self) -> &'static str {
        REASONS[self.index()]
    }

    pub(super) fn index(&self) -> usize {
        match self {
            Self::Name(_) | Self::Labels(_) => 0,
            Self::Closed => 1,
            Self::Full => 2,
            Self::Overflow => 3,
            Self::Window { .. } | Self::Bucket(_) => 4,
            Self::JournalFull => 5,
            Self::Forked => 6,
            Self::Expired { .. } => 7,
        }
    }
}

impl From<FoldError> for Refusal {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Name(error) => Self::Name(error),
            FoldError::Overflow => Self::Overflow,
            // Every other reason is one of room.
            _ => Self::Full,
        }
    }
}
