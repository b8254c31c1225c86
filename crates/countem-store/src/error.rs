//! Errors of stores, and what is known after them.

use std::{error::Error, fmt, sync::Arc};

/// Knowledge after a failed call. Kinds exist only where a caller acts differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call had no effect, for a reason that may pass: the store is busy, unreachable or full. Worth retrying.
    NotApplied,
    /// The call may have had its effect, wholly or in part: a reply was lost or came too late. The caller sends the same again.
    InDoubt,
    /// The call had no effect and needs a person to act first: credentials, rights, a wrong or damaged file.
    Refused,
    /// The store does not support the call.
    Unsupported,
    /// The mark of the batch is not where the batch expects it. Nothing of the batch is stored, and it never will be.
    Conflict,
}

impl ErrorKind {
    /// Returns the lower-case name used in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotApplied => "not_applied",
            Self::InDoubt => "in_doubt",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::Conflict => "conflict",
        }
    }
}

/// An error of a store: the attempt, the cause and the [kind](ErrorKind), as one readable line.
#[derive(Debug, Clone)]
pub struct StoreError {
    kind: ErrorKind,
    message: String,
    /// Shared, because one failure may answer many calls.
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// Returns an error; `message` is lower case, with things in backticks, no full stop and no secret.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Returns the error for a batch whose mark `key` is not where the batch expects it.
    pub fn conflict(key: &str) -> Self {
        Self::new(ErrorKind::Conflict, format!("the mark `{key}` was moved by another process meanwhile"))
    }

    /// Adds the cause, whose text is *not* repeated in the message.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into().into()), ..self }
    }

    /// Returns what is known after the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The text already contains the cause, so only the causes beneath it are reported.
        self.source.as_ref().and_then(|source| source.source())
    }
}
