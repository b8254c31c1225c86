//! How a command ends.

use std::{fmt, io, process::ExitCode};

use countem::ReadError;
use countem_store::{ErrorKind, StoreError};

use crate::output::say;

/// How a command ends, as scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Ok = 0,
    /// Something failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// What was asked for does not exist.
    NotFound = 3,
    /// The store cannot be reached.
    Unreachable = 4,
    /// Some of it was done.
    Partly = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// The command line or the configuration is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(String);

/// What was asked for does not exist.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotFound(String);

macro_rules! message {
    ($name:ident) => {
        impl $name {
            pub(crate) fn new(message: impl Into<String>) -> Self {
                Self(message.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::error::Error for $name {}
    };
}
message!(UsageError);
message!(NotFound);

/// Reports how a command ended and returns it to the shell. A reader of our output who has seen enough, such as
/// `head`, is no failure.
pub(crate) fn report(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Ok.into(),
        Err(error) => {
            say(format_args!("countem: {error:#}"));
            of(&error).into()
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Returns how a command that failed with `error` ends.
pub(crate) fn of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        // The text of a read error is that of the store's, and so is its source: the store's error is no link of its own.
        let of_store = match cause.downcast_ref() {
            Some(ReadError::Store(error)) => Some(error),
            _ => cause.downcast_ref::<StoreError>(),
        };
        if let Some(error) = of_store {
            return of_kind(error.kind());
        } else if cause.is::<UsageError>() {
            return Exit::Usage;
        } else if cause.is::<NotFound>() {
            return Exit::NotFound;
        }
    }
    Exit::Failed
}

fn of_kind(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::NotApplied | ErrorKind::InDoubt => Exit::Unreachable,
        // Asked of the wrong kind of store.
        ErrorKind::Unsupported => Exit::Usage,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn the_cause_decides_how_a_command_ends() {
        let of_error = |error: anyhow::Error| of(&Err::<(), _>(error).context("outer").unwrap_err());
        assert_eq!(of_error(UsageError::new("x").into()), Exit::Usage);
        assert_eq!(of_error(NotFound::new("x").into()), Exit::NotFound);
        assert_eq!(of_error(StoreError::new(ErrorKind::NotApplied, "x").into()), Exit::Unreachable);
        assert_eq!(of_error(StoreError::new(ErrorKind::Refused, "x").into()), Exit::Failed);
        assert_eq!(of_error(StoreError::new(ErrorKind::Unsupported, "x").into()), Exit::Usage);
        let read = ReadError::Store(StoreError::new(ErrorKind::NotApplied, "x"));
        assert_eq!(of_error(read.into()), Exit::Unreachable);
        assert_eq!(of_error(anyhow::anyhow!("x")), Exit::Failed);
        assert!(is_broken_pipe(&io::Error::from(io::ErrorKind::BrokenPipe).into()));
    }
}
