//! With a journal: entries are recorded, claimed, and folded in one transaction of the journal.

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{Delta, Deltas, FoldError, Quarantined, Schedules, Table};
use countem_journal::Record;
use countem_store::{Claimed, StoreError};

use super::{
    Desk, KeyedError,
    desk::{Entry, Group},
    settle::answer,
};
use crate::{collect::COUNTED_OTHERWISE, deliver::Recorder};

/// Deltas of entries that have won, as they are recorded.
#[derive(Default)]
struct Folded {
    lanes: BTreeMap<u16, Table>,
    quarantined: Vec<Quarantined>,
}

impl Desk {
    /// Records a group in the journal, and settles it.
    pub(super) async fn journal(self: &Arc<Self>, recorder: &Recorder, group: Group) {
        let entries = self.enter(group, |deltas| deltas);
        let accepted = entries.iter().map(|entry| Arc::clone(&entry.entry)).collect();
        match recorder.accept(accepted).await {
            Ok(()) => self.settle(entries).await,
            Err(error) => {
                for entry in entries {
                    let reason = Arc::clone(error.reason());
                    // One whose record is in doubt is found by the next process: it was told of nothing that is not so.
                    self.finish(
                        entry,
                        Err(match error.is_certain() {
                            true => KeyedError::Unavailable { reason },
                            false => KeyedError::InProgress { reason },
                        }),
                    );
                }
            }
        }
    }

    /// Records the outcomes, counts what has won, and answers the callers.
    pub(super) async fn record(self: &Arc<Self>, recorder: &Recorder, decided: Vec<(Entry, Claimed)>) {
        let is_over = self.is_over.read().await;
        if *is_over {
            return;
        }
        let schedules = self.intake.calendar().schedules();
        let won = decided.iter().filter(|(_, claimed)| matches!(claimed, Claimed::Won(_)));
        let folded = self.fold(won.map(|(entry, _)| entry), &schedules);
        let record = Record {
            lanes: folded.lanes.iter().map(|(lane, table)| (*lane, copy(table))).collect(),
            quarantined: folded.quarantined.clone(),
            decided: decided.iter().map(|(entry, _)| entry.entry.counts.id().clone()).collect(),
        };
        match recorder.decide(record, || self.merge(folded, &schedules)).await {
            Ok(()) => {
                for (entry, claimed) in decided {
                    self.finish(entry, Ok(answer(&claimed)));
                }
            }
            Err(error) => {
                tracing::warn!(requests = decided.len(), %error, "outcome of requests is not recorded");
                let mut entries: Vec<_> = decided.into_iter().map(|(entry, _)| entry).collect();
                entries.iter_mut().for_each(|entry| entry.may_be_claimed = true);
                self.postpone(entries, error.reason());
            }
        }
    }

    /// Puts together the deltas of `won`, by lane, in the buckets of `schedules`.
    fn fold<'a>(&self, won: impl Iterator<Item = &'a Entry>, schedules: &Arc<Schedules>) -> Folded {
        let mut folded = Folded::default();
        for Entry { entry, counted_by, .. } in won {
            let is_current = Arc::ptr_eq(counted_by, schedules);
            for delta in entry.counts.deltas() {
                if !is_current && self.is_counted_otherwise(&delta, counted_by, schedules) {
                    folded.quarantined.push(Quarantined::new(delta, COUNTED_OTHERWISE));
                    continue;
                }
                let index = self.lanes.index_of(delta.collection);
                let metric = self.lanes.get(index).lock().admitted(&delta);
                let delta = Delta { metric: &metric, ..delta };
                let index = u16::try_from(index).expect("lanes are numbered with 16 bits");
                if let Err(error) = folded.lanes.entry(index).or_default().merge(delta) {
                    folded.quarantined.push(Quarantined::new(delta, error.to_string()));
                }
            }
        }
        for (index, table) in &mut folded.lanes {
            let lane = self.lanes.get(usize::from(*index)).lock();
            if table.iter().all(|delta| lane.fits(&delta)) {
                continue;
            }
            for delta in table.drain().iter() {
                let added = if lane.fits(&delta) { table.merge(delta) } else { Err(FoldError::Overflow) };
                if let Err(error) = added {
                    folded.quarantined.push(Quarantined::new(delta, error.to_string()));
                }
            }
        }
        folded
    }

    /// Counts what the journal has recorded as pending.
    fn merge(&self, folded: Folded, counted_by: &Arc<Schedules>) {
        self.intake.moving(|schedules| {
            let is_current = Arc::ptr_eq(counted_by, schedules);
            for (index, table) in &folded.lanes {
                let mut lane = self.lanes.get(usize::from(*index)).lock();
                for delta in table.iter() {
                    match !is_current && self.is_counted_otherwise(&delta, counted_by, schedules) {
                        true => lane.quarantine_recorded(delta, COUNTED_OTHERWISE),
                        false => lane.merge_recorded(delta),
                    }
                }
            }
            for quarantined in folded.quarantined {
                self.lanes.of(&quarantined.collection).lock().quarantine_request(quarantined);
            }
        });
        self.lanes.measure();
    }

    /// Forgets entries whose keys are not claimed.
    pub(super) async fn drop_unclaimed(
        self: &Arc<Self>,
        recorder: &Recorder,
        entries: Vec<Entry>,
        error: &StoreError,
    ) {
        let is_over = self.is_over.read().await;
        if *is_over || entries.is_empty() {
            return;
        }
        let decided = entries.iter().map(|entry| entry.entry.counts.id().clone()).collect();
        match recorder.decide(Record { decided, ..Record::default() }, || ()).await {
            Ok(()) => {
                for entry in entries {
                    self.finish(entry, Err(KeyedError::unavailable(error)));
                }
            }
            Err(error) => self.postpone(entries, error.reason()),
        }
    }

    /// Quarantines entries that may have been claimed in another store than this one, which keeps no keys.
    pub(super) async fn give_up(
        self: &Arc<Self>,
        recorder: &Recorder,
        entries: Vec<Entry>,
        error: &StoreError,
    ) {
        let is_over = self.is_over.read().await;
        if *is_over || entries.is_empty() {
            return;
        }
        let reason = format!("its request has an idempotency key, and {error}");
        let deltas = entries.iter().flat_map(|entry| entry.entry.counts.deltas());
        let quarantined: Vec<_> = deltas.map(|delta| Quarantined::new(delta, reason.as_str())).collect();
        let record = Record {
            quarantined: quarantined.clone(),
            decided: entries.iter().map(|entry| entry.entry.counts.id().clone()).collect(),
            ..Record::default()
        };
        let folded = Folded { quarantined, ..Folded::default() };
        let schedules = self.intake.calendar().schedules();
        match recorder.decide(record, || self.merge(folded, &schedules)).await {
            Ok(()) => {
                for entry in entries {
                    self.finish(entry, Err(KeyedError::unavailable(error)));
                }
            }
            Err(error) => self.postpone(entries, error.reason()),
        }
    }
}

fn copy(table: &Table) -> Deltas {
    let mut copy = Table::new();
    for delta in table.iter() {
        copy.merge(delta).expect("a delta that fits into a table fits into its copy");
    }
    copy.drain()
}
