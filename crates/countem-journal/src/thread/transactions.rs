//! The sequence of transactions: executing requests in one, and looking up the outcome of a commit that failed.

use std::{path::PathBuf, sync::Arc};

use countem_sqlite::{Displaced, OpenFile, Place, is_clean};

use crate::{
    config::JournalConfig,
    disk::{
        file::{BUSY_TIMEOUT, prepare_writing},
        lock::DirectoryLock,
        reserve::Reserve,
        witness::Witness,
    },
    error::{ErrorKind, Failure, JournalError},
    shared::Shared,
    tables::{contents::Contents, state::JournalState},
    thread::{fail_point, request::Request, transaction::Transaction},
};

/// State of the journal thread. The lock is the last field: it is released when everything else is closed.
pub(crate) struct Transactions {
    pub(crate) config: JournalConfig,
    pub(crate) path: PathBuf,
    /// The file that was opened: no other one is written, should another have its path.
    pub(crate) place: Option<Place>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) witness: Witness,
    pub(crate) reserve: Reserve,
    /// Maximum number of bytes of stored batches, by the configuration and by the size of the disk.
    pub(crate) history_bytes: u64,
    /// As of the newest transaction.
    pub(crate) state: JournalState,
    /// `None` after a failure: the next request opens the file again.
    pub(crate) file: Option<OpenFile>,
    /// Pages in the log that are not in the file yet.
    pub(crate) log_pages: u64,
    /// True while the transaction after the newest known one may have been committed.
    pub(crate) in_doubt: bool,
    /// The damage after which nothing is recorded any more.
    pub(crate) broken: Option<JournalError>,
    pub(crate) _lock: DirectoryLock,
}

/// A request in a transaction.
pub(crate) struct Entry {
    pub(crate) request: Box<dyn Request>,
    /// The reason why it has no part in the transaction.
    pub(crate) failure: Option<Failure>,
}

/// Outcome of a transaction.
pub(crate) enum Outcome {
    /// It was committed with this number.
    Committed(u64),
    /// No request had a part in it.
    Nothing,
    /// It was not committed.
    Failed(JournalError),
    /// It may or may not have been committed.
    InDoubt(JournalError),
}

/// Names of the fail points around a commit, by request.
const POINTS: [&str; 5] = ["accept", "record", "freeze", "resolve", "other"];

impl Entry {
    pub(crate) fn new(request: Box<dyn Request>) -> Self {
        Self { request, failure: None }
    }
}

impl Transactions {
    /// Executes `entries` in one transaction.
    pub(crate) fn run(&mut self, entries: &mut [Entry]) -> Outcome {
        if let Err(error) = self.ensure_open() {
            return Outcome::Failed(error);
        }
        let file = self.file.as_ref().expect("the file was opened just now");
        let mut next = self.state.clone();
        match self.execute(file, &mut next, entries) {
            Ok(true) => {}
            Ok(false) => {
                if file.connection.execute_batch("ROLLBACK").is_err() {
                    self.file = None;
                }
                return Outcome::Nothing;
            }
            Err(error) => return Outcome::Failed(self.roll_back(&error)),
        }
        let has = |point: &&str| {
            entries.iter().any(|entry| entry.failure.is_none() && entry.request.point() == *point)
        };
        let hit = |moment| {
            let mut points = POINTS.into_iter().filter(has);
            points.try_for_each(|point| fail_point::hit(&self.path, format_args!("{point}.{moment}")))
        };
        let committed =
            hit("before").and_then(|()| file.connection.execute_batch("COMMIT")).and_then(|()| hit("after"));
        match committed {
            Ok(()) => {
                self.state = next;
                // Without the witness the journal is as exact, and notices less damage.
                self.witness.write(self.state.tick).ok();
                Outcome::Committed(self.state.tick)
            }
            Err(error) if is_clean(&error) => Outcome::Failed(self.roll_back(&error)),
            Err(error) => {
                self.in_doubt = true;
                Outcome::InDoubt(JournalError::sqlite(&self.path, "commit to", &error))
            }
        }
    }

    /// Begins a transaction and executes the entries that can be. Returns whether there is anything to commit.
    fn execute(
        &self,
        file: &OpenFile,
        next: &mut JournalState,
        entries: &mut [Entry],
    ) -> rusqlite::Result<bool> {
        let connection = &file.connection;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let log_bytes = file.log_len();
        let mut rows = 0;
        let mut any = false;
        for entry in entries.iter_mut() {
            let before = next.clone();
            connection.prepare_cached("SAVEPOINT part")?.raw_execute()?;
            let mut transaction = Transaction {
                connection,
                path: &self.path,
                state: next,
                config: &self.config,
                history_bytes: self.history_bytes,
                log_pages: self.log_pages,
                log_bytes,
                rows,
            };
            let executed = entry.request.execute(&mut transaction);
            let rows_after = transaction.rows;
            match executed {
                Ok(()) => {
                    rows = rows_after;
                    any = true;
                    entry.failure = None;
                }
                Err(Failure::Sqlite(error)) => return Err(error),
                Err(failure) => {
                    connection.prepare_cached("ROLLBACK TO part")?.raw_execute()?;
                    *next = before;
                    entry.failure = Some(failure);
                }
            }
            connection.prepare_cached("RELEASE part")?.raw_execute()?;
        }
        if any {
            next.tick += 1;
            next.save(connection)?;
        }
        Ok(any)
    }

    /// Ends a transaction that failed with `error` before its commit record was written.
    fn roll_back(&mut self, error: &rusqlite::Error) -> JournalError {
        let described = JournalError::sqlite(&self.path, "write to", error);
        self.note_damage(&described);
        let keeps_connection = is_clean(error);
        self.file = self.file.take().filter(|file| {
            // SQLite may have rolled back by itself.
            let ended = file.connection.is_autocommit() || file.connection.execute_batch("ROLLBACK").is_ok();
            ended && keeps_connection
        });
        described
    }

    /// Opens the file if it is not open, and refuses to go on with one that was moved.
    fn ensure_open(&mut self) -> Result<(), JournalError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if self.in_doubt {
            self.find_outcome()?;
        }
        match self.file.as_mut().map(OpenFile::check_place) {
            // The file stays open, in case it is moved back.
            Some(place) => place.map_err(|displaced| self.displaced(displaced)),
            None => {
                let state = self.reopen()?.state;
                if state.tick != self.state.tick {
                    return Err(self.break_down());
                }
                self.state = state;
                Ok(())
            }
        }
    }

    /// Opens the file after a failure, and makes every transaction that is seen in it durable.
    ///
    /// The `fsync` is not repeated: the pages are written again, to the main file, and the log is emptied.
    fn reopen(&mut self) -> Result<Contents, JournalError> {
        if Place::of(&self.path) != self.place {
            let displaced = if self.path.exists() { Displaced::Replaced } else { Displaced::Gone };
            return Err(self.displaced(displaced));
        }
        let failed = |error: rusqlite::Error| JournalError::sqlite(&self.path, "open the journal", &error);
        let file = OpenFile::for_writing(&self.path, BUSY_TIMEOUT).map_err(failed)?;
        prepare_writing(&file).map_err(failed)?;
        file.empty_log().map_err(failed)?;
        let contents = self.read(&file)?;
        self.file = Some(file);
        self.log_pages = 0;
        Ok(contents)
    }

    fn read(&mut self, file: &OpenFile) -> Result<Contents, JournalError> {
        Contents::read(&file.connection).map_err(|error| {
            let error = error.of(&self.path);
            self.note_damage(&error);
            error
        })
    }

    /// Looks up whether the transaction after the newest known one was committed.
    ///
    /// # Errors
    /// That cannot be known now.
    pub(crate) fn find_outcome(&mut self) -> Result<bool, JournalError> {
        let outcome = self.try_to_find_outcome();
        match &outcome {
            Ok(_) => self.in_doubt = false,
            Err(error) => {
                self.file = None;
                self.note_damage(error);
            }
        }
        outcome
    }

    fn try_to_find_outcome(&mut self) -> Result<bool, JournalError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let failed = |error: rusqlite::Error| {
            JournalError::sqlite(&self.path, "find the outcome of a commit to", &error)
        };
        fail_point::hit(&self.path, format_args!("outcome")).map_err(failed)?;
        let contents = match self.file.take() {
            // The connection that failed to commit does not see the commit record, and empties the log of it.
            Some(file) => {
                if !file.connection.is_autocommit() {
                    file.connection.execute_batch("ROLLBACK").map_err(failed)?;
                }
                file.empty_log().map_err(failed)?;
                self.log_pages = 0;
                let contents = self.read(&file)?;
                self.file = Some(file);
                contents
            }
            None => self.reopen()?,
        };
        let is_committed = match contents.state.tick.checked_sub(self.state.tick) {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(self.break_down()),
        };
        self.state = contents.state;
        self.witness.write(self.state.tick).ok();
        Ok(is_committed)
    }

    fn displaced(&self, displaced: Displaced) -> JournalError {
        JournalError::new(
            ErrorKind::Unavailable,
            format!("cannot write to `{}`: {}", self.path.display(), displaced.why()),
        )
    }

    /// Gives up on a file that has lost transactions.
    fn break_down(&mut self) -> JournalError {
        self.file = None;
        let error = JournalError::corrupt(&self.path, "it has lost transactions that were committed");
        self.note_damage(&error);
        error
    }

    fn note_damage(&mut self, error: &JournalError) {
        if error.kind() == ErrorKind::Corrupt {
            self.broken = Some(error.clone());
        }
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        if let Some(displaced) = self.file.take_if(|file| file.check_place().is_err()) {
            displaced.abandon();
        }
    }
}
