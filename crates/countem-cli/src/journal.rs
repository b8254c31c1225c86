//! The journal that the user means, and how what is in it is brought to the store.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use clap::Args;
use countem::{
    Durability, EngineConfig, JournalConfig, Retry,
    journal::{ErrorKind, Journal, JournalError, JournalReader, Recovered, ResolvedBatch},
};
use countem_core::{Batch, BatchId, Deltas, Table};
use countem_store::{Applied, Store};
use tokio::time::Instant;

use crate::{exit::NotFound, store::Effective};

/// Which journal.
#[derive(Debug, Args)]
pub(crate) struct JournalFlag {
    /// The directory of the journal [default: the configured `durability.dir`]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,
}

impl JournalFlag {
    /// Returns the directory.
    pub(crate) fn dir<'a>(&'a self, effective: &'a Effective) -> &'a Path {
        self.journal.as_deref().unwrap_or(&effective.config.durability().dir)
    }

    /// Opens the journal for reading, also while another process uses it.
    ///
    /// # Errors
    /// [`NotFound`] when there is none; else why it cannot be read.
    pub(crate) fn read(&self, effective: &Effective) -> Result<JournalReader> {
        let dir = self.dir(effective);
        if !exists(dir) {
            let advice = "name its directory with `--journal`";
            return Err(NotFound::new(format!("there is no journal in `{}`: {advice}", dir.display())).into());
        }
        Ok(JournalReader::open(dir)?)
    }

    /// Opens the journal for writing, with resolved batches kept for at least `keep`.
    ///
    /// # Errors
    /// As [`read`](Self::read), and when another process uses it.
    pub(crate) fn open(&self, effective: &Effective, keep: Duration) -> Result<(Journal, Recovered)> {
        // Never makes one.
        drop(self.read(effective)?);
        let settings = &effective.settings;
        let mut options = effective.config.durability().to_journal_config();
        options.dir = self.dir(effective).to_owned();
        options.lanes = settings.lanes;
        options.resolved_retention = options.resolved_retention.max(keep);
        if keep > Duration::ZERO {
            options.resolved_bytes = u64::MAX;
        }
        Journal::open(options).map_err(|error: JournalError| match error.kind() {
            ErrorKind::Locked => {
                anyhow::Error::new(error).context("the process that counts has to be stopped first")
            }
            _ => error.into(),
        })
    }
}

/// Tells whether there is a journal in `dir`.
pub(crate) fn exists(dir: &Path) -> bool {
    dir.join("journal.db").exists()
}

/// Parts the stored batches of a journal into those that a store is sure to know, as it knows all that was stored `since`, and
/// those that are too old for that.
///
/// The batches of a lane are stored in order. So what came before one that is too old is as old, whatever the clock was.
pub(crate) fn part(
    stored: Vec<ResolvedBatch>,
    since: SystemTime,
) -> (Vec<ResolvedBatch>, Vec<ResolvedBatch>) {
    let lane = |id: &BatchId| (id.writer.clone(), id.lane);
    let mut forgotten = BTreeMap::new();
    for batch in stored.iter().filter(|batch| batch.at < since) {
        let last = forgotten.entry(lane(&batch.id)).or_insert(batch.id.seq);
        *last = batch.id.seq.max(*last);
    }
    stored
        .into_iter()
        .partition(|batch| forgotten.get(&lane(&batch.id)).is_none_or(|&last| batch.id.seq > last))
}

/// Sends a batch until the store has it, and notes that in the journal.
///
/// # Errors
/// It is not known to be in the store, or that could not be noted. It stays in the journal.
pub(crate) async fn settle(
    store: &dyn Store,
    journal: &Journal,
    batch: &Arc<Batch>,
    settings: &EngineConfig,
) -> Result<Applied> {
    let applied = send(store, batch, settings).await?;
    // Waits for the disk on this thread, on which nothing else happens meanwhile.
    journal.resolve_blocking(batch.id(), applied.quarantined.clone())?;
    Ok(applied)
}

/// Sends a batch until the store has it.
///
/// # Errors
/// What the store said last.
pub(crate) async fn send(store: &dyn Store, batch: &Arc<Batch>, settings: &EngineConfig) -> Result<Applied> {
    let retry = Retry::new(settings.retry_first, settings.retry_longest);
    let deadline = Instant::now() + settings.shutdown_deadline;
    let (applied, _) = countem::deliver(store, batch, retry, deadline).await?;
    Ok(applied)
}

/// Freezes everything that is pending, and returns the batches in the order in which they are to be sent.
///
/// Called once per opening: numbers begin with 1.
///
/// # Errors
/// What is in no batch yet is still pending.
pub(crate) fn freeze(journal: &Journal, settings: &EngineConfig) -> Result<Vec<Arc<Batch>>> {
    let mut frozen = Vec::new();
    for (lane, deltas) in journal.reader()?.pending()? {
        let mut batches = Vec::new();
        for (deltas, seq) in split(&deltas, settings.batch_counters)?.into_iter().zip(1..) {
            batches.push(Arc::new(Batch::new(BatchId { writer: journal.writer(), lane, seq }, deltas)));
        }
        journal.freeze_blocking(lane, batches.iter().map(|batch| &**batch))?;
        frozen.append(&mut batches);
    }
    Ok(frozen)
}

fn split(deltas: &Deltas, most: usize) -> Result<Vec<Deltas>> {
    let (mut parts, mut table) = (Vec::new(), Table::new());
    for delta in deltas.iter() {
        table.merge(delta).context("cannot take what is pending in the journal")?;
        if table.len() >= most {
            parts.push(table.drain());
        }
    }
    if !table.is_empty() {
        parts.push(table.drain());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use countem_core::Writer;

    use super::*;

    #[test]
    fn nothing_is_known_that_was_stored_before_something_forgotten_whatever_the_clock_was() {
        let batch = |lane, seq, second| ResolvedBatch {
            id: BatchId { writer: Writer::new(1, 1), lane, seq },
            at: UNIX_EPOCH + Duration::from_secs(second),
            counters: 1,
            increments: 1,
        };
        let stored =
            vec![batch(0, 1, 10), batch(0, 2, 90), batch(0, 3, 20), batch(0, 4, 50), batch(1, 1, 60)];
        let numbers = |batches: Vec<ResolvedBatch>| -> Vec<_> {
            batches.into_iter().map(|batch| (batch.id.lane, batch.id.seq)).collect()
        };
        let (known, too_old) = part(stored.clone(), UNIX_EPOCH + Duration::from_secs(50));
        assert_eq!((numbers(known), numbers(too_old)), (vec![(0, 4), (1, 1)], vec![(0, 1), (0, 2), (0, 3)]));
        assert_eq!(part(stored, UNIX_EPOCH).1, []);
    }

    #[test]
    fn what_is_pending_is_split_without_losing_any() {
        let mut table = Table::new();
        for n in 0..10 {
            table.fold("c", &n.to_string(), "2026-11-20".parse().unwrap(), n).unwrap();
        }
        let parts = split(table.deltas(), 4).unwrap();
        assert_eq!(parts.iter().map(Deltas::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(parts.iter().map(|part| part.totals().n).sum::<i128>(), 45);
    }
}
