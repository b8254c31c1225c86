//! Errors of SQLite and of the file system, as those of a journal.

use std::{fmt, io, path::Path};

use countem_sqlite::Cause;
use rusqlite::{Error, ErrorCode, ffi};

use crate::error::{ErrorKind, JournalError};

impl JournalError {
    pub(crate) fn corrupt(path: &Path, why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Corrupt, format!("the journal `{}` is damaged: {why}", path.display()))
    }

    pub(crate) fn refused(path: &Path, why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Refused, format!("cannot open the journal `{}`: {why}", path.display()))
    }

    pub(crate) fn io(path: &Path, attempt: &str, error: &io::Error) -> Self {
        let why = error.to_string();
        let (kind, why) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (ErrorKind::Full, why),
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::ReadOnlyFilesystem => (ErrorKind::Refused, why),
            // The files of a journal are opened without following links.
            _ if path.is_symlink() => {
                (ErrorKind::Refused, "it is a link; put the file itself in its place".to_owned())
            }
            _ => (ErrorKind::Unavailable, why),
        };
        Self::new(kind, format!("cannot {attempt} `{}`: {why}", path.display()))
    }

    /// Describes a failure of SQLite while the journal is in use.
    pub(crate) fn sqlite(path: &Path, attempt: &str, error: &Error) -> Self {
        let cause = Cause::of(error);
        let (kind, why) = match cause {
            Cause::Corrupt | Cause::NotADatabase => (ErrorKind::Corrupt, format!("it is damaged: {error}")),
            Cause::Full => (ErrorKind::Full, cause.why().to_owned()),
            Cause::ReadOnly | Cause::CannotOpen => (ErrorKind::Refused, cause.why().to_owned()),
            Cause::Busy | Cause::TooManyFiles => (ErrorKind::Unavailable, cause.why().to_owned()),
            Cause::Io | Cause::Interrupted | Cause::Other => {
                let code = error.sqlite_error().map_or(0, |failure| failure.extended_code);
                (ErrorKind::Unavailable, format!("{}: {error} (SQLite code {code})", cause.why()))
            }
        };
        Self::new(kind, format!("cannot {attempt} `{}`: {why}", path.display()))
    }
}

/// A failure to read the content of a journal.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// SQLite failed.
    Sqlite(Error),
    /// The content is not what was written.
    Damaged(String),
    /// The content is not for this version of countem.
    Refused(String),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

impl ReadError {
    pub(crate) fn damaged(why: impl Into<String>) -> Self {
        Self::Damaged(why.into())
    }

    /// Names the journal that could not be read.
    pub(crate) fn of(self, path: &Path) -> JournalError {
        match self {
            // While a journal is read, SQLite's general error has no other reason than the content of the file.
            Self::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                JournalError::corrupt(path, error)
            }
            Self::Sqlite(error) => match JournalError::sqlite(path, "open the journal", &error) {
                described if described.kind() == ErrorKind::Corrupt => JournalError::corrupt(path, error),
                described => described,
            },
            Self::Damaged(why) => JournalError::corrupt(path, why),
            Self::Refused(why) => JournalError::refused(path, why),
        }
    }
}

/// The reason why a request has no part in a transaction.
#[derive(Debug)]
pub(crate) enum Failure {
    /// SQLite failed, and the whole transaction with it.
    Sqlite(Error),
    /// The journal would grow beyond its bound. The rest of the transaction is not affected.
    NoRoom,
    /// The request cannot be executed. The rest of the transaction is not affected.
    Refused(JournalError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Tells whether a sum left the range of `i64`, after which the statement, and nothing else, had no effect.
///
/// SQLite turns an overflowing sum into a float, which the column of a STRICT table refuses.
pub(crate) fn is_overflow(error: &Error) -> bool {
    error.sqlite_error().is_some_and(|failure| failure.extended_code == ffi::SQLITE_CONSTRAINT_DATATYPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_one_sentence_with_the_path() {
        let error = |code| {
            let failure = Error::SqliteFailure(ffi::Error::new(code), None);
            JournalError::sqlite(Path::new("/data/journal.db"), "write to", &failure)
        };
        let full = error(ffi::SQLITE_FULL);
        assert_eq!(full.kind(), ErrorKind::Full);
        assert_eq!(
            full.to_string(),
            "cannot write to `/data/journal.db`: there is no space left on the disk"
        );
        assert_eq!(error(ffi::SQLITE_IOERR_WRITE).kind(), ErrorKind::Unavailable);
        assert_eq!(error(ffi::SQLITE_READONLY).kind(), ErrorKind::Refused);
        for code in [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT_VTAB, ffi::SQLITE_IOERR_SHORT_READ] {
            assert_eq!(error(code).kind(), ErrorKind::Corrupt, "{code}");
        }
    }
}
