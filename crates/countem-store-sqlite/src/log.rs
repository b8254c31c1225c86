//! What a connection that writes does with the write-ahead log besides SQLite.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::turn::Turns;

/// The log of an open database. It exists for as long as anybody has the database open.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// Open for as long as the connection, so that no failure to write goes by unseen.
    file: File,
    turns: Turns,
}

impl Log {
    /// Opens the log of an open database.
    pub(crate) fn open(path: PathBuf, patience: Duration) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Self { path, file, turns: Turns::new(patience) })
    }

    /// Returns where SQLite keeps the log: beside the file itself, also when the path is a link to it.
    pub(crate) fn path_of(database: &Path) -> PathBuf {
        let mut log = database.canonicalize().unwrap_or_else(|_| database.to_owned()).into_os_string();
        log.push("-wal");
        log.into()
    }

    /// Waits for the turn to write, and keeps it until [`end_turn`](Self::end_turn) or the end.
    pub(crate) fn begin_turn(&mut self) {
        self.turns.begin(&self.path);
    }

    /// Lets the next connection write.
    pub(crate) fn end_turn(&mut self) {
        self.turns.end();
    }

    /// Waits until everything that was ever committed is on the disk.
    ///
    /// # Errors
    /// Some of it may not be, and a second call that succeeds says nothing about that.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |log| log.len())
    }
}
