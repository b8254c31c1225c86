//! The batches of one lane: frozen once, sent in order, one at a time.

use std::{collections::VecDeque, sync::Arc};

use countem_core::{Batch, BatchId, Deltas, Mark, Table, Writer};
use countem_store::Applied;

/// Turns deltas into batches of one writer and lane, and hands them out in order, at most one unresolved (I7).
///
/// Every step is a plain method: the caller decides when to freeze, sends what [`advance`](Self::advance) returns (for example with
/// [`deliver`](crate::deliver)), and calls [`resolve`](Self::resolve) once the store has it. An error needs no call: the
/// batch stays unresolved, and `advance` returns the same one again.
///
/// ```
/// # use std::sync::Arc;
/// # use countem_core::{Table, Writer};
/// # use countem_engine::Outbox;
/// # use countem_store::{MemoryStore, Store};
/// # async fn send(mut counted: Table, store: MemoryStore) -> Result<(), Box<dyn std::error::Error>> {
/// let mut outbox = Outbox::new(Writer::new(7, 1), 0, 50_000);
/// outbox.freeze(&mut counted);
/// while let Some(batch) = outbox.advance() {
///     let applied = store.apply(&batch).await?;
///     outbox.resolve(&applied);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Outbox {
    writer: Writer,
    lane: u16,
    batch_counters: usize,
    is_journaled: bool,
    last_seq: u64,
    /// Frozen, not sent yet.
    queue: VecDeque<Arc<Batch>>,
    /// Sent, not resolved yet (I7).
    in_flight: Option<Arc<Batch>>,
    frozen: u64,
    resolved: u64,
}

/// A batch that the store has, but for its quarantined counters.
#[derive(Debug)]
pub struct Resolved {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Number of its increments that are in the store.
    pub applied: u64,
    /// Number of its increments that the store quarantined.
    pub quarantined: u64,
}

impl Outbox {
    /// Returns an empty outbox whose first batch has number 1. A batch holds at most `batch_counters` counters.
    pub fn new(writer: Writer, lane: u16, batch_counters: usize) -> Self {
        Self {
            writer,
            lane,
            batch_counters: batch_counters.max(1),
            is_journaled: false,
            last_seq: 0,
            queue: VecDeque::new(),
            in_flight: None,
            frozen: 0,
            resolved: 0,
        }
    }

    /// Declares that a journal keeps what the store quarantines of the batches from now on.
    pub fn use_journal(&mut self) {
        self.is_journaled = true;
    }

    /// Appends batches that were frozen before, by this writer or another one, under the identities that they have.
    ///
    /// They are sent as they are. Those of another writer do not change the number of the next batch: one writer never continues
    /// another's numbers.
    pub fn restore(&mut self, frozen: impl IntoIterator<Item = Arc<Batch>>) {
        for batch in frozen {
            if batch.id().writer == self.writer {
                self.last_seq = self.last_seq.max(batch.id().seq);
            }
            self.push(batch);
        }
    }

    /// Freezes everything in `pending` into batches of at most the configured number of counters.
    pub fn freeze(&mut self, pending: &mut Table) {
        while !pending.is_empty() {
            let deltas = pending.take(self.batch_counters);
            self.freeze_whole(deltas, None);
        }
    }

    /// Freezes `deltas` into one batch, however many they are, together with a mark that becomes true when they are stored.
    pub fn freeze_whole(&mut self, deltas: Deltas, mark: Option<Mark>) {
        self.last_seq += 1;
        let id = BatchId { writer: self.writer.clone(), lane: self.lane, seq: self.last_seq };
        let batch = match mark {
            None => Batch::new(id, deltas),
            Some(mark) => Batch::with_mark(id, deltas, mark),
        };
        self.push(Arc::new(if self.is_journaled { batch.journaled() } else { batch }));
    }

    fn push(&mut self, batch: Arc<Batch>) {
        self.frozen += 1;
        self.queue.push_back(batch);
    }

    /// Returns the unresolved batch, or makes the next one unresolved; `None` when the outbox is empty.
    ///
    /// At level `journal` a batch must be in the journal before this hands it out.
    pub fn advance(&mut self) -> Option<Arc<Batch>> {
        if self.in_flight.is_none() {
            self.in_flight = self.queue.pop_front();
        }
        self.in_flight.clone()
    }

    /// Ends the unresolved batch: the store has all of it but what it quarantined.
    ///
    /// # Panics
    /// When no batch is unresolved.
    pub fn resolve(&mut self, applied: &Applied) -> Resolved {
        let batch = self.in_flight.take().expect("only the batch in flight is resolved");
        self.resolved += 1;
        let quarantined = applied.quarantined.iter().map(|counter| counter.increments).sum();
        let applied = batch.totals().increments.saturating_sub(quarantined);
        Resolved { batch, applied, quarantined }
    }

    /// Returns the unresolved batch.
    pub fn in_flight(&self) -> Option<&Arc<Batch>> {
        self.in_flight.as_ref()
    }

    /// Lists the frozen batches that were not sent yet, in the order in which they are sent.
    pub fn queued(&self) -> impl ExactSizeIterator<Item = &Arc<Batch>> {
        self.queue.iter()
    }

    /// Lists all batches: the unresolved one, then the queued ones.
    pub fn batches(&self) -> impl Iterator<Item = &Arc<Batch>> {
        self.in_flight.iter().chain(&self.queue)
    }

    /// Tells whether every batch is resolved.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_none() && self.queue.is_empty()
    }

    /// Tells whether this outbox has used the identity of its writer.
    pub fn has_frozen(&self) -> bool {
        self.last_seq > 0
    }

    /// Returns the number of batches frozen or restored so far.
    pub fn frozen(&self) -> u64 {
        self.frozen
    }

    /// Returns the number of batches resolved so far. Batches are resolved in order, so these are the first ones.
    pub fn resolved(&self) -> u64 {
        self.resolved
    }

    /// Makes one batch of those in the queue, under the number of the first, which nothing has seen yet. Returns false, and
    /// changes nothing, if their sum is no batch.
    pub(crate) fn join_queued(&mut self) -> bool {
        let (Some(first), 2..) = (self.queue.front(), self.queue.len()) else { return true };
        let (id, mut joined) = (first.id().clone(), Table::new());
        if !self.queue.iter().flat_map(|batch| batch.deltas()).all(|delta| joined.merge(delta).is_ok()) {
            return false;
        }
        self.frozen -= self.queue.len() as u64 - 1;
        self.last_seq = id.seq;
        self.queue = VecDeque::from([Arc::new(Batch::new(id, joined.drain()))]);
        true
    }

    /// Returns the identity of the newest batch of this writer.
    pub(crate) fn last(&self) -> BatchId {
        BatchId { writer: self.writer.clone(), lane: self.lane, seq: self.last_seq }
    }

    /// Gives up the batch in flight, and returns how many increments it held.
    pub(crate) fn drop_in_flight(&mut self) -> u64 {
        self.in_flight.take().map_or(0, |batch| batch.totals().increments)
    }

    /// Gives up the batches that were never sent, and returns how many increments they held.
    pub fn drop_queued(&mut self) -> u64 {
        self.queue.drain(..).map(|batch| batch.totals().increments).sum()
    }
}

#[cfg(test)]
mod tests {
    use countem_store::Quarantined;

    use super::*;

    fn table(metrics: impl IntoIterator<Item = i64>) -> Table {
        let mut table = Table::new();
        for n in metrics {
            table.fold("c", &format!("m{n}"), "2026-11-20".parse().unwrap(), n).unwrap();
        }
        table
    }

    fn outbox(batch_counters: usize) -> Outbox {
        Outbox::new(Writer::new(7, 1), 3, batch_counters)
    }

    #[test]
    fn deltas_are_split_without_loss() {
        let mut outbox = outbox(4);
        let mut pending = table(0..10);
        outbox.freeze(&mut pending);
        assert!(pending.is_empty());
        assert_eq!(outbox.queued().map(|batch| batch.len()).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(outbox.queued().map(|batch| batch.totals().n).sum::<i128>(), 45);
        let ids: Vec<_> = outbox.queued().map(|batch| (batch.id().lane, batch.id().seq)).collect();
        assert_eq!(ids, [(3, 1), (3, 2), (3, 3)]);
    }

    #[test]
    fn next_batch_waits_for_the_unresolved_one() {
        let mut outbox = outbox(1);
        outbox.freeze(&mut table(1..3));
        let first = outbox.advance().unwrap();
        assert!(Arc::ptr_eq(&first, &outbox.advance().unwrap()), "an unresolved batch is handed out again");
        outbox.resolve(&Applied::default());
        assert_eq!(outbox.advance().unwrap().id().seq, 2);
        outbox.resolve(&Applied::default());
        assert!(outbox.advance().is_none() && outbox.is_empty());
        assert_eq!((outbox.frozen(), outbox.resolved()), (2, 2));
    }

    #[test]
    fn restored_batches_come_first_and_keep_their_identity() {
        let mut earlier = Outbox::new(Writer::new(7, 0), 3, 10);
        earlier.freeze(&mut table([1]));
        let mut outbox = outbox(10);
        outbox.restore(earlier.queued().cloned());
        assert!(!outbox.has_frozen());
        outbox.freeze(&mut table([2]));
        let ids: Vec<_> = outbox.batches().map(|batch| (batch.id().writer.epoch(), batch.id().seq)).collect();
        assert_eq!(ids, [(0, 1), (1, 1)]);
    }

    #[test]
    fn marked_deltas_stay_in_one_batch() {
        let mut outbox = outbox(1);
        let mark = Mark { key: "file".into(), expected: None, value: Some("12".into()) };
        outbox.freeze_whole(table(0..3).drain(), Some(mark.clone()));
        let batch = outbox.advance().unwrap();
        assert_eq!((batch.len(), batch.mark()), (3, Some(&mark)));
    }

    #[test]
    fn resolved_increments_are_applied_or_quarantined() {
        let mut outbox = outbox(10);
        outbox.freeze(&mut table(1..4));
        let batch = outbox.advance().unwrap();
        let quarantined = batch.deltas().take(1).map(|delta| Quarantined::new(delta, "full"));
        let resolved = outbox.resolve(&Applied { quarantined: quarantined.collect() });
        assert_eq!((resolved.applied, resolved.quarantined), (2, 1));
        assert_eq!(resolved.batch.id(), batch.id());
    }

    #[test]
    fn dropped_batches_are_counted() {
        let mut outbox = outbox(1);
        outbox.freeze(&mut table(1..4));
        drop(outbox.advance());
        assert_eq!(outbox.drop_queued(), 2);
        assert!(outbox.in_flight().is_some());
    }
}
