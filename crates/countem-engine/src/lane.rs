//! One lane: what is pending for the collections it serves, and the one batch that is unresolved.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use countem_core::{Batch, BatchId, Bucket, Delta, Deltas, FoldError, OVERFLOW_METRIC, Table, Writer};
use countem_store::{Applied, ErrorKind, Quarantined, Query, Rows, StoreError, overlay};
use tokio::sync::{RwLock, oneshot};

use crate::{
    cardinality::Cardinality,
    sync::{Mutex, MutexGuard},
};

/// The part of a node's pending deltas whose collections hash to this lane.
#[derive(Debug)]
pub(crate) struct Lane {
    state: Mutex<LaneState>,
    /// Held for reading while the store is read, for writing while the next batch becomes the unresolved one: so a read
    /// meets at most one batch that may or may not be in the store, and knows which.
    pub(crate) gate: RwLock<()>,
}

/// See [`Lane`]. Every transition is a plain method: actors only decide when.
#[derive(Debug)]
pub(crate) struct LaneState {
    writer: Writer,
    index: u16,
    batch_counters: usize,
    /// Not frozen yet.
    pending: Table,
    /// The part of `pending` that the journal has not recorded; `None` without a journal.
    fresh: Option<Table>,
    /// Increments that were fresh and are being recorded.
    recording: u64,
    /// What was quarantined here and is not recorded.
    fresh_quarantine: Vec<Quarantined>,
    cardinality: Cardinality,
    /// Frozen, not sent yet.
    queue: VecDeque<Arc<Batch>>,
    /// The batches of the queue are not in the journal yet, so none of them may be sent.
    queue_is_unsaved: bool,
    /// Sent, not resolved yet (I7).
    in_flight: Option<Arc<Batch>>,
    last_seq: u64,
    /// How many batches were ever frozen or restored, and how many of them are resolved: they are resolved in order.
    frozen: u64,
    resolved: u64,
    /// How many of the first batches an earlier process had frozen. Several of them may be in the store already.
    restored: u64,
    /// Nothing more is sent.
    has_ended: bool,
    /// Who waits until everything pending now is stored.
    waiting_for_freeze: Vec<oneshot::Sender<()>>,
    waiting_for_batch: Vec<(u64, oneshot::Sender<()>)>,
    pub(crate) ledger: Ledger,
}

/// Where the increments of a lane went (I1): `merged = applied + pending + quarantined + dropped`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ledger {
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
    /// Increments that went to the overflow metric, by collection.
    pub(crate) overflowed: BTreeMap<String, u64>,
    pub(crate) last_error: Option<String>,
    /// Failed attempts since the last success.
    pub(crate) consecutive_failures: u32,
}

/// Quarantined deltas kept for the stats; older ones are only counted.
const KEPT_QUARANTINE: usize = 1000;

/// What a read has to add to what the store says.
pub(crate) struct Snapshot {
    /// Deltas that no store has seen.
    pub(crate) unsent: Rows,
    /// The batch that the store may or may not have applied.
    pub(crate) in_flight: Option<Arc<Batch>>,
}

impl Lane {
    pub(crate) fn new(writer: Writer, index: u16, batch_counters: usize, metrics_per_bucket: usize) -> Self {
        let state = LaneState {
            writer,
            index,
            batch_counters: batch_counters.max(1),
            pending: Table::new(),
            fresh: None,
            recording: 0,
            fresh_quarantine: Vec::new(),
            cardinality: Cardinality::new(metrics_per_bucket),
            queue: VecDeque::new(),
            queue_is_unsaved: false,
            in_flight: None,
            last_seq: 0,
            frozen: 0,
            resolved: 0,
            restored: 0,
            has_ended: false,
            waiting_for_freeze: Vec::new(),
            waiting_for_batch: Vec::new(),
            ledger: Ledger::default(),
        };
        Self { state: Mutex::new(state), gate: RwLock::new(()) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock()
    }
}

impl LaneState {
    /// Adds a delta that was counted in `delta.bucket`, a stored bucket.
    pub(crate) fn merge(&mut self, delta: Delta<'_>) {
        self.ledger.merged += delta.increments;
        let refused = match self.add(delta, 0) {
            Ok(()) => return,
            Err(FoldError::Full) => self.merge_new(delta),
            Err(error) => Err(error),
        };
        if let Err(error) = refused {
            self.quarantine_counted(Quarantined::new(delta, error.to_string()));
        }
    }

    /// Quarantines a delta that never was in a batch: the journal has to be told.
    fn quarantine_counted(&mut self, quarantined: Quarantined) {
        if self.fresh.is_some() {
            self.fresh_quarantine.push(quarantined.clone());
        }
        self.quarantine(quarantined);
    }

    /// Adds a delta whose counter is not pending yet: the place where the cardinality cap is kept.
    fn merge_new(&mut self, delta: Delta<'_>) -> Result<(), FoldError> {
        if self.cardinality.admits(delta.collection, delta.bucket, delta.metric) {
            return self.add(delta, usize::MAX);
        }
        let known = self.ledger.overflowed.get_mut(delta.collection);
        match known {
            Some(increments) => *increments += delta.increments,
            None => {
                tracing::warn!(
                    collection = delta.collection,
                    bucket = %delta.bucket,
                    "bucket has reached `limits.metrics_per_bucket`, new metrics are counted as `__overflow__`"
                );
                self.ledger.overflowed.insert(delta.collection.to_owned(), delta.increments);
            }
        }
        self.add(Delta { metric: OVERFLOW_METRIC, ..delta }, usize::MAX)
    }

    /// Adds a delta to what is pending, and to what the journal has to record, or to neither.
    fn add(&mut self, delta: Delta<'_>, most: usize) -> Result<(), FoldError> {
        let Some(fresh) = &mut self.fresh else {
            return self.pending.merge_within(delta, most);
        };
        let Delta { collection, metric, bucket, n, .. } = delta;
        fresh.get(collection, metric, bucket).unwrap_or(0).checked_add(n).ok_or(FoldError::Overflow)?;
        self.pending.merge_within(delta, most)?;
        fresh.merge(delta)
    }

    /// Adds an increment, one delta for each stored bucket, only if all of its counters are pending already: at most a second
    /// time beside a frozen batch.
    pub(crate) fn merge_known(&mut self, deltas: &[Delta<'_>]) -> Result<(), FoldError> {
        for delta in deltas {
            let Delta { collection, metric, bucket, n, .. } = *delta;
            let pending = self.pending.get(collection, metric, bucket);
            let is_frozen = || self.queue.iter().chain(&self.in_flight).any(|batch| batch.contains(delta));
            if pending.is_none() && !is_frozen() {
                return Err(FoldError::Full);
            }
            // What is fresh is a part of what is pending, and may leave `i64` all the same.
            let fresh = self.fresh.as_ref().and_then(|fresh| fresh.get(collection, metric, bucket));
            for sum in [pending, fresh].into_iter().flatten() {
                sum.checked_add(n).ok_or(FoldError::Overflow)?;
            }
        }
        for delta in deltas {
            self.add(*delta, usize::MAX)?;
            self.ledger.merged += delta.increments;
            self.ledger.direct += delta.increments;
        }
        Ok(())
    }

    fn quarantine(&mut self, quarantined: Quarantined) {
        tracing::error!(
            collection = quarantined.collection,
            metric = quarantined.metric,
            bucket = %quarantined.bucket,
            n = quarantined.n,
            reason = quarantined.reason,
            "counter is quarantined"
        );
        self.ledger.quarantined += quarantined.increments;
        if self.ledger.quarantine.len() == KEPT_QUARANTINE {
            self.ledger.quarantine.pop_front();
        }
        self.ledger.quarantine.push_back(quarantined);
    }

    /// Returns the number of counters that are pending, frozen ones included.
    pub(crate) fn counters(&self) -> usize {
        let queued: usize = self.queue.iter().map(|batch| batch.len()).sum();
        self.pending.len() + queued + self.in_flight.as_ref().map_or(0, |batch| batch.len())
    }

    /// Returns the number of increments that are pending, frozen ones included, added up from the deltas themselves.
    pub(crate) fn pending_increments(&self) -> u64 {
        let frozen = self.queue.iter().chain(&self.in_flight).map(|batch| batch.totals().increments);
        self.pending.deltas().totals().increments + frozen.sum::<u64>()
    }

    /// Tells whether everything that was merged is resolved.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.queue.is_empty() && self.in_flight.is_none()
    }

    /// Returns the unresolved batch, or makes the next one unresolved; `None` when nothing is pending.
    ///
    /// The caller holds the gate for writing unless the batch is already in flight, and has saved what
    /// [`freeze`](Self::freeze) returned.
    pub(crate) fn advance(&mut self) -> Option<Arc<Batch>> {
        if self.in_flight.is_none() && !self.queue_is_unsaved {
            self.in_flight = self.queue.pop_front();
        }
        self.in_flight.clone()
    }

    /// Freezes everything pending into batches of bearable size, unless earlier ones still wait, and returns those that the
    /// journal has to save before any of them is sent.
    pub(crate) fn freeze(&mut self) -> Vec<Arc<Batch>> {
        if self.queue.is_empty() && self.in_flight.is_none() && !self.pending.is_empty() {
            while !self.pending.is_empty() {
                let deltas = self.pending.take(self.batch_counters);
                self.last_seq += 1;
                self.frozen += 1;
                let id = BatchId { writer: self.writer.clone(), lane: self.index, seq: self.last_seq };
                self.queue.push_back(Arc::new(Batch::new(id, deltas)));
            }
            let last = self.frozen;
            self.waiting_for_batch.extend(self.waiting_for_freeze.drain(..).map(|waiting| (last, waiting)));
            if let Some(fresh) = &mut self.fresh {
                // The batches hold it, and they are saved as a whole.
                fresh.clear();
                self.queue_is_unsaved = true;
            }
        }
        if self.queue_is_unsaved { self.queue.iter().cloned().collect() } else { Vec::new() }
    }

    /// Notes that the journal has the batches which [`freeze`](Self::freeze) returned.
    pub(crate) fn saved(&mut self) {
        self.queue_is_unsaved = false;
    }

    /// Tells whether the journal does not have the frozen batches.
    pub(crate) fn has_unsaved(&self) -> bool {
        self.queue_is_unsaved
    }

    /// Takes what the journal has not recorded. Not while it does not have the frozen batches.
    pub(crate) fn take_fresh(&mut self) -> Deltas {
        debug_assert!(!self.queue_is_unsaved, "saving the batches makes the journal forget what is recorded");
        let fresh = self.fresh.as_mut().map(Table::drain).unwrap_or_default();
        self.recording = fresh.totals().increments;
        fresh
    }

    /// Takes what was quarantined before it was in a batch, and is not recorded.
    pub(crate) fn take_fresh_quarantine(&mut self) -> Vec<Quarantined> {
        std::mem::take(&mut self.fresh_quarantine)
    }

    /// Notes that the journal has recorded what was taken.
    pub(crate) fn recorded(&mut self) {
        self.recording = 0;
    }

    /// Takes back what was quarantined and could not be recorded.
    pub(crate) fn put_back_quarantine(&mut self, quarantined: Quarantined) {
        self.fresh_quarantine.push(quarantined);
    }

    /// Takes back what the journal could not record.
    pub(crate) fn put_back_fresh(&mut self, deltas: &Deltas) {
        self.recording = 0;
        let Some(fresh) = &mut self.fresh else { return };
        for delta in deltas.iter() {
            if let Err(error) = fresh.merge(delta) {
                tracing::error!(metric = delta.metric, %error, "delta stays out of the journal until it is frozen");
            }
        }
    }

    /// Continues with what a journal kept: unresolved batches under their old identity, and deltas that were never frozen.
    pub(crate) fn restore(&mut self, frozen: Vec<Batch>, pending: &Deltas) {
        self.fresh = Some(Table::new());
        let before = frozen.iter().map(|batch| batch.totals().increments).sum::<u64>();
        self.restored = frozen.len() as u64;
        self.frozen += self.restored;
        self.queue.extend(frozen.into_iter().map(Arc::new));
        for delta in pending.iter() {
            self.ledger.merged += delta.increments;
            if let Err(error) = self.pending.merge(delta) {
                self.quarantine(Quarantined::new(delta, error.to_string()));
            }
        }
        self.ledger.merged += before;
        self.ledger.direct = self.ledger.merged;
    }

    /// Returns the number of increments that the journal is recording: whether it has them is not known yet.
    pub(crate) fn recording(&self) -> u64 {
        self.recording
    }

    /// Returns the number of pending increments that the journal has not begun to record.
    pub(crate) fn fresh_increments(&self) -> u64 {
        let unsaved =
            self.queue.iter().filter(|_| self.queue_is_unsaved).map(|batch| batch.totals().increments);
        self.fresh.as_ref().map_or(0, |fresh| fresh.deltas().totals().increments) + unsaved.sum::<u64>()
    }

    /// Ends the unresolved batch: the store has all of it but what is quarantined.
    pub(crate) fn resolve(&mut self, applied: Applied) {
        let batch = self.in_flight.take().expect("only the batch in flight is resolved");
        let quarantined: u64 = applied.quarantined.iter().map(|q| q.increments).sum();
        self.ledger.applied += batch.totals().increments.saturating_sub(quarantined);
        self.ledger.batches += 1;
        self.ledger.attempts += 1;
        self.ledger.consecutive_failures = 0;
        self.ledger.last_error = None;
        applied.quarantined.into_iter().for_each(|quarantined| self.quarantine(quarantined));
        self.resolved += 1;
        let waiting = std::mem::take(&mut self.waiting_for_batch);
        let (done, waiting) = waiting.into_iter().partition(|(goal, _)| *goal <= self.resolved);
        self.waiting_for_batch = waiting;
        for (_, waiting) in done {
            // Whoever waited may have given up.
            waiting.send(()).ok();
        }
    }

    /// Notes a failed attempt. The batch stays as it is and will be sent again.
    pub(crate) fn fail(&mut self, error: &StoreError) {
        self.ledger.attempts += 1;
        self.ledger.failures += 1;
        self.ledger.consecutive_failures = self.ledger.consecutive_failures.saturating_add(1);
        self.ledger.doubts += u64::from(error.kind() == ErrorKind::InDoubt);
        self.ledger.last_error = Some(error.to_string());
    }

    /// Returns what tells when everything pending now is stored, `None` when it already is.
    pub(crate) fn settled(&mut self) -> Option<oneshot::Receiver<()>> {
        if self.is_settled() {
            return None;
        }
        let (done, settled) = oneshot::channel();
        if self.has_ended {
            return Some(settled);
        }
        if self.pending.is_empty() {
            self.waiting_for_batch.push((self.frozen, done));
        } else {
            self.waiting_for_freeze.push(done);
        }
        Some(settled)
    }

    /// Gives up on what is not settled: whoever waits is told.
    pub(crate) fn end(&mut self) {
        self.has_ended = true;
        self.waiting_for_freeze.clear();
        self.waiting_for_batch.clear();
    }

    /// Tells whether a batch of an earlier process may be in the store without our knowing.
    pub(crate) fn has_unresolved_past(&self) -> bool {
        self.resolved < self.restored
    }

    /// Tells whether there is a reason to send another batch before the next tick.
    pub(crate) fn is_urgent(&self) -> bool {
        !self.queue.is_empty() || !self.waiting_for_freeze.is_empty()
    }

    /// Returns what a read of `query` has to add. The caller holds the gate for reading.
    pub(crate) fn snapshot(&self, query: &Query) -> Snapshot {
        let mut unsent = Rows::new();
        for batch in &self.queue {
            overlay(&mut unsent, query, batch.deltas());
        }
        overlay(&mut unsent, query, self.pending.iter());
        Snapshot { unsent, in_flight: self.in_flight.clone() }
    }

    /// Lists collections that have something pending.
    pub(crate) fn collections(&self) -> impl Iterator<Item = &str> {
        let frozen = self.queue.iter().chain(&self.in_flight).flat_map(|batch| batch.deltas());
        frozen.chain(self.pending.iter()).map(|delta| delta.collection)
    }

    /// Gives up what was never sent, and returns how many increments that were. Only a shutdown whose deadline has passed
    /// does this.
    pub(crate) fn drop_unsent(&mut self) -> u64 {
        let unsent = self.pending.drain().totals().increments;
        let queued: u64 = self.queue.drain(..).map(|batch| batch.totals().increments).sum();
        self.ledger.dropped += unsent + queued;
        unsent + queued
    }

    /// Returns the unresolved batch.
    pub(crate) fn in_flight(&self) -> Option<Arc<Batch>> {
        self.in_flight.clone()
    }

    /// Returns the number of increments in the unresolved batch.
    pub(crate) fn in_flight_increments(&self) -> u64 {
        self.in_flight.as_ref().map_or(0, |batch| batch.totals().increments)
    }
}

/// Returns which of `lanes` lanes serves `collection`: FNV-1a, so that a restarted node, and whoever works on its journal, uses the
/// same one. Two lanes never touch one document.
pub fn lane_of(collection: &str, lanes: u16) -> u16 {
    let hash = collection.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u16::try_from(hash % u64::from(lanes.max(1))).expect("a remainder is smaller than the number of lanes")
}

/// Returns the bucket of one delta, for callers that fan out.
pub(crate) fn in_bucket(delta: Delta<'_>, bucket: Bucket, first: bool) -> Delta<'_> {
    // The increments are accounted for once, by the finest stored bucket.
    Delta { bucket, increments: if first { delta.increments } else { 0 }, ..delta }
}

#[cfg(test)]
mod tests {
    use super::lane_of;

    /// A journal holds batches by lane: a collection that moved to another one could have two batches under way at once.
    #[test]
    fn a_collection_stays_in_its_lane_from_release_to_release() {
        // From the published test vectors of 64-bit FNV-1a: af63dc4c8601ec8c and 85944171f73967e8.
        assert_eq!(
            (lane_of("a", 7), lane_of("a", u16::MAX), lane_of("foobar", u16::MAX)),
            (5, 65_086, 9_768)
        );
    }
}
