//! Errors of a collector.

use countem_core::{BucketError, LabelError, NameError};
use countem_engine::{NotDurable, Refusal};
use countem_query::{QueryError, ReadError};
use countem_store::ErrorKind as StoreErrorKind;

/// An error of a collector, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Labels make no metric.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// A date has no bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The increment was not counted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The increment was counted, but it is not durable yet.
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
    /// Pending counts of a flush are not in the store: a shutdown gave up.
    #[error("counted, but not stored: the collector was shut down before the store had everything")]
    NotStored,
    /// Counters could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A query has no answer: it contradicts itself, or the answer exceeds a limit.
    #[error(transparent)]
    Query(QueryError),
}

impl From<QueryError> for Error {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Read(error) => error.into(),
            QueryError::Name(error) => error.into(),
            error => Self::Query(error),
        }
    }
}

/// Kind of an [`Error`], by what a caller does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call is wrong: a name, a time or a period that cannot be.
    Invalid,
    /// There is no room for the increment now. It was not counted.
    Full,
    /// The store or the journal cannot be used now. Everything that was counted stays counted.
    Unavailable,
    /// The store, the stored values or their configuration need a person.
    Failed,
    /// The collector was shut down.
    Closed,
}

impl Error {
    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_)
            | Self::Labels(_)
            | Self::Query(_)
            | Self::Bucket(_)
            | Self::Read(
                ReadError::NotStored { .. }
                | ReadError::PeriodsChanged { .. }
                | ReadError::ZoneChanged { .. }
                | ReadError::Bucket(_),
            ) => ErrorKind::Invalid,
            Self::Refused(refusal) => match refusal {
                Refusal::Closed => ErrorKind::Closed,
                Refusal::Full | Refusal::JournalFull | Refusal::Overflow => ErrorKind::Full,
                _ => ErrorKind::Invalid,
            },
            Self::NotDurable(_) => ErrorKind::Unavailable,
            Self::NotStored | Self::Read(ReadError::Closed) => ErrorKind::Closed,
            Self::Read(ReadError::Store(error)) => match error.kind() {
                StoreErrorKind::NotApplied | StoreErrorKind::InDoubt => ErrorKind::Unavailable,
                _ => ErrorKind::Failed,
            },
            Self::Read(_) => ErrorKind::Failed,
        }
    }

    /// Tells whether the same call may succeed later.
    ///
    /// False for [`NotDurable`](Self::NotDurable), although its cause may pass: the increment is counted, and a second call
    /// would count it twice. Wait with [`Collector::durable`](crate::Collector::durable) instead.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotDurable(_) => false,
            _ => matches!(self.kind(), ErrorKind::Full | ErrorKind::Unavailable),
        }
    }
}

#[cfg(test)]
mod tests {
    use countem_store::StoreError;

    use super::*;

    #[test]
    fn only_errors_that_pass_are_retryable() {
        let store = |kind| Error::Read(StoreError::new(kind, "x").into());
        assert!(store(StoreErrorKind::NotApplied).is_retryable());
        assert!(!store(StoreErrorKind::Refused).is_retryable());
        assert!(Error::from(Refusal::Full).is_retryable());
        assert!(!Error::from(Refusal::Closed).is_retryable());
        assert!(!Error::NotStored.is_retryable());
        assert_eq!(Error::from(Refusal::Overflow).kind(), ErrorKind::Full);
    }
}
