//! The lock on a journal's directory.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Write as _},
    path::Path,
};

use countem_sqlite::private_file;

use crate::error::{ErrorKind, JournalError};

/// Name of the lock file. The file stays when the process ends, in whatever way; the lock does not.
pub(crate) const LOCK: &str = "journal.lock";

/// Exclusive lock on a directory, held until it is dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks `dir`, which exists.
    pub(crate) fn acquire(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(LOCK);
        let mut file = private_file()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| JournalError::io(&path, "open the lock file", &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(dir, &mut file)),
            Err(TryLockError::Error(error)) => {
                return Err(JournalError::io(&path, "lock", &error));
            }
        }
        // For the error message of a second process. The lock holds without it, even on a full disk.
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).ok();
        Ok(Self { _file: file })
    }
}

fn in_use(dir: &Path, file: &mut File) -> JournalError {
    let mut text = String::new();
    // Some systems refuse to read a locked file.
    let pid: Option<u32> = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    JournalError::new(
        ErrorKind::Locked,
        format!("the journal directory `{}` is in use by {holder}", dir.display()),
    )
}
