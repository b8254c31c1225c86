//! One transaction at a time: carrying out requests, and finding out what became of a commit that failed.

use std::{path::PathBuf, sync::Arc};

use crate::{
    JournalConfig,
    connection::{FRAME_BYTES, OpenFile, PAGE_BYTES, bytes_of, log_of},
    error::{ErrorKind, JournalError, is_clean_commit_failure, is_disk_full},
    ledger::{Contents, Ledger, Resolved},
    lock::DirectoryLock,
    request::RoomTask,
    reserve::Reserve,
    status::Shared,
    task::{Books, Failure, Place, Task},
    witness::Witness,
};

/// What the writing thread owns. The lock is the last field: it is given back when everything else is closed.
pub(crate) struct Session {
    pub(crate) options: JournalConfig,
    pub(crate) path: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) witness: Witness,
    pub(crate) reserve: Reserve,
    /// As of the newest transaction.
    pub(crate) ledger: Ledger,
    /// `None` after a failure: the next request opens the file anew.
    pub(crate) file: Option<OpenFile>,
    /// Pages in the log that the file has not got yet.
    pub(crate) log_pages: u64,
    /// Whether the transaction after the newest known one may have taken place.
    pub(crate) unsettled: bool,
    /// Why nothing can be recorded any more.
    pub(crate) broken: Option<JournalError>,
    pub(crate) _lock: DirectoryLock,
}

/// A request in a transaction.
pub(crate) struct Slot {
    pub(crate) task: Box<dyn Task>,
    /// Why it has no part in the transaction.
    pub(crate) failure: Option<Failure>,
}

/// What became of a transaction.
pub(crate) enum Outcome {
    /// It has this number.
    Committed(u64),
    /// No request had a part in it.
    Nothing,
    /// It did not take place.
    Failed(JournalError),
    /// It may or may not have taken place.
    Doubtful(JournalError),
}

/// The log is moved into the file when it has this many pages: 2 MiB, some dozens of commits of a thousand counters.
const CHECKPOINT_PAGES: u64 = 512;

/// The log is moved into the file when it has this many pages by which the file has to grow.
const GROWTH_PAGES: u64 = 32;

/// Pages without content that are not worth giving back.
const KEPT_FREE_PAGES: u64 = 256;

impl Slot {
    pub(crate) fn new(task: Box<dyn Task>) -> Self {
        Self { task, failure: None }
    }
}

impl Session {
    /// Carries out `slots` in one transaction.
    pub(crate) fn transact(&mut self, slots: &mut [Slot]) -> Outcome {
        if let Err(error) = self.reopen() {
            return Outcome::Failed(error);
        }
        let file = self.file.as_ref().expect("the file was opened just now");
        let mut next = self.ledger.clone();
        let failed = match execute(file, &mut next, slots, self) {
            Ok(true) => None,
            Ok(false) => return self.undo_nothing(),
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            return Outcome::Failed(self.undo(&error));
        }
        let places = Place::ALL
            .into_iter()
            .filter(|place| slots.iter().any(|slot| slot.failure.is_none() && slot.task.place() == *place));
        let points = &self.options.fail_points();
        let committed = places.clone().try_for_each(|place| points.hit(place.before()));
        let committed = committed.and_then(|()| file.connection.execute_batch("COMMIT"));
        let committed =
            committed.and_then(|()| places.clone().try_for_each(|place| points.hit(place.after())));
        match committed {
            Ok(()) => {
                self.ledger = next;
                // Without the witness the journal is as exact, only less suspicious of its file.
                self.witness.note(self.ledger.tick).ok();
                Outcome::Committed(self.ledger.tick)
            }
            Err(error) if is_clean_commit_failure(&error) => Outcome::Failed(self.undo(&error)),
            Err(error) => {
                self.unsettled = true;
                Outcome::Doubtful(JournalError::sqlite(&self.path, "commit to", &error))
            }
        }
    }

    fn undo_nothing(&mut self) -> Outcome {
        let file = self.file.as_ref().expect("the file is open during a transaction");
        if file.connection.execute_batch("ROLLBACK").is_err() {
            self.file = None;
        }
        Outcome::Nothing
    }

    /// Ends a transaction that failed with `error` before its commit record was written.
    fn undo(&mut self, error: &rusqlite::Error) -> JournalError {
        let described = JournalError::sqlite(&self.path, "write to", error);
        if described.kind() == ErrorKind::Corrupt {
            self.broken = Some(described.clone());
        }
        let keeps_connection = is_clean_commit_failure(error);
        self.file = self.file.take().filter(|file| {
            // SQLite may have rolled back by itself.
            let ended = file.connection.is_autocommit() || file.connection.execute_batch("ROLLBACK").is_ok();
            ended && keeps_connection
        });
        described
    }

    /// Sees to it that the file is open.
    fn reopen(&mut self) -> Result<(), JournalError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if self.unsettled {
            self.settle()?;
        }
        if self.file.as_ref().is_some_and(|file| !file.is_current()) {
            // What is written to a deleted file is found by nobody. It stays open, in case it is put back.
            return Err(JournalError::new(
                ErrorKind::Unavailable,
                format!("cannot write to `{}`: the journal was moved or deleted", self.path.display()),
            ));
        }
        if self.file.is_some() {
            return Ok(());
        }
        let contents = self.open_again()?;
        if contents.ledger.tick != self.ledger.tick {
            return Err(self.breaks("it has forgotten what was written"));
        }
        self.ledger = contents.ledger;
        Ok(())
    }

    fn breaks(&mut self, why: &str) -> JournalError {
        self.file = None;
        let error = JournalError::corrupt(&self.path, why);
        self.broken = Some(error.clone());
        error
    }

    /// Opens the file after a failure, and makes durable whatever is seen in it.
    ///
    /// An `fsync` that failed once may succeed the second time without having written anything. So it is not repeated:
    /// the pages are written again, to the main file, and the log is emptied with whatever it has besides.
    fn open_again(&mut self) -> Result<Contents, JournalError> {
        if !self.path.exists() {
            return Err(JournalError::new(
                ErrorKind::Unavailable,
                format!("cannot write to `{}`: the journal was moved or deleted", self.path.display()),
            ));
        }
        let failed = |error: rusqlite::Error| JournalError::sqlite(&self.path, "open the journal", &error);
        let file = OpenFile::open(&self.path).map_err(failed)?;
        file.prepare_writing().map_err(failed)?;
        file.empty_log().map_err(failed)?;
        let contents = Contents::read(&file.connection, &self.path);
        if let Err(error) = &contents
            && error.kind() == ErrorKind::Corrupt
        {
            self.broken = Some(error.clone());
        }
        let contents = contents?;
        self.file = Some(file);
        self.log_pages = 0;
        Ok(contents)
    }

    /// Finds out whether the transaction after the newest known one took place.
    ///
    /// # Errors
    /// It cannot be known now.
    pub(crate) fn settle(&mut self) -> Result<bool, JournalError> {
        let settled = self.try_settle();
        match &settled {
            Ok(_) => self.unsettled = false,
            Err(error) => {
                self.file = None;
                if error.kind() == ErrorKind::Corrupt {
                    self.broken = Some(error.clone());
                }
            }
        }
        settled
    }

    fn try_settle(&mut self) -> Result<bool, JournalError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let failed =
            |error: rusqlite::Error| JournalError::sqlite(&self.path, "find out about a commit to", &error);
        self.options.fail_points().hit("settle").map_err(failed)?;
        let contents = match &self.file {
            // The connection that failed to commit does not see the commit record, and so it empties the log of it.
            Some(file) => {
                if !file.connection.is_autocommit() {
                    file.connection.execute_batch("ROLLBACK").map_err(failed)?;
                }
                file.empty_log().map_err(failed)?;
                self.log_pages = 0;
                Contents::read(&file.connection, &self.path)?
            }
            None => self.open_again()?,
        };
        let took_place = match contents.ledger.tick.checked_sub(self.ledger.tick) {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(self.breaks("it has forgotten what was written")),
        };
        self.ledger = contents.ledger;
        self.witness.note(self.ledger.tick).ok();
        Ok(took_place)
    }

    /// Keeps the log short and the file no larger than need be. Failures are harmless, and the next request meets them.
    pub(crate) fn maintain(&mut self) {
        let Some(file) = &self.file else { return };
        let limit = CHECKPOINT_PAGES.min(self.options.max_bytes / (4 * FRAME_BYTES)).max(1);
        let maintained = file.log_pages().and_then(|pages| {
            self.log_pages = pages;
            // The log must not hold much that the file has no place for, or a full disk could keep it there for ever.
            let growth = file.pages()?.saturating_sub(bytes_of(&self.path).unwrap_or(0) / PAGE_BYTES);
            if pages < limit && growth < GROWTH_PAGES {
                return Ok(());
            }
            self.options.fail_points().hit("checkpoint")?;
            if file.checkpoint()? {
                self.log_pages = 0;
            }
            // A log is written again from its beginning, which is much faster than letting it grow again. One that a large
            // transaction has left behind is worth the space, though.
            if bytes_of(&log_of(&self.path)).unwrap_or(0) > 2 * limit * FRAME_BYTES {
                file.try_to_empty_log()?;
            }
            let (pages, free) = (file.pages()?, file.free_pages()?);
            if free > KEPT_FREE_PAGES && free > pages / 4 {
                // In portions, so that nobody waits for long.
                file.vacuum((free - KEPT_FREE_PAGES).min(CHECKPOINT_PAGES))?;
            }
            Ok(())
        });
        if maintained.is_err_and(|error| !is_clean_commit_failure(&error)) {
            self.file = None;
        }
    }

    /// Frees what can be freed without losing a count, a part at a time. Returns whether it is worth trying again.
    pub(crate) fn make_room(&mut self) -> bool {
        // What the log holds is mostly older versions of the same pages.
        let Some(file) = &self.file else { return false };
        if bytes_of(&log_of(&self.path)).unwrap_or(0) > 0 {
            let points = self.options.fail_points();
            let mut emptied = points.hit("room").and_then(|()| file.empty_log());
            if emptied.as_ref().is_err_and(is_disk_full) && self.reserve.give_up() {
                emptied = file.empty_log();
            }
            return self.made_room(emptied);
        }
        let Resolved { batches, bytes } = self.ledger.resolved;
        if batches > 0 {
            let keep = if bytes > 1 << 20 { bytes / 2 } else { 0 };
            let mut slots = [Slot::new(Box::new(RoomTask { keep }))];
            return matches!(self.transact(&mut slots), Outcome::Committed(_));
        }
        let vacuumed = file.free_pages().and_then(|free| file.vacuum(free).map(|()| free));
        let any = vacuumed.as_ref().is_ok_and(|free| *free > 0);
        any && self.made_room(vacuumed)
    }

    fn made_room<T>(&mut self, outcome: rusqlite::Result<T>) -> bool {
        match outcome {
            Ok(_) => {
                self.log_pages = 0;
                true
            }
            Err(error) => {
                if !is_clean_commit_failure(&error) {
                    self.file = None;
                }
                false
            }
        }
    }
}

/// Begins a transaction and executes what can be executed in it. Returns whether there is anything to commit.
fn execute(
    file: &OpenFile,
    next: &mut Ledger,
    slots: &mut [Slot],
    session: &Session,
) -> rusqlite::Result<bool> {
    let connection = &file.connection;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let log_bytes = bytes_of(&log_of(&session.path)).unwrap_or(0);
    let mut rows = 0;
    let mut any = false;
    for slot in slots.iter_mut() {
        let before = next.clone();
        connection.prepare_cached("SAVEPOINT part")?.raw_execute()?;
        let mut books = Books {
            file,
            path: &session.path,
            ledger: next,
            options: &session.options,
            log_pages: session.log_pages,
            log_bytes,
            rows,
        };
        let done = slot.task.execute(&mut books);
        let touched = books.rows;
        match done {
            Ok(()) => {
                rows = touched;
                any = true;
                slot.failure = None;
            }
            Err(Failure::Sqlite(error)) => return Err(error),
            Err(failure) => {
                connection.prepare_cached("ROLLBACK TO part")?.raw_execute()?;
                *next = before;
                slot.failure = Some(failure);
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
