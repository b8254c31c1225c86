//! The one connection that writes, on a thread of its own or on that of whoever asks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread::JoinHandle,
};

use countem_core::{BatchId, Writer};
use countem_store::{Applied, ErrorKind, StoreError};
use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::{
    SqliteConfig,
    apply::{self, Failure, Outcome},
    batch::OwnedBatch,
    connection::{Commits, LOG_LIMIT, OpenFile},
    error::{is_clean_commit_failure, is_io_failure, keeps_connection, store_error},
};

/// How many calls may wait for the writing thread; further ones wait for a place (I8).
const QUEUE: usize = 16;

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// Who uses the writing connection. Dropping it finishes what was asked and closes the connection.
#[derive(Debug)]
pub(crate) enum WriteWorker {
    /// A thread of its own, which gives its turn to write back after every call.
    Thread(WriteThread),
    /// Whoever asks. It keeps its turn until the end, because the end is near.
    Caller(Box<Mutex<Session>>),
}

impl WriteWorker {
    /// Opens the file on the calling thread, so that what is wrong with it is known at once.
    pub(crate) fn start(options: SqliteConfig) -> Result<Self, StoreError> {
        let is_one_shot = options.one_shot;
        let mut session = Session::new(options);
        session.connection()?;
        match is_one_shot {
            true => Ok(Self::Caller(Box::new(Mutex::new(session)))),
            false => WriteThread::start(session).map(Self::Thread),
        }
    }

    /// Has `work` done after what was asked before, without waiting for it where a thread does it.
    pub(crate) async fn tell(
        &self,
        work: impl FnOnce(&mut Session) + Send + 'static,
    ) -> Result<(), StoreError> {
        match self {
            Self::Thread(thread) => thread.tell(Box::new(work)).await,
            Self::Caller(session) => {
                session.lock().work(work);
                Ok(())
            }
        }
    }

    /// Has `work` done after what was asked before.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.tell(move |session| {
            // A caller that no longer waits has no use for the answer.
            reply.send(work(session)).ok();
        })
        .await?;
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::new(ErrorKind::InDoubt, "writing panicked; the file will be opened anew"))
        })
    }
}

/// The thread that owns the writing connection. Dropping it finishes the queue and closes the connection.
#[derive(Debug)]
pub(crate) struct WriteThread {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl WriteThread {
    fn start(mut session: Session) -> Result<Self, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let work = move || {
            while let Some(job) = queue.blocking_recv() {
                session.work(job);
                // The last one closes in the same turn.
                if !(queue.is_closed() && queue.is_empty()) {
                    session.end_turn();
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("countem-sqlite-writer".to_owned())
            .spawn(work)
            .map_err(|error| {
                StoreError::new(ErrorKind::NotApplied, "cannot start the writing thread").with_source(error)
            })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    async fn tell(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.jobs.as_ref().expect("the queue is there until the thread is dropped");
        let stopped = |_| StoreError::new(ErrorKind::NotApplied, "the writing thread has stopped");
        jobs.send(job).await.map_err(stopped)
    }
}

impl Drop for WriteThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writing thread of an sqlite store panicked at its end");
        }
    }
}

/// What whoever writes knows.
#[derive(Debug)]
pub(crate) struct Session {
    options: SqliteConfig,
    /// `None` after a failure: the next call opens the file anew.
    file: Option<OpenFile>,
    /// Whether a commit failed in a way after which what can be read may not be on the disk.
    suspect: bool,
    /// From this length on the log is made shorter.
    log_limit: u64,
}

impl Session {
    fn new(options: SqliteConfig) -> Self {
        Self { options, file: None, suspect: false, log_limit: LOG_LIMIT }
    }

    /// Does what was asked, and survives it when that panics.
    fn work(&mut self, job: impl FnOnce(&mut Self)) {
        // Unwinding dropped the caller's reply, which tells the caller. The connection, in whatever state it is, is not used
        // again.
        let work = AssertUnwindSafe(|| {
            job(self);
            self.shorten_log();
        });
        if catch_unwind(work).is_err() {
            self.file = None;
            self.suspect = true;
        }
    }

    /// Returns the connection; opens the file if need be.
    pub(crate) fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        self.open().map(|file| &mut file.connection)
    }

    /// Waits for the turn to write.
    fn take_turn(&mut self) -> Result<&mut OpenFile, StoreError> {
        self.open()?.begin_turn();
        // It may have been moved meanwhile.
        self.open()
    }

    fn open(&mut self) -> Result<&mut OpenFile, StoreError> {
        if let Some(moved) = self.file.take_if(|file| !file.is_current()) {
            tracing::warn!(path = %self.options.path.display(), "the database file was moved or deleted");
            moved.abandon();
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenFile::for_writing(&self.options)?,
        };
        if self.suspect {
            self.settle(&file.connection)?;
            self.suspect = false;
        }
        Ok(self.file.insert(file))
    }

    /// Makes durable whatever the connection sees, and impossible whatever it does not see.
    ///
    /// An `fsync` that failed once may succeed the second time without having written anything. So it is not repeated:
    /// the checkpoint writes the pages again, to the main file, and empties the log with any unfinished commit in it.
    fn settle(&self, connection: &Connection) -> Result<(), StoreError> {
        let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        match busy {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.in_doubt("other connections do not let its log be emptied")),
            Err(error) => Err(self.in_doubt("its log cannot be emptied").with_source(error)),
        }
    }

    fn in_doubt(&self, why: &str) -> StoreError {
        let path = self.options.path.display();
        StoreError::new(ErrorKind::InDoubt, format!("a commit to `{path}` failed and {why}"))
    }

    fn failed(&mut self, attempt: &str, error: rusqlite::Error) -> StoreError {
        if !keeps_connection(&error) {
            self.file = None;
        }
        store_error(&self.options.path, attempt, error)
    }

    /// Adds a batch exactly once.
    pub(crate) fn apply(&mut self, batch: &OwnedBatch) -> Result<Applied, StoreError> {
        let applied = self.add(batch);
        if applied.is_err() {
            // The end is not near any more.
            self.end_turn();
        }
        applied
    }

    fn add(&mut self, batch: &OwnedBatch) -> Result<Applied, StoreError> {
        let synchronous = self.options.synchronous;
        let file = self.take_turn()?;
        let ready = file.commit_like(Commits::Counts(synchronous)).map_err(Failure::BeforeCommit);
        match ready.and_then(|()| apply::apply(&mut file.connection, batch)) {
            Ok(Outcome::Added(applied)) => Ok(applied),
            Ok(Outcome::Found(applied)) => match file.sync_found(synchronous) {
                Ok(()) => Ok(applied),
                Err(error) => self.decide(batch.id(), error),
            },
            Err(Failure::BeforeCommit(error)) => Err(self.failed("write to", error)),
            Err(Failure::Commit(error)) if is_clean_commit_failure(&error) => {
                Err(self.failed("write to", error))
            }
            Err(Failure::Commit(error)) => self.decide(batch.id(), error),
        }
    }

    /// Makes sure that a mark that was found is there for good.
    pub(crate) fn keep_found(&mut self) -> Result<(), StoreError> {
        let synchronous = self.options.synchronous;
        self.open()?.sync_found(synchronous).map_err(|error| {
            self.suspect = true;
            self.failed("read", error)
        })
    }

    /// Finds out with a new connection whether a commit that failed with `error` took place.
    fn decide(&mut self, id: &BatchId, error: rusqlite::Error) -> Result<Applied, StoreError> {
        tracing::warn!(path = %self.options.path.display(), batch = %id, %error, "a commit failed");
        self.file = None;
        self.suspect = true;
        let found = match self.connection() {
            Ok(connection) => apply::already_applied(connection, id).map_err(|cause| {
                self.in_doubt("it cannot be known whether it took place").with_source(cause)
            }),
            Err(cause) => Err(self.in_doubt("it cannot be known whether it took place").with_source(cause)),
        };
        match found? {
            Some(applied) => Ok(applied),
            None => Err(store_error(&self.options.path, "write to", error)),
        }
    }

    /// Deletes the bookkeeping of `writer`, without an `fsync` of its own: a deletion that a power cut undoes is harmless.
    pub(crate) fn forget(&mut self, writer: &Writer) -> Result<(), StoreError> {
        let file = self.take_turn()?;
        let deleted = file.commit_like(Commits::Bookkeeping).and_then(|()| {
            file.connection.execute("DELETE FROM applied WHERE writer = ?1", [writer.as_str()])
        });
        deleted.map(|_| ()).map_err(|error| self.failed("write to", error))
    }

    /// Lets the next process write.
    fn end_turn(&mut self) {
        if let Some(file) = &mut self.file {
            file.end_turn();
        }
    }

    /// Starts the log from its beginning when it has become too long.
    ///
    /// Commits do that by themselves as long as there is a moment without a reader. Where readers follow each other without a
    /// gap, somebody has to wait until those that still need the log have finished.
    fn shorten_log(&mut self) {
        let Some(file) = &self.file else { return };
        let length = file.log_len();
        if length <= self.log_limit {
            return;
        }
        let restart = "PRAGMA wal_checkpoint(RESTART)";
        let is_busy = file.connection.query_row(restart, [], |row| row.get::<_, bool>(0));
        tracing::debug!(path = %self.options.path.display(), length, ?is_busy, "tried to shorten the log");
        // Who holds a transaction open for hours must not cost every batch the busy timeout.
        self.log_limit = if is_busy == Ok(false) { LOG_LIMIT } else { length * 2 };
        if is_busy.is_err_and(|error| is_io_failure(&error)) {
            // The next `fsync` may succeed without having written what this one did not.
            self.file = None;
            self.suspect = true;
        }
    }

    /// Checks that the tables are there and can be written.
    pub(crate) fn check(&mut self) -> Result<(), StoreError> {
        let connection = &mut self.take_turn()?.connection;
        let checked = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|it| {
            apply::prepare_statements(&it)?;
            it.rollback()
        });
        checked.map_err(|error| self.failed("write to", error))
    }
}

#[cfg(test)]
mod tests;
