//! The schedules by which the pending counts of a journal were counted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use countem_core::Schedules;

/// A file beside a journal. Without it, a later process whose store has other schedules could not tell what it may store.
#[derive(Debug, Clone)]
pub(crate) struct KeptSchedules {
    path: PathBuf,
}

impl KeptSchedules {
    pub(crate) fn beside_journal(dir: &Path) -> Self {
        Self { path: dir.join("schedule") }
    }

    /// Returns the schedules, `None` beside a journal of a countem that kept none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(&self) -> io::Result<Option<Schedules>> {
        match fs::read_to_string(&self.path) {
            Ok(text) => text.trim_end().parse().map(Some).map_err(|error| self.failed("read", error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    /// Replaces the schedules, durably.
    ///
    /// # Errors
    /// The file cannot be written; the old one stays.
    pub(crate) fn write(&self, schedules: &Schedules) -> io::Result<()> {
        self.replace(schedules).map_err(|error| self.failed("write", error))
    }

    fn replace(&self, schedules: &Schedules) -> io::Result<()> {
        let new = self.path.with_extension("new");
        if let Err(error) = fs::remove_file(&new)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        // Follows no link.
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        writeln!(file, "{schedules}")?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        if let Some(dir) = self.path.parent().filter(|_| cfg!(unix)) {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    fn failed(&self, attempt: &str, error: impl std::fmt::Display) -> io::Error {
        io::Error::other(format!("cannot {attempt} `{}`: {error}", self.path.display()))
    }
}
