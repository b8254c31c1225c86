//! A connection that only reads.

use countem_sqlite::{OpenFile, is_clean};
use countem_store::StoreError;
use rusqlite::Connection;

use crate::{SqliteConfig, error::store_error, open};

/// State of a reading connection.
#[derive(Debug)]
pub(super) struct ReadConnection {
    config: SqliteConfig,
    /// `None` before the first read and after a failure.
    file: Option<OpenFile>,
}

impl ReadConnection {
    pub(super) fn new(config: SqliteConfig) -> Self {
        Self { config, file: None }
    }

    /// Runs `work` on the connection; opens the file if need be, also when another file has its path.
    pub(super) fn read<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let file = match self.file.take_if(|file| file.is_current()) {
            Some(file) => file,
            None => open::for_reading(&self.config)?,
        };
        let file = self.file.insert(file);
        work(&mut file.connection).map_err(|error| {
            if !is_clean(&error) {
                self.file = None;
            }
            store_error(&self.config.path, "read", error)
        })
    }

    /// Closes the file after a panic left the connection in an unknown state.
    pub(super) fn close(&mut self) {
        self.file = None;
    }
}
