//! Setting a damaged journal aside: renamed, never deleted.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{connection::sync_directory, error::JournalError, witness::WITNESS};

/// A damaged journal that was renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The damaged file now. Its write-ahead log and its witness lie beside it with the endings `-wal` and `-witness`.
    pub moved_to: PathBuf,
    /// What was wrong with it.
    pub why: String,
}

/// Renames everything that belongs to the journal file `path`, and returns the new name of the file itself.
///
/// The log goes first and the witness last: whenever this is interrupted, what is left is still recognised as damaged, and
/// a log never meets a new file.
pub(crate) fn set_aside(dir: &Path, path: &Path) -> Result<PathBuf, JournalError> {
    let failed = |error: io::Error| JournalError::io(path, "set aside the damaged journal", &error);
    let target = free_name(path).map_err(failed)?;
    for ending in ["-wal", "-shm", ""] {
        rename(&with(path, ending), &with(&target, ending)).map_err(failed)?;
    }
    rename(&dir.join(WITNESS), &with(&target, "-witness")).map_err(failed)?;
    sync_directory(dir).map_err(failed)?;
    Ok(target)
}

/// Finds a name in use by nothing: neither an earlier damaged journal nor any part of one is overwritten.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    for number in 1_u32.. {
        let name = with(path, &format!(".damaged-{number}"));
        let mut taken = false;
        for ending in ["", "-wal", "-shm", "-witness"] {
            taken |= with(&name, ending).try_exists()?;
        }
        if !taken {
            return Ok(name);
        }
    }
    Err(io::Error::other("every name is taken"))
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}
