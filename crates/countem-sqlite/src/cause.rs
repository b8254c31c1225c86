//! Classes of failures.

use rusqlite::{Error, ErrorCode, ffi};

use crate::private::are_files_exhausted;

/// Cause of a failed call, as far as callers act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Another connection held a lock for longer than the busy timeout.
    Busy,
    /// The disk, or the configured bound of the file, is full.
    Full,
    /// The file is of another kind.
    NotADatabase,
    /// The content of the file is wrong, in contrast to the access to it.
    Corrupt,
    /// The file or its folder is read-only.
    ReadOnly,
    /// The file or its folder may not be opened.
    CannotOpen,
    /// No further file can be opened, whatever its rights.
    TooManyFiles,
    /// Reading, writing or syncing failed.
    Io,
    /// SQLite had no memory or was interrupted.
    Interrupted,
    /// Anything else, such as a statement that does not fit the tables.
    Other,
}

impl Cause {
    /// Returns the cause of `error`.
    pub fn of(error: &Error) -> Self {
        let Some(failure) = error.sqlite_error() else {
            return match error {
                // A value does not have the form that the tables promise.
                Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::QueryReturnedNoRows
                | Error::Utf8Error(..) => Self::Corrupt,
                _ => Self::Other,
            };
        };
        match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                Self::Busy
            }
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::NotADatabase => Self::NotADatabase,
            ErrorCode::DatabaseCorrupt => Self::Corrupt,
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied
                if are_files_exhausted() =>
            {
                Self::TooManyFiles
            }
            ErrorCode::ReadOnly => Self::ReadOnly,
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Self::CannotOpen,
            ErrorCode::SystemIoFailure => match failure.extended_code {
                ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA => {
                    Self::Corrupt
                }
                _ => Self::Io,
            },
            ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted => Self::Interrupted,
            _ => Self::Other,
        }
    }

    /// Returns the end of the sentence "cannot … `path`: …".
    pub fn why(self) -> &'static str {
        match self {
            Self::Busy => "another process kept it locked for longer than the busy timeout",
            Self::Full => "there is no space left on the disk",
            Self::NotADatabase => "it is no SQLite database",
            Self::Corrupt => "the file is damaged",
            Self::ReadOnly => "the file or its folder is read-only",
            Self::CannotOpen => "the file or its folder may not be opened; check their rights",
            Self::TooManyFiles => "this process or machine has too many files open",
            Self::Io => "input or output failed",
            Self::Interrupted => "SQLite gave up",
            Self::Other => "SQLite refused",
        }
    }
}

/// Tells whether a statement or a commit that failed with `error` left no trace: no valid commit record, not even an unsynced
/// one, and a connection that is as good as before.
///
/// The commit record is the last thing written, so these failures came before it. After any other failure of a commit, such
/// as one of `fsync`, the record may be there and the transaction may come back with the next recovery of the log.
pub fn is_clean(error: &Error) -> bool {
    matches!(Cause::of(error), Cause::Busy | Cause::Full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> Error {
        Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn extended_codes_have_the_cause_of_their_kind() {
        for (code, cause) in [
            (ffi::SQLITE_BUSY_RECOVERY, Cause::Busy),
            (ffi::SQLITE_FULL, Cause::Full),
            (ffi::SQLITE_CORRUPT_INDEX, Cause::Corrupt),
            (ffi::SQLITE_IOERR_WRITE, Cause::Io),
            (ffi::SQLITE_IOERR_SHORT_READ, Cause::Corrupt),
            (ffi::SQLITE_READONLY_DIRECTORY, Cause::ReadOnly),
            (ffi::SQLITE_ERROR, Cause::Other),
        ] {
            assert_eq!(Cause::of(&failure(code)), cause, "{code}");
        }
    }

    #[test]
    fn commit_whose_fsync_failed_is_in_doubt() {
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMMAP] {
            assert!(!is_clean(&failure(code)), "{code}");
        }
        assert!(is_clean(&failure(ffi::SQLITE_FULL)));
    }
}
