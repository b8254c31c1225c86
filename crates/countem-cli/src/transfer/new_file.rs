//! Files that get their name once they are complete.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::exit::UsageError;

/// A file that is written as `<path>.countem-part` until it is complete, and replaces none. What a killed process left there is written over.
pub(crate) struct NewFile {
    path: PathBuf,
    part: PathBuf,
    /// The open part, which is locked: no other process writes it.
    file: File,
}

impl NewFile {
    /// Returns the file at `path`, where there is none yet, for its owner alone if it `is_private`.
    ///
    /// # Errors
    /// There is one, or another process is writing it.
    pub(crate) fn new(path: &Path, is_private: bool) -> Result<Self> {
        if path.as_os_str() == "-" {
            let why = "`-` is standard output, and this is written to a file: name one (`./-` if it is to have this name)";
            return Err(UsageError::new(why).into());
        }
        if path.symlink_metadata().is_ok() {
            bail!("`{}` exists already: remove it, or name another file", path.display());
        }
        let part = beside(path, ".countem-part");
        let file = open(&part, is_private).with_context(|| format!("cannot write `{}`", part.display()))?;
        let file =
            file.ok_or_else(|| anyhow!("another process is writing `{}`: wait for it", part.display()))?;
        Ok(Self { path: path.to_owned(), part, file })
    }

    /// Returns its name until it is complete.
    pub(crate) fn part(&self) -> &Path {
        &self.part
    }

    /// Returns the open file.
    ///
    /// # Errors
    /// The system has no more open files.
    pub(crate) fn writer(&self) -> Result<File> {
        self.file.try_clone().with_context(|| format!("cannot write `{}`", self.part.display()))
    }

    /// Makes the content durable and gives the file its name.
    ///
    /// # Errors
    /// The file cannot be written, or there is one of its name by now.
    pub(crate) fn complete(self) -> Result<()> {
        let failed = || format!("cannot write `{}`", self.path.display());
        self.file.sync_all().with_context(failed)?;
        // A link replaces no file.
        fs::hard_link(&self.part, &self.path).with_context(failed)?;
        fs::remove_file(&self.part).with_context(failed)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // It is gone already when complete. The lock ends afterwards.
        fs::remove_file(&self.part).ok();
    }
}

/// Opens and locks the file at `part` and empties it; `None` while another process has it.
fn open(part: &Path, is_private: bool) -> io::Result<Option<File>> {
    const PRIVATE: u32 = 0o600;
    let mut options = fs::OpenOptions::new();
    let mode = if is_private { PRIVATE } else { 0o666 };
    let file = options.read(true).write(true).create(true).truncate(false).mode(mode).open(part)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (locked, named) = (file.metadata()?, part.symlink_metadata());
    if !named.is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
        // The process that had it ended between the two steps.
        return Ok(None);
    }
    if is_private {
        file.set_permissions(fs::Permissions::from_mode(PRIVATE))?;
    }
    file.set_len(0)?;
    // SQLite would add the log of a killed backup to the new one.
    for log in ["-journal", "-wal", "-shm"] {
        match fs::remove_file(beside(part, log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(Some(file))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
