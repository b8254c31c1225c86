//! What SQLite's errors mean to a caller.

use std::path::Path;

use countem_store::{ErrorKind, StoreError};
use rusqlite::{Error, ErrorCode};

/// Says in one sentence why `attempt` (such as `write to`) failed on the file at `path`.
///
/// Only for failures that left no trace: a failed commit is [`is_clean_commit_failure`]'s business.
pub(crate) fn store_error(path: &Path, attempt: &str, error: Error) -> StoreError {
    use ErrorKind::{NotApplied, Refused};
    let (kind, why) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            (NotApplied, "another process kept it locked for longer than the busy timeout")
        }
        Some(ErrorCode::DiskFull) => (NotApplied, "there is no space left"),
        Some(ErrorCode::NotADatabase) => (Refused, "it is no SQLite database"),
        Some(ErrorCode::DatabaseCorrupt) => (Refused, "the file is damaged; restore it from a copy"),
        Some(ErrorCode::ReadOnly) => (Refused, "the file or its folder is read-only"),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            (Refused, "the file or its folder may not be opened; check their rights")
        }
        // The cause of these is not in the sentence, so SQLite's own words follow it.
        Some(ErrorCode::SystemIoFailure) => {
            return unexpected(path, attempt, NotApplied, "input or output failed", error);
        }
        Some(ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted) => {
            return unexpected(path, attempt, NotApplied, "SQLite gave up", error);
        }
        _ => return unexpected(path, attempt, Refused, "SQLite refused", error),
    };
    StoreError::new(kind, format!("cannot {attempt} `{}`: {why}", path.display()))
}

fn unexpected(path: &Path, attempt: &str, kind: ErrorKind, why: &str, error: Error) -> StoreError {
    StoreError::new(kind, format!("cannot {attempt} `{}`: {why}", path.display())).with_source(error)
}

/// Refuses for a reason that a person has to know.
pub(crate) fn refused(path: &Path, why: impl std::fmt::Display) -> StoreError {
    StoreError::new(ErrorKind::Refused, format!("cannot open `{}`: {why}", path.display()))
}

/// Tells whether the connection is as good after `error` as it was before.
pub(crate) fn keeps_connection(error: &Error) -> bool {
    is_busy(error) || error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Tells whether another connection was in the way.
pub(crate) fn is_busy(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Tells whether the disk, or what stands for it, failed.
pub(crate) fn is_io_failure(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

/// Tells whether a commit that failed with `error` left no valid commit record, not even an unsynced one.
///
/// The record is the last thing written, so these failures came before it. After any other failure, such as one of
/// `fsync`, the record may be there and the transaction may come back with the next recovery of the log.
pub(crate) fn is_clean_commit_failure(error: &Error) -> bool {
    is_busy(error) || error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn failure(code: i32) -> Error {
        Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn an_error_is_one_sentence_and_says_whether_it_may_pass() {
        let told = |code| store_error(Path::new("/data/countem.db"), "write to", failure(code));
        let busy = told(ffi::SQLITE_BUSY_RECOVERY);
        assert_eq!(busy.kind(), ErrorKind::NotApplied);
        assert_eq!(
            busy.to_string(),
            "cannot write to `/data/countem.db`: another process kept it locked for longer than the busy timeout"
        );
        assert_eq!(told(ffi::SQLITE_FULL).kind(), ErrorKind::NotApplied);
        assert_eq!(told(ffi::SQLITE_IOERR_WRITE).kind(), ErrorKind::NotApplied);
        for code in
            [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT_INDEX, ffi::SQLITE_READONLY_DIRECTORY, ffi::SQLITE_ERROR]
        {
            assert_eq!(told(code).kind(), ErrorKind::Refused, "{code}");
        }
    }

    #[test]
    fn a_commit_whose_fsync_failed_is_in_doubt() {
        assert!(!is_clean_commit_failure(&failure(ffi::SQLITE_IOERR_FSYNC)));
        assert!(!is_clean_commit_failure(&failure(ffi::SQLITE_IOERR_SHMMAP)));
        assert!(is_clean_commit_failure(&failure(ffi::SQLITE_FULL)));
    }
}
