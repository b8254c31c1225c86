//! What the writing thread is asked to do.

use std::path::Path;

use crate::{
    JournalConfig,
    connection::{FRAME_BYTES, OpenFile, PAGE_BYTES},
    error::JournalError,
    ledger::Ledger,
};

/// Told once, on the writing thread, what became of a request. Has to return soon and may ask for more.
pub(crate) type Done<T> = Box<dyn FnOnce(T) + Send>;

/// One request: part of a transaction, then an answer.
pub(crate) trait Task: Send {
    /// Which fail points its commit meets.
    fn place(&self) -> Place;

    /// Does its part of the transaction. May be asked again when the transaction did not take place.
    fn execute(&mut self, books: &mut Books<'_>) -> Result<(), Failure>;

    /// Tells the caller: the number of the transaction in which it took place, or why it did not.
    fn finish(self: Box<Self>, outcome: Result<u64, JournalError>);

    /// How urgent it is.
    fn urgency(&self) -> Urgency {
        Urgency::Now
    }
}

/// The names of the fail points around a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Record,
    Freeze,
    Resolve,
    Other,
}

/// How urgent a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// It is carried out at once, and fails when that is not possible.
    Now,
    /// It is carried out at once, and again until it succeeds.
    Insistent,
    /// It is carried out along with others, and again until it succeeds.
    Lazy,
}

/// Why a part of a transaction was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// SQLite failed, and the whole transaction with it.
    Sqlite(rusqlite::Error),
    /// The journal would grow beyond its bound. The rest of the transaction is not affected.
    NoRoom,
    /// This request cannot be carried out. The rest of the transaction is not affected.
    Refused(JournalError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Place {
    pub(crate) const ALL: [Self; 4] = [Self::Record, Self::Freeze, Self::Resolve, Self::Other];

    pub(crate) fn before(self) -> &'static str {
        match self {
            Self::Record => "record.before",
            Self::Freeze => "freeze.before",
            Self::Resolve => "resolve.before",
            Self::Other => "other.before",
        }
    }

    pub(crate) fn after(self) -> &'static str {
        match self {
            Self::Record => "record.after",
            Self::Freeze => "freeze.after",
            Self::Resolve => "resolve.after",
            Self::Other => "other.after",
        }
    }
}

/// What a request works on.
pub(crate) struct Books<'a> {
    pub(crate) file: &'a OpenFile,
    pub(crate) path: &'a Path,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) options: &'a JournalConfig,
    /// Pages in the log before this transaction.
    pub(crate) log_pages: u64,
    /// Bytes of the log before this transaction.
    pub(crate) log_bytes: u64,
    /// Rows of the table `pending` that the transaction has changed so far.
    pub(crate) rows: u64,
}

impl Books<'_> {
    /// Tells whether the files would keep within their bound if the transaction were committed now.
    pub(crate) fn has_room(&self) -> rusqlite::Result<bool> {
        let pages = self.file.pages()?;
        // Every row changes at most one page of the table, a new one now and then the pages above it, too; and however
        // many rows there are, no page is written twice.
        let written = (self.rows + SPARE_PAGES).min(pages);
        let log = self.log_bytes.max((self.log_pages + written) * FRAME_BYTES);
        Ok(pages * PAGE_BYTES + log <= self.options.max_bytes)
    }
}

/// Pages that a transaction writes beside those of its rows: the state and the upper levels of trees.
const SPARE_PAGES: u64 = 8;
