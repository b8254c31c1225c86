//! Replaying stored batches into a store that was restored to an older point.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use countem_core::{Batch, BatchId, Writer};
use countem_journal::{
    Journal, JournalConfig, JournalError, JournalReader, QuarantineEntry, Quarantined, Record, Selection,
};
use countem_store::Store;

use super::{
    Lookup, MaintenanceError, look_up,
    send::{answer, send, send_frozen},
    split_by_age,
};
use crate::EngineConfig;

/// Result of a replay: numbers of batches, unless stated otherwise.
#[derive(Debug, Default, Clone)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Batches that the store lacked.
    pub sent: usize,
    /// Batches that the store had.
    pub already_there: usize,
    /// Batches whose counters tell nothing; they were sent.
    pub unknown: usize,
    /// Batches that the store may have forgotten; they were neither sent nor looked up.
    pub too_old: usize,
    /// Those of them that may be missing in the store.
    pub too_old_unproven: usize,
    /// Batches that were not sent because of an error.
    pub failed: usize,
    /// The first of them.
    pub failed_at: Option<BatchId>,
    /// Lanes whose oldest batch was missing, so that earlier ones, which are not kept any more, may be missing as well.
    pub incomplete_lanes: usize,
    /// Counts that could not be added.
    pub quarantined: usize,
}

/// A replay of the batches that a journal keeps.
#[derive(Debug)]
pub struct Replay<'a> {
    reader: &'a JournalReader,
    /// `None` in a dry run.
    journal: Option<&'a Journal>,
    config: &'a EngineConfig,
    plan: Plan,
}

/// The batches of a journal in the order in which they are sent.
#[derive(Debug)]
struct Plan {
    send: Vec<BatchId>,
    /// Batches that were stored before the requested time.
    skip: Vec<BatchId>,
    /// Requested batches that the store may have forgotten.
    too_old: Vec<BatchId>,
    /// Batches that are not known to be stored.
    frozen: BTreeSet<BatchId>,
}

/// Returns `config` for opening a journal that is replayed: no batch is dropped while the journal is open.
pub fn journal_config_for_replay(config: JournalConfig) -> JournalConfig {
    JournalConfig { resolved_retention: Duration::MAX, resolved_bytes: u64::MAX, ..config }
}

impl<'a> Replay<'a> {
    /// Plans the replay of all batches that were stored `since` then, and of those that are not stored yet, into a store that
    /// is sure to remember the batches it got since `remembered_since`. Without `journal` it is a dry run.
    ///
    /// # Errors
    /// The journal could not be read.
    pub fn new(
        reader: &'a JournalReader,
        journal: Option<&'a Journal>,
        config: &'a EngineConfig,
        since: SystemTime,
        remembered_since: SystemTime,
    ) -> Result<Self, MaintenanceError> {
        Ok(Self { reader, journal, config, plan: Plan::read(reader, since, remembered_since)? })
    }

    /// Sends the batches in order under their old identities, and stops at the first that fails: a store takes an earlier
    /// batch for a late copy once it has a later one of the same lane. May be repeated.
    ///
    /// # Errors
    /// A batch could not be sent, or [`OlderBatchMissing`](MaintenanceError::OlderBatchMissing): the store lacks a batch
    /// before the requested time. The report is correct in either case.
    ///
    /// # Cancel safety
    /// Dropping the future is safe: a repeated replay adds no batch twice.
    pub async fn run(&self, store: &dyn Store, report: &mut ReplayReport) -> Result<(), MaintenanceError> {
        self.check_skipped(store).await?;
        report.too_old = self.plan.too_old.len();
        let firsts = self.plan.firsts();
        // Lanes whose older batches are all stored: batches of a lane are stored in order.
        let mut proven = BTreeSet::new();
        for (at, id) in self.plan.send.iter().enumerate() {
            let lookup = match self.send(store, id, report).await {
                Ok(lookup) => lookup,
                Err(error) => {
                    report.failed = self.plan.send.len() - at;
                    report.failed_at = Some(id.clone());
                    return Err(error);
                }
            };
            *match lookup {
                Lookup::Stored => &mut report.already_there,
                Lookup::Missing | Lookup::Partial => &mut report.sent,
                Lookup::Unknown => &mut report.unknown,
            } += 1;
            if firsts.get(&lane(id)) != Some(&id) {
                continue;
            }
            if lookup == Lookup::Stored {
                proven.insert(lane(id));
            } else if id.seq > 1 && self.plan.skipped_before(id).next().is_none() {
                report.incomplete_lanes += 1;
            }
        }
        report.too_old_unproven = self.plan.too_old.iter().filter(|id| !proven.contains(&lane(id))).count();
        Ok(())
    }

    /// Sends one batch, and returns what the store had of it before.
    async fn send(
        &self,
        store: &dyn Store,
        id: &BatchId,
        report: &mut ReplayReport,
    ) -> Result<Lookup, MaintenanceError> {
        let batch = Arc::new(self.batch(id)?);
        let lookup = look_up(store, &batch).await?;
        let Some(journal) = self.journal else { return Ok(lookup) };
        if self.plan.frozen.contains(id) {
            report.quarantined += send_frozen(store, journal, &batch, self.config).await?.quarantined.len();
        } else {
            let refused = send(store, &batch, self.config).await?.quarantined;
            if lookup != Lookup::Stored {
                report.quarantined += self.update_quarantine(journal, id, lookup, refused).await?;
            }
        }
        Ok(lookup)
    }

    /// Updates the quarantine after the restored store has added a batch, or `refused` parts of it: counts that were
    /// quarantined when the batch was first stored leave it if they are stored now. Returns the number of new entries.
    async fn update_quarantine(
        &self,
        journal: &Journal,
        id: &BatchId,
        lookup: Lookup,
        refused: Vec<Quarantined>,
    ) -> Result<usize, JournalError> {
        let entries = self.reader.quarantined()?;
        let is_of_batch = |entry: &QuarantineEntry| entry.batch.as_ref() == Some(id);
        let is_refused =
            |entry: &QuarantineEntry| refused.iter().any(|count| count.delta() == entry.quarantined.delta());
        let stored_now: Vec<_> = entries
            .iter()
            .filter(|entry| lookup == Lookup::Missing && is_of_batch(entry) && !is_refused(entry))
            .map(|entry| entry.id)
            .collect();
        if !stored_now.is_empty() {
            answer(|done| journal.drop_quarantined(Selection::Ids(stored_now), done)).await?;
        }
        let mut quarantined = Vec::new();
        for count in refused {
            let reason =
                format!("{}; refused in a replay of batch {id}, may have been retried since", count.reason);
            let is_known = |entry: &QuarantineEntry| {
                count.delta() == entry.quarantined.delta()
                    && (is_of_batch(entry) || entry.quarantined.reason == reason)
            };
            if !entries.iter().any(is_known) {
                quarantined.push(Quarantined { reason, ..count });
            }
        }
        let new = quarantined.len();
        if new > 0 {
            let record = Record { quarantined, ..Record::default() };
            answer(|done| journal.record(record, done)).await.map_err(|refused| refused.error)?;
        }
        Ok(new)
    }

    /// Checks that the store has every batch before the requested time: once a later one of its lane is stored, the store takes
    /// it for a late copy.
    async fn check_skipped(&self, store: &dyn Store) -> Result<(), MaintenanceError> {
        for first in self.plan.firsts().into_values() {
            for id in self.plan.skipped_before(first) {
                match look_up(store, &self.batch(id)?).await? {
                    Lookup::Unknown => {}
                    // Earlier batches of the lane were stored before this one.
                    Lookup::Stored => break,
                    Lookup::Missing | Lookup::Partial => {
                        return Err(MaintenanceError::OlderBatchMissing(id.clone()));
                    }
                }
            }
        }
        Ok(())
    }

    fn batch(&self, id: &BatchId) -> Result<Batch, MaintenanceError> {
        self.reader.batch(id)?.ok_or_else(|| MaintenanceError::NotKept(id.clone()))
    }
}

impl Plan {
    fn read(
        reader: &JournalReader,
        since: SystemTime,
        remembered_since: SystemTime,
    ) -> Result<Self, JournalError> {
        let frozen: BTreeSet<_> = reader.frozen()?.iter().map(|batch| batch.id().clone()).collect();
        let mut batches: Vec<_> = frozen.iter().map(|id| (id.clone(), true)).collect();
        let (remembered, too_old) = split_by_age(reader.resolved(UNIX_EPOCH)?, remembered_since);
        let too_old = too_old.into_iter().filter(|batch| batch.at >= since).map(|batch| batch.id).collect();
        batches.extend(remembered.into_iter().map(|batch| (batch.id, batch.at >= since)));
        batches.sort_by_key(|(id, _)| (id.writer.epoch(), id.lane, id.seq, id.writer.node()));
        let (mut send, mut skip, mut begun) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (id, is_requested) in batches {
            let lane = (id.writer.clone(), id.lane);
            // Every batch after the first of a lane is sent, whatever the clock was when it was stored.
            if is_requested || begun.contains(&lane) {
                begun.insert(lane);
                send.push(id);
            } else {
                skip.push(id);
            }
        }
        Ok(Self { send, skip, too_old, frozen })
    }

    /// Returns the first batch to send of each writer's lane.
    fn firsts(&self) -> BTreeMap<(&Writer, u16), &BatchId> {
        self.send.iter().rev().map(|id| (lane(id), id)).collect()
    }

    /// Lists the batches of the same lane that are left out, the newest first.
    fn skipped_before(&self, first: &BatchId) -> impl Iterator<Item = &BatchId> {
        self.skip.iter().rev().filter(move |id| lane(id) == lane(first) && id.seq < first.seq)
    }
}

fn lane(id: &BatchId) -> (&Writer, u16) {
    (&id.writer, id.lane)
}
