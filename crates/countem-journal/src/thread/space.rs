//! Space of the files: moving the log into the file, returning free pages, and making room when there is none.

use countem_sqlite::{Cause, bytes_of, is_clean};

use crate::{
    disk::file::{self, FRAME_BYTES, PAGE_BYTES},
    error::ErrorKind,
    tables::{batches, state::Resolved},
    thread::{
        fail_point,
        request::{Call, Urgency},
        transactions::{Entry, Outcome, Transactions},
    },
};

/// Pages in the log from which on it is moved into the file: 2 MiB, some dozens of commits of a thousand counters.
const CHECKPOINT_PAGES: u64 = 512;

/// Pages by which the file has to grow for the log from which on the log is moved.
const GROWTH_PAGES: u64 = 32;

/// Free pages that are kept in the file.
const KEPT_FREE_PAGES: u64 = 256;

/// Bytes of resolved batches up to which all of them are deleted at once.
const SMALL_HISTORY: u64 = 1 << 20;

impl Transactions {
    /// Keeps the log short and the file no larger than necessary. Failures are harmless, and the next request meets them.
    pub(crate) fn maintain(&mut self) {
        let maintained = self.try_to_maintain();
        self.keep_connection(&maintained);
    }

    fn try_to_maintain(&mut self) -> rusqlite::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let limit = CHECKPOINT_PAGES.min(self.config.max_bytes / (4 * FRAME_BYTES)).max(1);
        self.log_pages = file::log_pages(&file.connection)?;
        // The log must not hold many pages by which the file has to grow, or a full disk could keep it for ever.
        let growth =
            file::pages(&file.connection)?.saturating_sub(bytes_of(&self.path).unwrap_or(0) / PAGE_BYTES);
        if self.log_pages < limit && growth < GROWTH_PAGES {
            return Ok(());
        }
        fail_point::hit(&self.path, format_args!("checkpoint"))?;
        if file.checkpoint()? {
            self.log_pages = 0;
        }
        // A log is overwritten from its beginning, which is much faster than growing it again. One that a large transaction has
        // left behind is too large to keep, though.
        if file.log_len() > 2 * limit * FRAME_BYTES {
            file.try_empty_log()?;
        }
        let (pages, free) = (file::pages(&file.connection)?, file::free_pages(&file.connection)?);
        if free > KEPT_FREE_PAGES && free > pages / 4 {
            // In portions, so that no request waits for long.
            file::vacuum(&file.connection, (free - KEPT_FREE_PAGES).min(CHECKPOINT_PAGES))?;
        }
        Ok(())
    }

    /// Frees what can be freed without losing a count: first the log, then stored batches, half of them at a time, then free
    /// pages. On a full disk, the reserve gives way to what these steps have to write. Returns whether it is worth trying again.
    pub(crate) fn make_room(&mut self, is_first: bool) -> bool {
        // The log holds mostly older versions of the same pages.
        let had_log = self.file.as_ref().is_some_and(|file| file.log_len() > 0);
        if had_log && !self.freeing(Self::empty_log) {
            return false;
        }
        let Resolved { batches, bytes } = self.state.resolved;
        let keep = if bytes > SMALL_HISTORY { bytes / 2 } else { 0 };
        let has_pruned = batches > 0 && self.freeing(|this| this.prune_to(keep));
        let has_vacuumed = self.freeing(Self::vacuum);
        (is_first && had_log) || has_pruned || has_vacuumed
    }

    /// Runs a step that frees space; once more without the reserve if the disk has none for the step itself. Returns whether
    /// it freed something.
    fn freeing(&mut self, step: impl Fn(&mut Self) -> rusqlite::Result<bool>) -> bool {
        let mut freed = step(self);
        if freed.as_ref().is_err_and(|error| Cause::of(error) == Cause::Full) && self.reserve.release() {
            freed = step(self);
        }
        self.keep_connection(&freed);
        freed.unwrap_or(false)
    }

    fn empty_log(&mut self) -> rusqlite::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        fail_point::hit(&self.path, format_args!("room"))?;
        file.empty_log()?;
        self.log_pages = 0;
        Ok(true)
    }

    /// Deletes the oldest stored batches until they have no more than `keep` bytes.
    fn prune_to(&mut self, keep: u64) -> rusqlite::Result<bool> {
        let prune = Call::boxed(
            "resolve",
            Urgency::Now,
            move |transaction| {
                let prune = |_, kept: &Resolved| kept.bytes > keep;
                Ok(batches::prune(transaction.connection, transaction.state, prune)?)
            },
            drop,
        );
        match self.run(&mut [Entry::new(prune)]) {
            Outcome::Committed(_) => self.empty_log(),
            Outcome::Failed(error) if error.kind() == ErrorKind::Full => Err(full()),
            _ => Ok(false),
        }
    }

    /// Returns the free pages to the file system, in portions that need little space themselves.
    fn vacuum(&mut self) -> rusqlite::Result<bool> {
        let mut any = false;
        while let Some(file) = &self.file {
            let free = file::free_pages(&file.connection)?;
            if free == 0 {
                break;
            }
            file::vacuum(&file.connection, free.min(GROWTH_PAGES))?;
            any = self.empty_log()?;
        }
        Ok(any)
    }

    /// Closes the file after a failure after which the connection cannot be trusted.
    fn keep_connection<T>(&mut self, outcome: &rusqlite::Result<T>) {
        if outcome.as_ref().is_err_and(|error| !is_clean(error)) {
            self.file = None;
        }
    }
}

/// Returns the error of a full disk.
fn full() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None)
}
