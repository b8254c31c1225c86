//! The documents that a batch is added to, and the limits of one document.

use countem_core::{BatchId, Delta};
use mongodb::bson::{
    RawArrayBuf, RawDocumentBuf,
    raw::{CStr, cstr},
    rawdoc,
};

use super::quarantine::{Omitted, held_entries, stamp};
use crate::{
    document::{COUNTERS, DocumentId, HELD, QUARANTINED, SPLIT, WATERMARKS, watermark},
    expiry::is_live,
    known_splits::BucketSplits,
    names::{encoded_len, path, write_counter_path},
    partition::{By, Partition, Split},
};

/// The deltas of a batch that one document is responsible for, and what is known of that document.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) id: DocumentId,
    pub(crate) deltas: Vec<Hashed<'a>>,
    /// Bytes that the deltas need in the document.
    bytes: usize,
    pub(crate) step: Step,
    /// An update was answered with "did not apply". From then on a majority read shows whether the document has the batch: the
    /// answer waited for the majority, or for the journal, to have all that the update met.
    pub(crate) refused: bool,
    /// This run has split the document, so its children are missing.
    pub(crate) split_here: bool,
    /// Number of times that the server refused the data of the update although no reason was found.
    pub(crate) unexplained: u8,
    pub(crate) omitted: Omitted,
}

/// Next step for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read the document: does it exist, does it have the batch, is it split?
    Probe,
    /// Find the deltas that the server cannot add, for the reason that it gave.
    FindOffenders(String),
    /// Create the document, split from the start if it would be full at once.
    Create(Option<Split>),
    /// Ensure that a split which was read will stay.
    Confirm(Split),
    /// Split the document.
    Split(Split),
    /// Send the update.
    Send,
}

/// A delta and the hash of its metric.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hashed<'a> {
    pub(crate) hash: u64,
    pub(crate) delta: Delta<'a>,
}

/// Limits of one document. Exactness does not depend on them, so processes may differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) metrics: usize,
    pub(crate) writer_shards: usize,
}

/// Bytes of an `int64` element without its key.
const ELEMENT: usize = 10;
/// Maximum number of bytes that one update adds to a document.
const MAX_ADDED: usize = 128 * 1024;
/// Bytes of counters at which a document is full, however long its names are.
const MAX_SIZE: usize = 256 * 1024;
/// Bytes of a whole document at which it is full: watermarks of many writers, and what it holds in quarantine, make every
/// update slow and end at 16 MB.
pub(super) const MAX_DOCUMENT: i32 = 1024 * 1024;
/// Minimum number of parts of a document that became full bit by bit.
const MIN_PARTS: usize = 4;
/// Number and bytes of typical deltas. An update with few deltas says little about the length of the names in its document, so
/// it is judged as if it had these as well.
const TYPICAL: (usize, usize) = (16, 16 * 40);

impl Limits {
    /// Returns the number of parts into which the deltas of `target` must be split, `None` if one document can take them.
    fn parts_for(self, target: &Target<'_>) -> Option<usize> {
        let is_too_large = target.deltas.len() > 2 * self.metrics || target.bytes > MAX_ADDED;
        is_too_large.then(|| {
            let by_metrics = target.deltas.len().div_ceil(self.metrics);
            by_metrics.max(target.bytes.div_ceil(MAX_ADDED / 2)).max(2)
        })
    }

    /// Returns the bytes of counters at which the document is full: twice the configured number of metrics, with names as long as
    /// these.
    fn full(self, target: &Target<'_>) -> usize {
        let (count, bytes) = (target.deltas.len() + TYPICAL.0, target.bytes + TYPICAL.1);
        (2 * self.metrics * bytes / count).min(MAX_SIZE)
    }
}

impl<'a> Target<'a> {
    fn new(id: DocumentId, deltas: Vec<Hashed<'a>>, limits: Limits) -> Self {
        let bytes = deltas.iter().map(|hashed| encoded_len(hashed.delta.metric) + ELEMENT).sum();
        let mut target = Self {
            id,
            deltas,
            bytes,
            step: Step::Send,
            refused: false,
            split_here: false,
            unexplained: 0,
            omitted: Omitted::new(),
        };
        // A document that would have to be split is read first. To any other the update is just sent, protected by its guard.
        if target.split_when_missing(limits).is_some() {
            target.step = Step::Probe;
        }
        target
    }

    /// Returns a target whose document has to be read first.
    pub(crate) fn probing(id: DocumentId, deltas: Vec<Hashed<'a>>, limits: Limits) -> Self {
        Self { step: Step::Probe, ..Self::new(id, deltas, limits) }
    }

    /// Divides the deltas of one bucket among the documents that are known to be responsible.
    pub(crate) fn of_bucket(
        deltas: Vec<Hashed<'a>>,
        splits: Option<&BucketSplits>,
        writer: u64,
        limits: Limits,
        out: &mut Vec<Self>,
    ) {
        let Some(bucket) = deltas.first().map(|hashed| hashed.delta.bucket) else { return };
        let Some(splits) = splits else {
            return out.push(Self::new(DocumentId::root(bucket), deltas, limits));
        };
        group(
            deltas,
            |hashed| splits.leaf(hashed.hash, writer),
            |partition, deltas| {
                out.push(Self::new(DocumentId { bucket, partition }, deltas, limits));
            },
        );
    }

    /// Divides the deltas among the children of the document.
    pub(crate) fn into_children(self, split: Split, writer: u64, limits: Limits, out: &mut Vec<Self>) {
        let Self { id: DocumentId { bucket, partition }, deltas, split_here, .. } = self;
        let child = |hashed: &Hashed<'a>| partition.child(split, hashed.hash, writer);
        group(deltas, child, |partition, deltas| {
            let mut child = Self::new(DocumentId { bucket, partition }, deltas, limits);
            if split_here {
                child.step = Step::Create(child.split_when_missing(limits));
            }
            out.push(child);
        });
    }

    /// Returns the split with which the document has to be created.
    pub(crate) fn split_when_missing(&self, limits: Limits) -> Option<Split> {
        let shards = limits.writer_shards.next_power_of_two() / self.id.partition.writer_shards();
        let by_writers = Split::into_parts(By::Writers, shards.max(1));
        let by_metrics = || Split::into_parts(By::Metrics, limits.parts_for(self)?);
        by_writers.or_else(by_metrics).and_then(|split| self.id.partition.allowed(split))
    }

    /// Returns the split that the document, which holds `size` bytes of counters or is `large` as a whole, needs before it takes
    /// these deltas.
    pub(crate) fn split_when_there(&self, size: usize, is_large: bool, limits: Limits) -> Option<Split> {
        self.split_when_missing(limits).or_else(|| {
            let is_full = is_large || size >= limits.full(self);
            let split = is_full.then(|| Split::into_parts(By::Metrics, MIN_PARTS)).flatten()?;
            self.id.partition.allowed(split)
        })
    }

    /// Tells whether the document is a root that has to be created.
    pub(crate) fn creates_root(&self) -> bool {
        self.id.partition == Partition::ROOT && matches!(self.step, Step::Create(_))
    }

    /// Omits all deltas, because the bucket has expired.
    pub(crate) fn omit_expired(&mut self) {
        let reason = format!("the bucket {} has expired", self.id.bucket);
        self.omitted =
            self.deltas.iter().map(|hashed| (hashed.delta.metric.to_owned(), reason.clone())).collect();
    }

    /// Returns the approximate number of bytes of the update in a command.
    pub(crate) fn update_bytes(&self) -> usize {
        const REST: usize = 640;
        self.bytes + self.deltas.len() * 4 + REST
    }

    /// Returns the update: it adds the deltas that can be added, and sets the watermark, if the guard lets it.
    pub(crate) fn update(&self, id: &BatchId, is_journaled: bool, limits: Limits) -> RawDocumentBuf {
        let mut set = rawdoc! { (path(WATERMARKS, id.writer.as_str())): watermark(id) };
        if !self.omitted.is_empty() {
            set.append(path(QUARANTINED, id.writer.as_str()), stamp(id, &self.omitted));
        }
        let mut change = RawDocumentBuf::new();
        // An empty `$inc` is an error before MongoDB 5.0.
        if self.deltas.len() > self.omitted.len() {
            change.append(cstr!("$inc"), self.increments());
        }
        change.append(cstr!("$set"), set);
        if !is_journaled && !self.omitted.is_empty() {
            let entries = held_entries(id, &self.omitted, self.deltas.iter().map(|hashed| hashed.delta));
            change.append(cstr!("$push"), rawdoc! { HELD: { "$each": entries } });
        }
        rawdoc! { "q": self.guard(id, limits), "u": change }
    }

    /// Returns the condition under which the batch is added: the document does not have it yet, is not split, not full and not
    /// expired. This is the whole protection against adding twice.
    fn guard(&self, id: &BatchId, limits: Limits) -> RawDocumentBuf {
        let mut guard = rawdoc! {
            "_id": self.id.to_string(),
            (path(WATERMARKS, id.writer.as_str())): { "$not": { "$gte": watermark(id) } },
            SPLIT: { "$exists": false },
        };
        let mut conditions = RawArrayBuf::new();
        // Where nothing is counted, only the watermark and the quarantine are written.
        if self.deltas.len() > self.omitted.len() {
            conditions.push(is_live());
        }
        let can_be_split = Split::into_parts(By::Metrics, MIN_PARTS)
            .is_some_and(|split| self.id.partition.allowed(split).is_some());
        // A damaged document takes all that it can, however full: its counters may be no object, and then have no size.
        if can_be_split && self.omitted.is_empty() {
            let full = i32::try_from(limits.full(self)).unwrap_or(i32::MAX);
            let counters = rawdoc! { "$bsonSize": format!("${COUNTERS}") };
            let document = rawdoc! { "$bsonSize": "$$ROOT" };
            conditions.push(rawdoc! { "$lt": [counters, full] });
            conditions.push(rawdoc! { "$lt": [document, MAX_DOCUMENT] });
        }
        if !conditions.is_empty() {
            guard.append(cstr!("$expr"), rawdoc! { "$and": conditions });
        }
        guard
    }

    fn increments(&self) -> RawDocumentBuf {
        let mut increments = RawDocumentBuf::new();
        let mut path = String::new();
        for Hashed { delta, .. } in &self.deltas {
            if self.omitted.is_empty() || !self.omitted.contains_key(delta.metric) {
                write_counter_path(delta.metric, &mut path);
                let path: &CStr = path.as_str().try_into().expect("a NUL in a metric is escaped");
                increments.append(path, delta.n);
            }
        }
        increments
    }
}

/// Groups the deltas by partition, each group in its order.
fn group<'a>(
    deltas: Vec<Hashed<'a>>,
    partition: impl Fn(&Hashed<'a>) -> Partition,
    mut each: impl FnMut(Partition, Vec<Hashed<'a>>),
) {
    let mut located: Vec<_> = deltas.into_iter().map(|hashed| (partition(&hashed), hashed)).collect();
    located.sort_by_key(|(partition, _)| *partition);
    for group in located.chunk_by(|(a, _), (b, _)| a == b) {
        each(group[0].0, group.iter().map(|(_, hashed)| *hashed).collect());
    }
}

#[cfg(test)]
mod tests {
    use countem_core::Writer;
    use mongodb::bson::{Document, doc};

    use super::*;
    use crate::partition::hash;

    const LIMITS: Limits = Limits { metrics: 256, writer_shards: 1 };

    fn hashed(metrics: &[String]) -> Vec<Hashed<'_>> {
        let bucket = "2026-11-20".parse().unwrap();
        let delta = |metric| Delta { collection: "web", metric, bucket, n: 1, increments: 1 };
        metrics.iter().map(|metric| Hashed { hash: hash(metric), delta: delta(metric) }).collect()
    }

    fn root(metrics: &[String], limits: Limits) -> Target<'_> {
        let mut out = Vec::new();
        Target::of_bucket(hashed(metrics), None, 0, limits, &mut out);
        out.pop().unwrap()
    }

    fn metrics(count: usize, length: usize) -> Vec<String> {
        (0..count).map(|n| format!("{n:0length$}")).collect()
    }

    #[test]
    fn small_bucket_is_one_document_sent_at_once() {
        let metrics = metrics(512, 25);
        let target = root(&metrics, LIMITS);
        assert_eq!((target.step.clone(), target.split_when_missing(LIMITS)), (Step::Send, None));
        assert_eq!(target.id.to_string(), "2026-11-20/1");
    }

    #[test]
    fn many_or_long_metrics_are_split_before_sending() {
        for (count, length, parts) in [(513, 25, 4), (10_000, 25, 64), (100_000, 25, 512), (300, 512, 4)] {
            let metrics = metrics(count, length);
            let target = root(&metrics, LIMITS);
            assert_eq!(target.step, Step::Probe);
            let split = target.split_when_missing(LIMITS).unwrap();
            assert_eq!((split.by, split.parts()), (By::Metrics, parts), "{count} of {length} bytes");
            let mut children = Vec::new();
            target.into_children(split, 0, LIMITS, &mut children);
            assert_eq!(children.iter().map(|child| child.deltas.len()).sum::<usize>(), count);
            assert!(children.iter().all(|child| child.deltas.len() <= 512 && child.step == Step::Send));
        }
    }

    #[test]
    fn writers_are_divided_before_metrics() {
        let limits = Limits { writer_shards: 3, ..LIMITS };
        let metrics = metrics(1000, 25);
        let target = root(&metrics, limits);
        let split = target.split_when_missing(limits).unwrap();
        assert_eq!((split.by, split.parts()), (By::Writers, 4));
        let mut children = Vec::new();
        target.into_children(split, u64::MAX, limits, &mut children);
        assert_eq!(children.len(), 1, "one writer counts in one shard");
        assert_eq!(children[0].id.to_string(), "2026-11-20/1.7");
        assert_eq!(children[0].split_when_missing(limits).unwrap().by, By::Metrics);
        let fewer = Limits { writer_shards: 2, ..LIMITS };
        assert_eq!(
            children[0].split_when_missing(fewer).unwrap().by,
            By::Metrics,
            "fewer shards undo nothing"
        );
    }

    #[test]
    fn document_is_full_at_twice_its_metrics() {
        for (length, low, high) in [(5, 6_000, 10_500), (25, 17_000, 19_000), (300, 100_000, 160_000)] {
            let metrics = metrics(100, length);
            let full = LIMITS.full(&root(&metrics, LIMITS));
            assert!((low..high).contains(&full), "{length}: {full}");
        }
        let metrics = metrics(1, 25);
        let target = root(&metrics, LIMITS);
        assert_eq!(target.split_when_there(1000, false, LIMITS), None);
        assert_eq!(target.split_when_there(60_000, false, LIMITS).map(Split::parts), Some(4));
    }

    #[test]
    fn guard_asks_for_watermark_split_expiry_and_size() {
        let metrics = metrics(1, 5);
        let id = BatchId { writer: Writer::new(255, 12), lane: 0, seq: 88 };
        let mut target = root(&metrics, LIMITS);
        let guard = |target: &Target<'_>| Document::try_from(&target.guard(&id, LIMITS)).unwrap();
        let full = i32::try_from(LIMITS.full(&target)).unwrap();
        let mut expected = doc! {
            "_id": "2026-11-20/1",
            "w.00000000000000ff-12": { "$not": { "$gte": 88_i64 } },
            "split": { "$exists": false },
            "$expr": { "$and": [
                Document::try_from(&is_live()).unwrap(),
                { "$lt": [{ "$bsonSize": "$c" }, full] },
                { "$lt": [{ "$bsonSize": "$$ROOT" }, 1024 * 1024] },
            ] },
        };
        assert_eq!(guard(&target), expected);
        target.omitted.insert("00000".to_owned(), "damaged".to_owned());
        expected.remove("$expr");
        assert_eq!(guard(&target), expected, "nothing is counted");
    }

    #[test]
    fn update_adds_deltas_and_sets_the_watermark() {
        let metrics = ["a.b".to_owned(), "big".to_owned()];
        let mut target = root(&metrics, LIMITS);
        let id = BatchId { writer: Writer::new(255, 12), lane: 0, seq: 88 };
        let update = |target: &Target<'_>| {
            let raw = target.update(&id, true, LIMITS);
            assert!(raw.as_bytes().len() <= target.update_bytes());
            Document::try_from(&raw).unwrap().get_document("u").unwrap().clone()
        };
        let watermark = doc! { "w.00000000000000ff-12": 88_i64 };
        assert_eq!(
            update(&target),
            doc! { "$inc": { "c.a%2Eb": 1_i64, "c.big": 1_i64 }, "$set": &watermark }
        );
        target.omitted.insert("big".to_owned(), "too big".to_owned());
        let reduced = update(&target);
        assert_eq!(reduced.get_document("$inc").unwrap(), &doc! { "c.a%2Eb": 1_i64 });
        assert!(reduced.get_document("$set").unwrap().contains_key("q.00000000000000ff-12"));
        assert!(!reduced.contains_key("$push"), "a journal keeps it");
        let raw = target.update(&id, false, LIMITS);
        let held = doc! { "$each": [{
            "batch": id.to_string(), "metric": "big", "n": 1_i64, "increments": 1_i64, "reason": "too big",
        }] };
        let change = Document::try_from(&raw).unwrap().get_document("u").unwrap().clone();
        assert_eq!(change.get_document("$push").unwrap(), &doc! { "held": held });
        target.omitted.insert("a.b".to_owned(), "no number".to_owned());
        assert!(!update(&target).contains_key("$inc"));
    }
}
