//! Errors, and what is known after one.

#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "sqlite")]
pub(crate) use sqlite::*;

/// State of the journal after a failed call. Kinds exist only where a caller acts differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another process uses the directory.
    Locked,
    /// The journal is damaged. Nothing was changed; a person decides whether it is set aside.
    Corrupt,
    /// The directory or the file cannot be used until a person acts: rights, a newer countem, another program's file.
    Refused,
    /// There is no room, in the configured bound or on the disk. Nothing was changed; the same call may succeed later.
    Full,
    /// Reading or writing failed. Nothing was changed; the same call may succeed later.
    Unavailable,
    /// A pending amount would leave the range of `i64`. Nothing was changed; freeze the lane, then call again.
    Overflow,
    /// The journal was closed before it was known whether the call took effect. The next opening tells.
    InDoubt,
}

impl ErrorKind {
    /// Returns the lower-case name used in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Corrupt => "corrupt",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::Unavailable => "unavailable",
            Self::Overflow => "overflow",
            Self::InDoubt => "in_doubt",
        }
    }
}

/// A failed call: one readable line that names the attempt and the reason, and the kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JournalError {
    kind: ErrorKind,
    message: String,
}

impl JournalError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Returns the state of the journal after the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
