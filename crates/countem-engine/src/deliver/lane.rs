//! One lane: pending deltas, batches in order, the journal's backlog, and where its increments went.

mod keyed;

use std::{collections::VecDeque, mem, sync::Arc};

use countem_core::{Batch, BatchId, Delta, Deltas, FoldError, Writer};
use countem_store::{Applied, ErrorKind, Quarantined, StoreError};
use tokio::sync::{RwLock, watch};

use super::{
    journal_backlog::JournalBacklog,
    notes::Notes,
    outbox::Outbox,
    pending::Pending,
    progress::{Progress, Stored},
};
use crate::sync::{Mutex, MutexGuard};

/// The queue of one storage actor: everything pending of the collections that hash to it.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<LaneState>,
    /// Held for reading while the store is read, for writing while the next batch becomes the unresolved one: so a read
    /// meets at most one batch that may or may not be in the store, and knows which.
    pub(crate) gate: Arc<RwLock<()>>,
}

/// See [`Lane`]. Every transition is a plain method: actors only decide when.
#[derive(Debug)]
pub(crate) struct LaneState {
    pending: Pending,
    outbox: Outbox,
    /// `None` without a journal.
    backlog: Option<JournalBacklog>,
    /// Number of batches that an earlier process had frozen, the first of this lane. Several of them may be in the store already.
    restored: u64,
    /// The store may have a part of the batch in flight: an attempt is running, or one had no answer.
    is_attempted: bool,
    pub(crate) is_in_doubt: bool,
    /// Nothing more is sent.
    is_over: bool,
    /// Number of freezes, and of the newest one that a caller waits for. One freezes only when all of the one before is stored.
    freezes: u64,
    wanted: u64,
    progress: watch::Sender<Progress>,
    pub(crate) totals: LaneTotals,
    notes: Notes,
}

/// Numbers of increments of a lane (I1): `merged = applied + pending + quarantined + dropped`.
#[derive(Debug, Default, Clone)]
pub(crate) struct LaneTotals {
    pub(crate) merged: u64,
    /// Those of them that no table or handle had before: recovered ones, and those counted while the tables were full.
    pub(crate) direct: u64,
    pub(crate) applied: u64,
    pub(crate) quarantined: u64,
    pub(crate) dropped: u64,
    pub(crate) batches: u64,
    pub(crate) attempts: u64,
    pub(crate) failures: u64,
    /// Attempts whose outcome was unknown.
    pub(crate) doubts: u64,
    pub(crate) quarantine: VecDeque<Quarantined>,
    pub(crate) last_error: Option<String>,
    /// Failed attempts since the last success.
    pub(crate) consecutive_failures: u32,
}

/// Steps of a journal before it can record anything of a lane.
#[derive(Debug)]
pub(super) enum Save {
    /// Save these batches in place of what is pending.
    Batches(Vec<Arc<Batch>>),
    /// Forget what is pending: the store has it, in batches up to this one.
    Nothing(BatchId),
    /// Wait until the batch in flight is resolved, which the journal does not have.
    Later,
}

/// Quarantined deltas kept for the stats; older ones are only counted.
const KEPT_QUARANTINE: usize = 1000;

impl Lane {
    pub(super) fn new(writer: Writer, index: u16, limits: &super::lanes::LaneLimits) -> Self {
        let state = LaneState {
            pending: Pending::new(limits),
            outbox: Outbox::new(writer, index, limits.batch_counters),
            backlog: None,
            restored: 0,
            is_attempted: false,
            is_in_doubt: false,
            is_over: false,
            freezes: 0,
            wanted: 0,
            progress: watch::Sender::default(),
            totals: LaneTotals::default(),
            notes: Notes::default(),
        };
        Self { state: Mutex::new(state), gate: Arc::default() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock()
    }

    /// Logs what there is to log. The caller holds no lock.
    pub(crate) fn log(&self) {
        let notes = mem::take(&mut self.lock().notes);
        notes.log();
    }
}

/// Merging and freezing.
impl LaneState {
    /// Adds a delta that was counted in `delta.bucket`, a stored bucket.
    pub(crate) fn merge(&mut self, delta: Delta<'_>) {
        self.totals.merged += delta.increments;
        let refused = match self.add(delta, 0) {
            Ok(()) => return,
            Err(FoldError::Full) => {
                let metric = self.pending.admit(&delta, &mut self.notes);
                self.add(Delta { metric: &metric, ..delta }, usize::MAX)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = refused {
            let quarantined = Quarantined::new(delta, error.to_string());
            // Never was in a batch, so the journal has to be told.
            if let Some(backlog) = &mut self.backlog {
                backlog.quarantine(quarantined.clone());
            }
            self.quarantine(quarantined);
        }
    }

    /// Adds a delta to what is pending, and to the journal's backlog, or to neither.
    fn add(&mut self, delta: Delta<'_>, counters_max: usize) -> Result<(), FoldError> {
        let Some(backlog) = &mut self.backlog else {
            return self.pending.table.merge_within(delta, counters_max);
        };
        backlog.check_sum(&delta)?;
        self.pending.table.merge_within(delta, counters_max)?;
        backlog.add(delta)
    }

    /// Adds an increment, one delta for each stored bucket, only if all of its counters are pending already: at most a second
    /// time beside a frozen batch.
    ///
    /// # Errors
    /// [`FoldError`]: nothing was added.
    pub(crate) fn merge_known(&mut self, deltas: &[Delta<'_>]) -> Result<(), FoldError> {
        for delta in deltas {
            if !self.has_pending(delta) {
                return Err(FoldError::Full);
            }
            Pending::check_sum(&self.pending.table, delta)?;
            if let Some(backlog) = &self.backlog {
                backlog.check_sum(delta)?;
            }
        }
        for delta in deltas {
            self.add(*delta, usize::MAX)?;
            self.totals.merged += delta.increments;
            self.totals.direct += delta.increments;
        }
        Ok(())
    }

    /// Quarantines the pending deltas that are `stale`. Frozen batches stay as they are (I7).
    pub(crate) fn quarantine_pending(&mut self, is_stale: impl Fn(&Delta<'_>) -> bool, reason: &str) {
        if let Some(backlog) = &mut self.backlog {
            backlog.keep(|delta| !is_stale(delta));
        }
        let was_empty = self.pending.table.is_empty();
        for delta in self.pending.table.drain().iter() {
            let refused = match is_stale(&delta) {
                true => Err(reason.to_owned()),
                false => self.pending.table.merge(delta).map_err(|error| error.to_string()),
            };
            if let Err(reason) = refused {
                let quarantined = Quarantined::new(delta, reason);
                if let Some(backlog) = &mut self.backlog {
                    backlog.quarantine(quarantined.clone());
                }
                self.quarantine(quarantined);
            }
        }
        if !was_empty && self.pending.table.is_empty() {
            // A wait for the next freeze has nothing left to wait for.
            self.freezes += 1;
            self.note_stored();
        }
    }

    /// Ends the waits for everything frozen, if that is stored.
    fn note_stored(&mut self) {
        if self.outbox.is_empty() {
            self.progress.send_modify(|progress| progress.stored = self.freezes);
        }
    }

    fn quarantine(&mut self, quarantined: Quarantined) {
        self.notes.quarantined(&quarantined);
        self.totals.quarantined += quarantined.increments;
        if self.totals.quarantine.len() == KEPT_QUARANTINE {
            self.totals.quarantine.pop_front();
        }
        self.totals.quarantine.push_back(quarantined);
    }

    /// Freezes everything pending into batches, unless earlier ones still wait, and returns those that the journal has to save
    /// before any of them is sent.
    pub(crate) fn freeze(&mut self) -> Vec<Arc<Batch>> {
        if self.outbox.is_empty() && !self.pending.table.is_empty() {
            self.outbox.freeze(&mut self.pending.table);
            self.freezes += 1;
            self.pending.cardinality.end_round();
            if let Some(backlog) = &mut self.backlog {
                backlog.frozen(self.outbox.queued().len());
            }
        }
        self.unsaved().cloned().collect()
    }

    /// Lists the queued batches that the journal does not have.
    fn unsaved(&self) -> impl Iterator<Item = &Arc<Batch>> {
        let unsaved = self.backlog.as_ref().map_or(0, |backlog| backlog.unsaved);
        self.outbox.queued().skip(self.outbox.queued().len() - unsaved)
    }

    /// Continues with the contents of a journal: unresolved batches, and one of deltas that were never frozen; all under the
    /// identities that they have, or would have got.
    pub(super) fn restore(&mut self, frozen: Vec<Arc<Batch>>, pending: Option<Batch>) {
        let mut backlog = JournalBacklog::default();
        if pending.is_some() {
            backlog.frozen(1);
        }
        self.backlog = Some(backlog);
        self.outbox.use_journal();
        self.outbox.restore(frozen.into_iter().chain(pending.map(Arc::new)));
        self.restored = self.outbox.frozen();
        self.freezes = u64::from(self.restored > 0);
        self.totals.merged += self.outbox.batches().map(|batch| batch.totals().increments).sum::<u64>();
        self.totals.direct = self.totals.merged;
    }
}

/// Sending.
impl LaneState {
    /// Returns the unresolved batch, or makes the next one unresolved; `None` when no batch may be sent.
    ///
    /// The caller holds the gate for writing unless the batch is already in flight.
    pub(crate) fn advance(&mut self) -> Option<Arc<Batch>> {
        let unsaved = self.unsaved().count();
        if self.outbox.queued().len() == unsaved { self.in_flight() } else { self.outbox.advance() }
    }

    /// Ends the unresolved batch: the store has all of it but what is quarantined.
    pub(crate) fn resolve(&mut self, applied: Applied) {
        let resolved = self.outbox.resolve(&applied);
        self.totals.applied += resolved.applied;
        self.totals.batches += 1;
        self.totals.attempts += 1;
        self.totals.consecutive_failures = 0;
        self.totals.last_error = None;
        (self.is_attempted, self.is_in_doubt) = (false, false);
        if let Some(backlog) = &mut self.backlog {
            backlog.resolved();
            if backlog.is_stale {
                // The journal does not know the batch of which they were a part.
                applied.quarantined.iter().for_each(|quarantined| backlog.quarantine(quarantined.clone()));
            }
        }
        applied.quarantined.into_iter().for_each(|quarantined| self.quarantine(quarantined));
        self.note_stored();
    }

    /// Notes that the batch in flight is being sent. Returns false if it may not be any more, because a shutdown has reported
    /// where it is.
    pub(crate) fn begin_attempt(&mut self) -> bool {
        self.is_attempted = !self.is_over && self.outbox.in_flight().is_some();
        self.is_attempted
    }

    /// Begins no other attempt to send anything.
    pub(crate) fn end_attempts(&mut self) {
        self.is_over = true;
    }

    /// Notes a failed attempt. The batch stays as it is and will be sent again.
    pub(crate) fn fail(&mut self, error: &StoreError) {
        self.totals.attempts += 1;
        self.totals.failures += 1;
        self.totals.consecutive_failures = self.totals.consecutive_failures.saturating_add(1);
        self.is_in_doubt |= self.is_attempted && error.kind() == ErrorKind::InDoubt;
        self.is_attempted = false;
        self.totals.doubts += u64::from(error.kind() == ErrorKind::InDoubt);
        self.totals.last_error = Some(error.to_string());
    }

    /// Returns a wait for the moment when everything pending now is stored, `None` when it already is. What a shutdown dropped
    /// is never stored.
    pub(crate) fn when_stored(&mut self) -> Option<Stored> {
        if self.is_empty() && self.totals.dropped == 0 {
            return None;
        }
        let goal = self.freezes + u64::from(!self.pending.table.is_empty());
        self.wanted = self.wanted.max(goal);
        Some(Stored { goal, progress: self.progress.subscribe() })
    }

    /// Returns the number of waits that are not over.
    #[cfg(test)]
    pub(crate) fn waits(&self) -> usize {
        self.progress.receiver_count()
    }

    /// Gives up on what is not stored: everything that waits for it is told.
    pub(crate) fn close(&mut self) {
        self.progress.send_modify(|progress| progress.is_closed = true);
    }

    /// Gives up the deltas that are certainly not in the store, after the deadline of a shutdown, and returns their number of increments.
    pub(crate) fn drop_unsent(&mut self) -> u64 {
        let refused = if self.is_attempted || self.is_in_doubt { 0 } else { self.outbox.drop_in_flight() };
        let dropped = self.pending.table.drain().totals().increments + self.outbox.drop_queued() + refused;
        self.totals.dropped += dropped;
        if dropped > 0 {
            self.close();
        }
        dropped
    }

    /// Tells whether a batch of an earlier process may be in the store without this process knowing.
    pub(crate) fn has_unresolved_past(&self) -> bool {
        self.outbox.resolved() < self.restored
    }

    /// Tells whether there is a reason to send another batch before the next tick.
    pub(crate) fn is_urgent(&self) -> bool {
        self.outbox.queued().len() > 0 || self.wanted > self.freezes
    }
}

/// Recording in the journal.
impl LaneState {
    /// Tells whether the journal does not have the frozen batches.
    pub(super) fn has_unsaved(&self) -> bool {
        self.unsaved().next().is_some() || self.is_stale()
    }

    /// Tells whether what the journal has pending of this lane is in batches that were sent without it.
    pub(crate) fn is_stale(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.is_stale)
    }

    /// Returns what the journal has to do before anything can be recorded, and marks it as being done until
    /// [`end_saving`](Self::end_saving).
    pub(super) fn begin_saving(&mut self) -> Option<Save> {
        let unsaved: Vec<_> = self.unsaved().cloned().collect();
        let (last, is_idle) = (self.outbox.last(), self.outbox.is_empty());
        let backlog = self.backlog.as_mut()?;
        let save = match (unsaved.is_empty(), backlog.is_stale) {
            (false, _) => Save::Batches(unsaved),
            (true, true) if is_idle => Save::Nothing(last),
            (true, true) => return Some(Save::Later),
            (true, false) => return None,
        };
        backlog.is_saving = true;
        Some(save)
    }

    /// Notes whether the journal did what [`begin_saving`](Self::begin_saving) returned.
    pub(super) fn end_saving(&mut self, is_saved: bool) {
        if let Some(backlog) = &mut self.backlog {
            backlog.is_saving = false;
            if is_saved {
                backlog.saved();
            }
        }
    }

    /// Lets the next batch be sent although the journal cannot save it: as one batch, so that it has all that the journal has
    /// pending. A process that takes over the journal gives that the same number.
    pub(super) fn give_up_saving(&mut self) {
        let unsaved = self.unsaved().count();
        let nothing_else_is_queued = unsaved > 0 && unsaved == self.outbox.queued().len();
        if nothing_else_is_queued
            && self.outbox.join_queued()
            && let Some(backlog) = &mut self.backlog
        {
            backlog.give_up_saving();
        }
    }

    /// Takes the deltas that the journal has not recorded. Not while it does not have the frozen batches.
    pub(super) fn take_fresh(&mut self) -> Deltas {
        self.backlog.as_mut().map(JournalBacklog::take_fresh).unwrap_or_default()
    }

    /// Takes the deltas that were quarantined before they were in a batch and are not recorded.
    pub(super) fn take_fresh_quarantine(&mut self) -> Vec<Quarantined> {
        self.backlog.as_mut().map(JournalBacklog::take_quarantine).unwrap_or_default()
    }

    /// Notes that the journal has recorded what was taken.
    pub(super) fn recorded(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.recorded();
        }
    }

    /// Takes back deltas that the journal could not record.
    pub(super) fn put_back_fresh(&mut self, deltas: &Deltas) {
        if let Some(backlog) = &mut self.backlog {
            backlog.put_back_fresh(deltas, &mut self.notes);
        }
    }

    /// Takes back a quarantined delta that could not be recorded.
    pub(super) fn put_back_quarantine(&mut self, quarantined: Quarantined) {
        if let Some(backlog) = &mut self.backlog {
            backlog.quarantine(quarantined);
        }
    }

    /// Returns the number of increments that the journal is recording: whether it has them is not known yet.
    pub(crate) fn recording(&self) -> u64 {
        self.backlog.as_ref().map_or(0, JournalBacklog::recording)
    }

    /// Returns the number of pending increments that the journal has not begun to record.
    pub(crate) fn fresh_increments(&self) -> u64 {
        self.backlog.as_ref().map_or(0, JournalBacklog::fresh_increments)
    }

    /// Returns the number of increments that are in no journal, and of which it is not known whether they will be there, or in
    /// the store: those that are being recorded or saved, and those in a batch that may have arrived.
    pub(crate) fn doubtful_increments(&self) -> u64 {
        let may_have_arrived = self.is_attempted || self.is_in_doubt;
        let Some(backlog) = &self.backlog else {
            return if may_have_arrived { self.in_flight_increments() } else { 0 };
        };
        let is_doubtful =
            backlog.is_saving || (backlog.is_stale && may_have_arrived && self.outbox.in_flight().is_some());
        backlog.recording() + if is_doubtful { backlog.unsaved_increments() } else { 0 }
    }
}

/// Observing.
impl LaneState {
    /// Tells whether everything that was merged is resolved.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.table.is_empty() && self.outbox.is_empty()
    }

    /// Returns the unresolved batch.
    pub(crate) fn in_flight(&self) -> Option<Arc<Batch>> {
        self.outbox.in_flight().cloned()
    }

    /// Returns the number of increments in the unresolved batch.
    pub(crate) fn in_flight_increments(&self) -> u64 {
        self.outbox.in_flight().map_or(0, |batch| batch.totals().increments)
    }

    /// Lists the batches that are not resolved.
    pub(crate) fn batch_ids(&self) -> Vec<BatchId> {
        self.outbox.batches().map(|batch| batch.id().clone()).collect()
    }

    /// Returns the number of counters that are pending, frozen ones included.
    pub(crate) fn counters(&self) -> usize {
        self.pending.table.len() + self.outbox.batches().map(|batch| batch.len()).sum::<usize>()
    }

    /// Returns the number of increments that are pending, frozen ones included, added up from the deltas themselves.
    pub(crate) fn pending_increments(&self) -> u64 {
        let frozen = self.outbox.batches().map(|batch| batch.totals().increments);
        self.pending.increments() + frozen.sum::<u64>()
    }

    /// Lists the increments that went to an overflow metric, by collection, which may come twice.
    pub(crate) fn overflowed(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.pending.overflowed.values().flatten()
    }

    /// Lists the deltas that no store has seen, by stored bucket. While the caller holds the gate for reading, they stay unsent.
    pub(crate) fn unsent(&self) -> impl Iterator<Item = Delta<'_>> {
        self.outbox.queued().flat_map(|batch| batch.deltas()).chain(self.pending.table.iter())
    }

    /// Lists the collections of everything pending, with repetitions.
    pub(crate) fn collections(&self) -> impl Iterator<Item = &str> {
        let frozen = self.outbox.batches().flat_map(|batch| batch.deltas());
        frozen.chain(self.pending.table.iter()).map(|delta| delta.collection)
    }
}
