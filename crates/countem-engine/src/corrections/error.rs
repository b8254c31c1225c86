//! Errors of corrections.

use countem_query::ReadError;
use countem_store::StoreError;

/// An error of a correction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorrectionError {
    /// The store could not be read, or did not take a batch.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The counters could not be read exactly.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The correction has no exact result. Nothing was stored.
    #[error("{0}; nothing was changed")]
    Refused(String),
    /// There is no such counter. Nothing was stored.
    #[error("{0}")]
    NotFound(String),
    /// A correction has begun and is not finished, so that counters are neither those of before nor those of after it.
    #[error(
        "the correction {id} ({what}) has begun and is not finished; the next `countem` command that can write to the store finishes it: {source}"
    )]
    Unfinished {
        /// Identity of the correction.
        id: String,
        /// The correction in words.
        what: String,
        /// The obstacle.
        source: StoreError,
    },
}

impl CorrectionError {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}
