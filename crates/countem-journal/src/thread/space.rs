//! Space of the files: moving the log into the file, returning free pages, and making room when there is none.

use countem_sqlite::{Cause, bytes_of, is_clean};

use crate::{
    disk::file::{self, FRAME_BYTES, PAGE_BYTES},
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

    /// Frees what can be freed without losing a count, a part at a time. Returns whether it is worth trying again.
    pub(crate) fn make_room(&mut self) -> bool {
        let Some(file) = &self.file else { return false };
        // The log holds mostly older versions of the same pages.
        if file.log_len() > 0 {
            let mut emptied =
                fail_point::hit(&self.path, format_args!("room")).and_then(|()| file.empty_log());
            if emptied.as_ref().is_err_and(|error| Cause::of(error) == Cause::Full) && self.reserve.release()
            {
                emptied = file.empty_log();
            }
            return self.made_room(&emptied);
        }
        let Resolved { batches, bytes } = self.state.resolved;
        if batches > 0 {
            let keep = if bytes > SMALL_HISTORY { bytes / 2 } else { 0 };
            let prune = Call::boxed(
                "resolve",
                Urgency::Now,
                move |transaction| {
                    Ok(batches::prune(transaction.connection, transaction.state, |_, kept| {
                        kept.bytes > keep
                    })?)
                },
                drop,
            );
            return matches!(self.run(&mut [Entry::new(prune)]), Outcome::Committed(_));
        }
        let connection = &file.connection;
        let vacuumed =
            file::free_pages(connection).and_then(|free| file::vacuum(connection, free).map(|()| free));
        let any = vacuumed.as_ref().is_ok_and(|free| *free > 0);
        any && self.made_room(&vacuumed)
    }

    fn made_room<T>(&mut self, outcome: &rusqlite::Result<T>) -> bool {
        if outcome.is_ok() {
            self.log_pages = 0;
        }
        self.keep_connection(outcome);
        outcome.is_ok()
    }

    /// Closes the file after a failure after which the connection cannot be trusted.
    fn keep_connection<T>(&mut self, outcome: &rusqlite::Result<T>) {
        if outcome.as_ref().is_err_and(|error| !is_clean(error)) {
            self.file = None;
        }
    }
}
