//! Memory of the batches that were sent through this store object. No count depends on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use countem_core::{Batch, BatchId, Bucket, Writer};
use parking_lot::Mutex;

/// The batches that were sent and resolved through this object, and the buckets in which each writer left watermarks.
#[derive(Debug, Default)]
pub(crate) struct SentBatches {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<(Writer, u16), Lane>,
    writers: HashMap<Writer, Traces>,
}

#[derive(Debug, Default)]
struct Lane {
    /// The newest batch that was sent.
    sent: u64,
    /// The newest batch that was resolved.
    resolved: u64,
}

/// Watermarks that a writer leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// Buckets, by collection, whose documents may have a watermark of the writer.
    pub(crate) touched: BTreeMap<String, BTreeSet<Bucket>>,
    /// Keys of the marks that the writer moved.
    pub(crate) marks: BTreeSet<String>,
    /// A request of the writer was in doubt, so a copy of it may still arrive.
    pub(crate) was_in_doubt: bool,
    /// Number of buckets dropped from `touched` because there were too many.
    pub(crate) dropped: usize,
}

/// Possibility that a batch was sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SentBefore {
    /// Excluded: the batch was made in this process, and the one before it was resolved through this object. A writer sends a
    /// batch only after that.
    Never,
    /// The batch was sent through this object, or comes from a journal or another node. A replay sends a whole row of such
    /// batches, all of which may be stored already.
    Possibly,
}

/// Maximum number of buckets of one collection that are remembered for a writer. The finest period makes one each second.
const MAX_BUCKETS: usize = 2048;

impl SentBatches {
    /// Notes that a batch is about to be sent.
    pub(crate) fn begin(&self, batch: &Batch) -> SentBefore {
        let mut state = self.state.lock();
        let id = batch.id();
        let lane = state.lanes.entry((id.writer.clone(), id.lane)).or_default();
        let is_next = lane.resolved > 0 && lane.resolved + 1 == id.seq && lane.sent < id.seq;
        let is_new = is_next && !batch.is_decoded();
        lane.sent = lane.sent.max(id.seq);
        state.writers.entry(id.writer.clone()).or_default().touch(batch);
        if is_new { SentBefore::Never } else { SentBefore::Possibly }
    }

    /// Notes that a batch is resolved.
    pub(crate) fn resolved(&self, id: &BatchId) {
        if let Some(lane) = self.state.lock().lanes.get_mut(&(id.writer.clone(), id.lane)) {
            lane.resolved = lane.resolved.max(id.seq);
        }
    }

    /// Notes that a request of the writer is in doubt.
    pub(crate) fn in_doubt(&self, writer: &Writer) {
        if let Some(traces) = self.state.lock().writers.get_mut(writer) {
            traces.was_in_doubt = true;
        }
    }

    /// Forgets a writer and returns what it left behind.
    pub(crate) fn forget(&self, writer: &Writer) -> Traces {
        let mut state = self.state.lock();
        state.lanes.retain(|(known, _), _| known != writer);
        state.writers.remove(writer).unwrap_or_default()
    }
}

impl Traces {
    fn touch(&mut self, batch: &Batch) {
        self.marks.extend(batch.mark().map(|mark| mark.key.clone()));
        let mut last = None;
        // The deltas are ordered, so those of one bucket stand together.
        for delta in batch.deltas() {
            if last == Some((delta.collection, delta.bucket)) {
                continue;
            }
            last = Some((delta.collection, delta.bucket));
            if !self.touched.contains_key(delta.collection) {
                self.touched.insert(delta.collection.to_owned(), BTreeSet::new());
            }
            let buckets = self.touched.get_mut(delta.collection).expect("it was inserted if missing");
            buckets.insert(delta.bucket);
            if buckets.len() > MAX_BUCKETS {
                buckets.pop_first();
                self.dropped += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use countem_core::Table;

    use super::*;

    fn batch(seq: u64) -> Batch {
        let mut table = Table::new();
        for day in ["2026-11-20", "2026-11-21"] {
            for metric in ["a", "b"] {
                table.fold("web", metric, day.parse().unwrap(), 1).unwrap();
            }
        }
        Batch::new(BatchId { writer: Writer::new(1, 1), lane: 0, seq }, table.drain())
    }

    #[test]
    fn batch_is_new_after_its_predecessor_was_resolved() {
        let sent = SentBatches::default();
        assert_eq!(sent.begin(&batch(1)), SentBefore::Possibly, "it may come from a journal");
        sent.resolved(batch(1).id());
        assert_eq!(sent.begin(&batch(2)), SentBefore::Never);
        assert_eq!(sent.begin(&batch(2)), SentBefore::Possibly, "it was sent a moment ago");
        sent.resolved(batch(2).id());
        assert_eq!(sent.begin(&batch(4)), SentBefore::Possibly, "another process sent the third");
        sent.resolved(batch(4).id());
        assert_eq!(sent.begin(&batch(3)), SentBefore::Possibly, "a late copy");
        assert_eq!(sent.begin(&batch(5)), SentBefore::Never);
    }

    #[test]
    fn decoded_batch_is_never_new() {
        let sent = SentBatches::default();
        for seq in 1..4 {
            let decoded = Batch::decode(&batch(seq).encode()).unwrap();
            assert_eq!(sent.begin(&decoded), SentBefore::Possibly, "batch {seq} of a replay");
            sent.resolved(decoded.id());
        }
        assert_eq!(sent.begin(&batch(4)), SentBefore::Never);
    }

    #[test]
    fn traces_of_a_writer_are_its_buckets() {
        let sent = SentBatches::default();
        sent.begin(&batch(1));
        sent.in_doubt(&Writer::new(1, 1));
        let traces = sent.forget(&Writer::new(1, 1));
        assert_eq!(traces.touched["web"].len(), 2);
        assert!(traces.was_in_doubt);
        assert!(sent.forget(&Writer::new(1, 1)).touched.is_empty(), "it is forgotten");
    }

    #[test]
    fn memory_of_buckets_is_bounded() {
        let mut traces = Traces::default();
        for second in 0..3000_i64 {
            let mut table = Table::new();
            let moment = countem_core::jiff::Timestamp::from_second(second).unwrap();
            let zone = countem_core::jiff::tz::TimeZone::UTC;
            let bucket = Bucket::containing(countem_core::Period::Second, moment, &zone).unwrap();
            table.fold("web", "a", bucket, 1).unwrap();
            let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 };
            traces.touch(&Batch::new(id, table.drain()));
        }
        assert_eq!((traces.touched["web"].len(), traces.dropped), (MAX_BUCKETS, 3000 - MAX_BUCKETS));
    }
}
