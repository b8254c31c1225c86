//! The connection that writes.

use std::time::{Duration, Instant};

use countem_core::{
    Batch, BatchId, Bucket, Claim, CollectionName, MetricName, Schedules, Writer, jiff::Timestamp,
};
use countem_sqlite::{Cause, Displaced, OpenFile, Place, is_clean};
use countem_store::{Applied, Claimed, ErrorKind, Held, Registration, Release, Released, StoreError};
use rusqlite::{Connection, Error, TransactionBehavior};

use crate::{
    SqliteConfig, Synchronous,
    apply::{self, Failure, Outcome},
    claims::{self, Outcomes},
    error::store_error,
    expiry::{self, Expired},
    open::{self, LOG_LIMIT},
    quarantine, register, retired, schedule, zeros,
};

/// Minimum time between two looks for writers that are retired for long enough.
const PRUNING_INTERVAL: Duration = Duration::from_secs(3600);

/// State of the writing connection.
#[derive(Debug)]
pub(crate) struct WriteConnection {
    pub(super) config: SqliteConfig,
    /// `None` after a failure: the next call opens the file anew.
    pub(super) file: Option<OpenFile>,
    /// The file that was opened first; `None` before.
    place: Option<Place>,
    /// A commit or an `fsync` failed: what can be read may not be on the disk.
    pub(super) in_doubt: bool,
    /// Length of the log in bytes from which on it is made shorter.
    pub(super) log_limit: u64,
    /// When no writer was left that is retired for long enough.
    pruned: Option<Instant>,
}

impl WriteConnection {
    pub(super) fn open(config: SqliteConfig) -> Result<Self, StoreError> {
        let mut connection =
            Self { config, file: None, place: None, in_doubt: false, log_limit: LOG_LIMIT, pruned: None };
        connection.file()?;
        Ok(connection)
    }

    /// Returns the file; opens it if need be.
    fn file(&mut self) -> Result<&mut OpenFile, StoreError> {
        if let Some(file) = &mut self.file
            && let Err(displaced) = file.check_place()
        {
            // The file stays open, in case it is moved back.
            let path = self.config.path.display();
            let why = format!("cannot write to `{path}`: {}", displaced.why());
            return Err(StoreError::new(ErrorKind::NotApplied, why));
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open_same()?,
        };
        if self.in_doubt {
            file.empty_log().map_err(|error| match Cause::of(&error) {
                Cause::Busy => self.doubt("other connections do not let its log be emptied"),
                _ => self.doubt("its log cannot be emptied").with_source(error),
            })?;
            self.in_doubt = false;
        }
        Ok(self.file.insert(file))
    }

    /// Opens the file; the same one as the first time, if this is not the first time.
    fn open_same(&mut self) -> Result<OpenFile, StoreError> {
        let path = &self.config.path;
        if self.place.is_some_and(|place| Place::of(path) != Some(place)) {
            let displaced = if path.exists() { Displaced::Replaced } else { Displaced::Gone };
            let why = format!("cannot write to `{}`: {}", path.display(), displaced.why());
            return Err(StoreError::new(ErrorKind::NotApplied, why));
        }
        let file = open::for_writing(&self.config)?;
        self.place = Place::of(&self.config.path);
        Ok(file)
    }

    /// Returns the connection; opens the file if need be.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        self.file().map(|file| &mut file.connection)
    }

    /// Drops the connection, and relies on nothing in the file before the log has been emptied.
    pub(super) fn distrust(&mut self) {
        self.file = None;
        self.in_doubt = true;
    }

    fn doubt(&self, why: &str) -> StoreError {
        let path = self.config.path.display();
        StoreError::new(ErrorKind::InDoubt, format!("a commit to `{path}` failed and {why}"))
    }

    /// Describes a failure after which nothing is in doubt.
    fn failed(&mut self, attempt: &str, error: Error) -> StoreError {
        if !is_clean(&error) {
            self.file = None;
        }
        store_error(&self.config.path, attempt, error)
    }

    /// Adds a batch exactly once.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Result<Applied, StoreError> {
        match apply::apply(self.connection()?, batch) {
            Ok(Outcome::Added(applied)) => Ok(applied),
            Ok(Outcome::Conflict) => {
                let key = batch.mark().map_or("", |mark| mark.key.as_str());
                Err(StoreError::conflict(key))
            }
            Ok(Outcome::Found(applied)) => match self.sync_log() {
                Ok(()) => Ok(applied),
                Err(error) => self.decide(batch.id(), error),
            },
            Err(Failure::Commit(error)) if !is_clean(&error) => self.decide(batch.id(), error),
            Err(Failure::BeforeCommit(error) | Failure::Commit(error)) => Err(self.failed("write to", error)),
        }
    }

    /// Claims keys. After a commit that failed it is not known which were claimed.
    pub(crate) fn claim(&mut self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        let synced = match claims::claim(self.connection()?, claims, now) {
            Ok(Outcomes { claimed, is_found: false }) => return Ok(claimed),
            Ok(Outcomes { claimed, is_found: true }) => self.sync_log().map(|()| claimed),
            Err(Failure::Commit(error)) if !is_clean(&error) => Err(error),
            Err(Failure::BeforeCommit(error) | Failure::Commit(error)) => {
                return Err(self.failed("write to", error));
            }
        };
        synced.map_err(|error| {
            self.distrust();
            self.doubt("it is not known which keys were claimed").with_source(error)
        })
    }

    /// Syncs the log, if commits do.
    fn sync_log(&self) -> rusqlite::Result<()> {
        match (&self.file, self.config.synchronous) {
            (Some(file), Synchronous::Full) => file.sync_log(),
            _ => Ok(()),
        }
    }

    /// Makes marks that were found in the file durable, before they are relied on.
    pub(crate) fn sync_found(&mut self) -> Result<(), StoreError> {
        self.file()?;
        self.sync_log().map_err(|error| {
            self.distrust();
            store_error(&self.config.path, "read", error)
        })
    }

    /// Finds out with a new connection whether a commit that failed with `error` took place.
    pub(super) fn decide(&mut self, id: &BatchId, error: Error) -> Result<Applied, StoreError> {
        tracing::warn!(path = %self.config.path.display(), batch = %id, %error, "a commit failed");
        self.distrust();
        let found = match self.connection() {
            Ok(connection) => apply::already_applied(connection, id)
                .map_err(|cause| self.doubt("it cannot be known whether it took place").with_source(cause)),
            Err(cause) => Err(self.doubt("it cannot be known whether it took place").with_source(cause)),
        };
        match found? {
            Some(applied) => Ok(applied),
            None => Err(store_error(&self.config.path, "write to", error)),
        }
    }

    /// Registers `writer`, and prunes: an engine registers before every batch, so this goes on as long as it runs.
    pub(crate) fn register(&mut self, writer: &Writer) -> Result<Registration, StoreError> {
        let registered = register::register(self.connection()?, writer);
        let registered = registered.map_err(|error| self.commit_failed(error))?;
        if self.pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNING_INTERVAL) {
            self.prune()?;
        }
        Ok(registered)
    }

    /// Retires `writer`, and prunes.
    pub(crate) fn retire(&mut self, writer: &Writer) -> Result<(), StoreError> {
        let retired = retired::retire(self.connection()?, writer);
        retired.map_err(|error| self.commit_failed(error))?;
        self.prune()
    }

    /// Retires the earlier writers of the node of `writer`.
    pub(crate) fn retire_predecessors(&mut self, writer: &Writer) -> Result<(), StoreError> {
        let retired = retired::retire_predecessors(self.connection()?, writer);
        retired.map_err(|error| self.commit_failed(error))
    }

    /// Forgets some of the writers that are retired for long enough; the next call goes on.
    fn prune(&mut self) -> Result<(), StoreError> {
        let pruned = retired::prune(self.connection()?);
        let has_more = pruned.map_err(|error| self.commit_failed(error))?;
        self.pruned = Some(Instant::now()).filter(|_| !has_more);
        Ok(())
    }

    /// Deletes the bookkeeping of `writer`.
    pub(crate) fn forget(&mut self, writer: &Writer) -> Result<(), StoreError> {
        let forgotten = register::forget(self.connection()?, writer);
        forgotten.map_err(|error| self.commit_failed(error))
    }

    /// Releases a count from quarantine.
    pub(crate) fn release(&mut self, held: &Held, release: Release) -> Result<Released, StoreError> {
        let released = quarantine::release(self.connection()?, held, release);
        released.map_err(|error| self.commit_failed(error))
    }

    /// Describes the failure of a transaction whose commit may be what failed.
    fn commit_failed(&mut self, error: Error) -> StoreError {
        if !is_clean(&error) {
            self.distrust();
        }
        store_error(&self.config.path, "write to", error)
    }

    /// Records the newest of `schedules`, and returns the lines that are recorded then.
    pub(crate) fn record_schedules(&mut self, schedules: &Schedules) -> Result<Vec<String>, StoreError> {
        let recorded = schedule::record(self.connection()?, schedules);
        recorded.map_err(|error| self.commit_failed(error))
    }

    /// Removes at most `limit` counters of expired buckets, and returns how many.
    pub(crate) fn remove_expired(&mut self, expired: &Expired, limit: usize) -> Result<usize, StoreError> {
        let removed = expiry::remove(self.connection()?, expired, limit);
        removed.map_err(|error| self.commit_failed(error))
    }

    /// Removes those of `counters` whose value is zero, and returns how many.
    pub(crate) fn remove_zeros(
        &mut self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        let removed = zeros::remove(self.connection()?, collection, counters);
        removed.map_err(|error| self.commit_failed(error))
    }

    /// Checks that the tables are there and can be written.
    pub(crate) fn check(&mut self) -> Result<(), StoreError> {
        let connection = self.connection()?;
        let checked = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|it| {
            apply::prepare_statements(&it)?;
            it.rollback()
        });
        checked.map_err(|error| self.failed("write to", error))
    }

    /// Starts the log from its beginning when it has become too long.
    ///
    /// Commits do that by themselves as long as there is a moment without a reader. Where readers follow each other without a
    /// gap, a writer has to wait until those that still need the log have finished.
    pub(super) fn shorten_log(&mut self) {
        let Some(file) = &self.file else { return };
        let length = file.log_len();
        if length <= self.log_limit {
            return;
        }
        let restart = "PRAGMA wal_checkpoint(RESTART)";
        let is_busy = file.connection.query_row(restart, [], |row| row.get::<_, bool>(0));
        tracing::debug!(path = %self.config.path.display(), length, ?is_busy, "tried to shorten the log");
        // A transaction that stays open for hours must not cost every batch the busy timeout.
        self.log_limit = if is_busy == Ok(false) { LOG_LIMIT } else { length * 2 };
        if is_busy.is_err_and(|error| Cause::of(&error) == Cause::Io) {
            // The next `fsync` may succeed without having written what this one did not.
            self.distrust();
        }
    }
}

impl Drop for WriteConnection {
    fn drop(&mut self) {
        if let Some(displaced) = self.file.take_if(|file| file.check_place().is_err()) {
            displaced.abandon();
        }
    }
}
