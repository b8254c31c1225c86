//! Setting a damaged journal aside: renamed, never deleted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use countem_sqlite::sync_folder;

use crate::{
    disk::{file::with_suffix, witness::WITNESS},
    error::JournalError,
};

/// Renames every file that belongs to the journal file `path`, and returns the new name of the file itself.
///
/// The log goes first and the witness last: whenever this is interrupted, the rest is still recognised as damaged, and a
/// log never meets a new file.
pub(crate) fn set_aside(dir: &Path, path: &Path) -> Result<PathBuf, JournalError> {
    let failed = |error: io::Error| JournalError::io(path, "set aside the damaged journal", &error);
    let target = free_name(path).map_err(failed)?;
    for suffix in ["-wal", "-shm", ""] {
        rename(&with_suffix(path, suffix), &with_suffix(&target, suffix)).map_err(failed)?;
    }
    rename(&dir.join(WITNESS), &with_suffix(&target, "-witness")).map_err(failed)?;
    sync_folder(dir).map_err(failed)?;
    Ok(target)
}

/// Returns an unused name: neither an earlier damaged journal nor any part of one is overwritten.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    for number in 1_u32.. {
        let name = with_suffix(path, &format!(".damaged-{number}"));
        let mut taken = false;
        for suffix in ["", "-wal", "-shm", "-witness"] {
            taken |= with_suffix(&name, suffix).try_exists()?;
        }
        if !taken {
            return Ok(name);
        }
    }
    Err(io::Error::other("every name is taken"))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}
