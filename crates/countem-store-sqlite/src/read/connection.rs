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
