//! A connection that only reads.

use std::time::Instant;

use countem_sqlite::{OpenFile, is_clean};
use countem_store::{ErrorKind, StoreError};
use rusqlite::Connection;

use crate::{SqliteConfig, error::store_error};

/// Opens the file for reading, in one of the ways of [`open`](crate::open).
pub(super) type Open = fn(&SqliteConfig) -> Result<OpenFile, StoreError>;

/// State of a reading connection.
#[derive(Debug)]
pub(super) struct ReadConnection {
    config: SqliteConfig,
    open: Open,
    /// `None` before the first read and after a failure.
    file: Option<OpenFile>,
}

impl ReadConnection {
    pub(super) fn new(config: SqliteConfig, open: Open) -> Self {
        Self { config, open, file: None }
    }

    /// Runs `work` on the connection; opens the file if need be, also when another file has its path. Repeats it when the file
    /// was changed while a connection without locks read it.
    pub(super) fn read<T>(
        &mut self,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        loop {
            let file = match self.file.take_if(|file| file.is_current() && file.is_unchanged()) {
                Some(file) => file,
                None => (self.open)(&self.config)?,
            };
            let file = self.file.insert(file);
            let result = work(&mut file.connection);
            if file.is_unchanged() {
                return result.map_err(|error| {
                    if !is_clean(&error) {
                        self.file = None;
                    }
                    store_error(&self.config.path, "read", error)
                });
            }
            self.file = None;
            if began.elapsed() >= self.config.busy_timeout {
                let path = self.config.path.display();
                let why = format!(
                    "cannot read `{path}`: it changed during every attempt, and without the right to write it and its folder there is no lock that holds a state of it"
                );
                return Err(StoreError::new(ErrorKind::NotApplied, why));
            }
        }
    }

    /// Closes the file after a panic left the connection in an unknown state.
    pub(super) fn close(&mut self) {
        self.file = None;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::*;
    use crate::open;

    #[test]
    fn read_without_locks_repeats_until_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig::new(folder.path().join("x.db"));
        let writer = open::for_writing(&config).unwrap();
        let add =
            "INSERT INTO counter VALUES ('c', 'all', 'm', 1) ON CONFLICT DO UPDATE SET value = value + 1";
        writer.connection.execute(add, []).unwrap();
        let attempts = Cell::new(0);
        let read = |changes: i64, busy_timeout| {
            attempts.set(0);
            let config = SqliteConfig { busy_timeout, ..config.clone() };
            ReadConnection::new(config, open::for_reading_only).read(|connection| {
                let value = connection.query_row("SELECT value FROM counter", [], |row| row.get::<_, i64>(0));
                attempts.set(attempts.get() + 1);
                if attempts.get() <= changes {
                    writer.connection.execute(add, [])?;
                }
                value
            })
        };
        assert_eq!(read(0, Duration::MAX).unwrap(), 1);
        assert_eq!(read(2, Duration::MAX).unwrap(), 3, "the state of the last attempt");
        assert_eq!(attempts.get(), 3);
        let error = read(i64::MAX, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotApplied);
        assert!(error.to_string().contains("it changed during every attempt"), "{error}");
    }
}
