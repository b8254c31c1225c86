//! Errors of SQLite as errors of a store.

use std::path::Path;

use countem_sqlite::Cause;
use countem_store::{ErrorKind, StoreError};
use rusqlite::Error;

/// Describes in one sentence why `attempt` (such as `write to`) failed on the file at `path`.
///
/// Only for failures that left no trace; see [`countem_sqlite::is_clean`] for commits.
pub(crate) fn store_error(path: &Path, attempt: &str, error: Error) -> StoreError {
    let cause = Cause::of(&error);
    let (kind, says_enough) = match cause {
        Cause::Busy | Cause::Full | Cause::TooManyFiles => (ErrorKind::NotApplied, true),
        Cause::Io | Cause::Interrupted => (ErrorKind::NotApplied, false),
        Cause::NotADatabase | Cause::Corrupt | Cause::ReadOnly | Cause::CannotOpen => {
            (ErrorKind::Refused, true)
        }
        Cause::Other => (ErrorKind::Refused, false),
    };
    let advice = if cause == Cause::Corrupt { "; restore it from a copy" } else { "" };
    let described =
        StoreError::new(kind, format!("cannot {attempt} `{}`: {}{advice}", path.display(), cause.why()));
    if says_enough { described } else { described.with_source(error) }
}

/// Refuses the file at `path` for a reason that a person has to know.
pub(crate) fn refused(path: &Path, why: impl std::fmt::Display) -> StoreError {
    StoreError::new(ErrorKind::Refused, format!("cannot open `{}`: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn error_is_one_sentence_with_its_kind() {
        let described = |code| {
            let failure = Error::SqliteFailure(ffi::Error::new(code), None);
            store_error(Path::new("/data/countem.db"), "write to", failure)
        };
        let busy = described(ffi::SQLITE_BUSY_RECOVERY);
        assert_eq!(busy.kind(), ErrorKind::NotApplied);
        assert_eq!(
            busy.to_string(),
            "cannot write to `/data/countem.db`: another process kept it locked for longer than the busy timeout"
        );
        assert_eq!(described(ffi::SQLITE_FULL).kind(), ErrorKind::NotApplied);
        assert_eq!(described(ffi::SQLITE_IOERR_WRITE).kind(), ErrorKind::NotApplied);
        for code in
            [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT_INDEX, ffi::SQLITE_READONLY_DIRECTORY, ffi::SQLITE_ERROR]
        {
            assert_eq!(described(code).kind(), ErrorKind::Refused, "{code}");
        }
    }
}
