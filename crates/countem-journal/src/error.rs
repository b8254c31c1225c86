//! What went wrong in the journal, and what is known afterwards.

use std::{fmt, io, path::Path};

use rusqlite::{Error, ErrorCode, ffi};

/// Says what is known after a failed call. Kinds exist only where a caller acts differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another process uses the directory.
    Locked,
    /// The journal is damaged. Nothing was changed; a person decides whether it is set aside.
    Corrupt,
    /// The directory or the file cannot be used until a person acts: rights, a newer countem, another program's file.
    Refused,
    /// There is no room, in the configured bound or on the disk. Nothing was changed; the same may succeed later.
    Full,
    /// Reading or writing failed. Nothing was changed; the same may succeed later.
    Unavailable,
    /// A pending amount would leave the range of `i64`. Nothing was changed; freeze the lane, then ask again.
    Overflow,
    /// The journal ended before it was known whether the call took effect. The next opening tells.
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

/// Says what the journal was asked, why it failed and what is known afterwards. One readable line.
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

    /// Returns what is known after the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn corrupt(path: &Path, why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Corrupt, format!("the journal `{}` is damaged: {why}", path.display()))
    }

    pub(crate) fn refused(path: &Path, why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Refused, format!("cannot open the journal `{}`: {why}", path.display()))
    }

    pub(crate) fn io(path: &Path, attempt: &str, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Refused,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, format!("cannot {attempt} `{}`: {error}", path.display()))
    }

    /// Describes a failure of SQLite while the journal was in use.
    pub(crate) fn sqlite(path: &Path, attempt: &str, error: &Error) -> Self {
        let path = path.display();
        if is_corrupt(error) {
            return Self::new(
                ErrorKind::Corrupt,
                format!("cannot {attempt} `{path}`: it is damaged: {error}"),
            );
        }
        let (kind, why) = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => (ErrorKind::Full, "there is no space left on the disk".to_owned()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                (ErrorKind::Unavailable, "another process keeps it locked".to_owned())
            }
            Some(ErrorCode::ReadOnly) => {
                (ErrorKind::Refused, "the file or its folder is read-only".to_owned())
            }
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => (
                ErrorKind::Refused,
                "the file or its folder may not be opened; check their rights".to_owned(),
            ),
            Some(ErrorCode::SystemIoFailure) => {
                (ErrorKind::Unavailable, format!("input or output failed: {}", words(error)))
            }
            _ => (ErrorKind::Unavailable, words(error)),
        };
        Self::new(kind, format!("cannot {attempt} `{path}`: {why}"))
    }
}

/// SQLite's own words and its code, which says more than they do.
fn words(error: &Error) -> String {
    match error.sqlite_error() {
        Some(code) => format!("{error} (SQLite code {})", code.extended_code),
        None => error.to_string(),
    }
}

/// Tells whether the content of the file is wrong, in contrast to our access to it.
pub(crate) fn is_corrupt(error: &Error) -> bool {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => true,
        Some(_) => matches!(
            extended_code(error),
            Some(ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA)
        ),
        // What SQLite gave out does not have the form that the tables promise.
        None => matches!(
            error,
            Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::QueryReturnedNoRows
                | Error::Utf8Error(..)
        ),
    }
}

/// Tells whether a statement that reads a journal failed because of what is in the file.
///
/// While the journal is opened, no statement can fail with SQLite's general error for any other reason.
pub(crate) fn is_corrupt_at_open(error: &Error) -> bool {
    is_corrupt(error) || error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

/// Tells whether the sum left the range of `i64`, after which the statement, and nothing else, had no effect.
///
/// SQLite turns an overflowing sum into a float, which the column of a STRICT table refuses.
pub(crate) fn is_overflow(error: &Error) -> bool {
    extended_code(error) == Some(ffi::SQLITE_CONSTRAINT_DATATYPE)
}

/// Tells whether a commit that failed with `error` left no valid commit record, not even an unsynced one.
///
/// The record is the last thing written, so these failures came before it. After any other failure, such as one of
/// `fsync`, the record may be there and the transaction may come back with the next recovery of the log.
pub(crate) fn is_clean_commit_failure(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
    )
}

/// Tells whether the disk had no space left.
pub(crate) fn is_disk_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn extended_code(error: &Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> Error {
        Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn an_error_is_one_sentence_with_the_path() {
        let told = |code| JournalError::sqlite(Path::new("/data/journal.db"), "write to", &failure(code));
        let full = told(ffi::SQLITE_FULL);
        assert_eq!(full.kind(), ErrorKind::Full);
        assert_eq!(
            full.to_string(),
            "cannot write to `/data/journal.db`: there is no space left on the disk"
        );
        assert_eq!(told(ffi::SQLITE_IOERR_WRITE).kind(), ErrorKind::Unavailable);
        assert_eq!(told(ffi::SQLITE_READONLY).kind(), ErrorKind::Refused);
        for code in [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT_VTAB, ffi::SQLITE_IOERR_SHORT_READ] {
            assert_eq!(told(code).kind(), ErrorKind::Corrupt, "{code}");
        }
    }

    #[test]
    fn a_commit_whose_fsync_failed_is_in_doubt() {
        assert!(!is_clean_commit_failure(&failure(ffi::SQLITE_IOERR_FSYNC)));
        assert!(!is_clean_commit_failure(&failure(ffi::SQLITE_IOERR_WRITE)));
        assert!(is_clean_commit_failure(&failure(ffi::SQLITE_FULL)));
    }
}
