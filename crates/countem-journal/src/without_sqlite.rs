//! The handle in a build without SQLite.

use std::sync::Arc;

use countem_core::{Batch, BatchId, Writer};

use crate::{
    ErrorKind, JournalConfig, JournalError, KeyedEntry, Quarantined, Record, Recorded, Recovered, Refused,
    Status,
};

type Outcome<T> = Result<T, JournalError>;

/// A journal, of which there is none: it cannot be opened without the feature `sqlite`.
#[derive(Debug)]
pub enum Journal {}

impl Journal {
    /// Fails.
    ///
    /// # Errors
    /// Always: [`ErrorKind::Refused`].
    pub fn open(_: JournalConfig) -> Outcome<(Self, Recovered)> {
        Err(JournalError::new(
            ErrorKind::Refused,
            "cannot open a journal: built without the feature `journal`",
        ))
    }

    /// Cannot be called.
    pub fn writer(&self) -> Writer {
        match *self {}
    }

    /// Cannot be called.
    pub fn status(&self) -> Status {
        match *self {}
    }

    /// Cannot be called.
    pub fn record(&self, _: Record, _: impl FnOnce(Result<Recorded, Refused>) + Send + 'static) {
        match *self {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[allow(clippy::result_large_err, reason = "the error gives the record back")]
    pub fn record_blocking(&self, _: Record) -> Result<Recorded, Refused> {
        match *self {}
    }

    /// Cannot be called.
    pub fn accept(&self, _: Vec<Arc<KeyedEntry>>, _: impl FnOnce(Outcome<()>) + Send + 'static) {
        match *self {}
    }

    /// Cannot be called.
    pub fn freeze<'a>(
        &self,
        _: u16,
        _: impl IntoIterator<Item = &'a Batch>,
        _: impl FnOnce(Outcome<()>) + Send + 'static,
    ) {
        match *self {}
    }

    /// Cannot be called.
    pub fn resolve(&self, _: &BatchId, _: Vec<Quarantined>, _: impl FnOnce(Outcome<()>) + Send + 'static) {
        match *self {}
    }

    /// Cannot be called.
    pub fn sync(&self, _: impl FnOnce(Outcome<()>) + Send + 'static) {
        match *self {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn quarantine_pending_blocking(&self, _: impl Into<String>) -> Outcome<usize> {
        match *self {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn fresh_identity_blocking(&self) -> Outcome<Writer> {
        match *self {}
    }
}
