//! What this store object remembers of the batches it was given. Nothing here is needed for a count to be exact.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use countem_core::{Batch, BatchId, Bucket, Writer};
use parking_lot::Mutex;

/// Which batches were sent and resolved through this object, and where watermarks of a writer were left.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<(Writer, u16), Lane>,
    writers: HashMap<Writer, Traces>,
}

#[derive(Debug, Default)]
struct Lane {
    /// The newest batch that this object was asked to apply.
    asked: u64,
    /// The newest batch that this object saw resolved.
    resolved: u64,
}

/// What a writer leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// The buckets, by collection, that may have documents with a watermark of the writer.
    pub(crate) touched: BTreeMap<String, BTreeSet<Bucket>>,
    /// A request of the writer brought no clear answer, so a copy of it may still arrive.
    pub(crate) doubted: bool,
    /// Buckets that are not in `touched` because there are too many.
    pub(crate) forgotten: usize,
}

/// Whether anybody can have sent a batch before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Novelty {
    /// Nobody has: this object saw the one before resolved, and was not asked for this one yet. A writer sends a batch only after
    /// the one before is resolved.
    New,
    /// This object cannot know. It may be a batch from a journal, sent by a process that ended.
    Unknown,
}

/// Most buckets of one collection that are remembered for a writer. The finest periods make one each second.
const MOST_BUCKETS: usize = 2048;

impl Ledger {
    /// Notes that a batch is about to be sent.
    pub(crate) fn begin(&self, batch: &Batch) -> Novelty {
        let mut state = self.state.lock();
        let id = batch.id();
        let lane = state.lanes.entry((id.writer.clone(), id.lane)).or_default();
        let is_next = lane.resolved > 0 && lane.resolved + 1 == id.seq && lane.asked < id.seq;
        lane.asked = lane.asked.max(id.seq);
        state.writers.entry(id.writer.clone()).or_default().touch(batch);
        if is_next { Novelty::New } else { Novelty::Unknown }
    }

    /// Notes that a batch is resolved.
    pub(crate) fn resolved(&self, id: &BatchId) {
        if let Some(lane) = self.state.lock().lanes.get_mut(&(id.writer.clone(), id.lane)) {
            lane.resolved = lane.resolved.max(id.seq);
        }
    }

    /// Notes that a request of the writer may be late.
    pub(crate) fn doubted(&self, writer: &Writer) {
        if let Some(traces) = self.state.lock().writers.get_mut(writer) {
            traces.doubted = true;
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
            if buckets.len() > MOST_BUCKETS {
                buckets.pop_first();
                self.forgotten += 1;
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
    fn a_batch_is_new_only_after_the_one_before_was_seen_resolved() {
        let ledger = Ledger::default();
        assert_eq!(ledger.begin(&batch(1)), Novelty::Unknown, "it may come from a journal");
        ledger.resolved(batch(1).id());
        assert_eq!(ledger.begin(&batch(2)), Novelty::New);
        assert_eq!(ledger.begin(&batch(2)), Novelty::Unknown, "it was sent a moment ago");
        ledger.resolved(batch(2).id());
        assert_eq!(ledger.begin(&batch(4)), Novelty::Unknown, "another process sent the third");
        ledger.resolved(batch(4).id());
        assert_eq!(ledger.begin(&batch(3)), Novelty::Unknown, "a late copy");
        assert_eq!(ledger.begin(&batch(5)), Novelty::New);
    }

    #[test]
    fn the_traces_of_a_writer_are_its_buckets() {
        let ledger = Ledger::default();
        ledger.begin(&batch(1));
        ledger.doubted(&Writer::new(1, 1));
        let traces = ledger.forget(&Writer::new(1, 1));
        assert_eq!(traces.touched["web"].len(), 2);
        assert!(traces.doubted);
        assert!(ledger.forget(&Writer::new(1, 1)).touched.is_empty(), "it is forgotten");
    }

    #[test]
    fn the_memory_of_buckets_is_bounded() {
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
        assert_eq!((traces.touched["web"].len(), traces.forgotten), (MOST_BUCKETS, 3000 - MOST_BUCKETS));
    }
}
