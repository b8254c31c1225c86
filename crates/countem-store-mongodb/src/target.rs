//! The documents that a batch is added to, and how much one document is given.

use countem_core::{BatchId, Bucket, Delta};

use crate::{
    command::{guard, path, seq},
    document::{COUNTERS, WATERMARKS, document_id, encode_metric, encoded_len},
    encoder::Encoder,
    partition::{By, Partition, Split, Tree},
    quarantine::{Omitted, stamp},
};

/// The deltas of a batch that one document is responsible for, and what is known of that document.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) bucket: Bucket,
    pub(crate) partition: Partition,
    pub(crate) deltas: Vec<Counted<'a>>,
    /// Bytes that the deltas need in the document.
    bytes: usize,
    pub(crate) step: Step,
    /// An update was answered with "did not apply". What a majority read shows from then on is the whole truth about the
    /// batch: the answer waited for the majority, or for the journal, to have all that the update met.
    pub(crate) refused: bool,
    /// This run has split the document, so its children are missing.
    pub(crate) divided: bool,
    /// How often the server refused the data of the update although no reason was found.
    pub(crate) futile: u8,
    pub(crate) omitted: Omitted,
}

/// What has to be done for a target next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read the document: is the batch in it, is it split, is it there?
    Navigate,
    /// Find out which counters the server cannot add to; it said why.
    Examine(String),
    /// Create the document, split from the start where it would be full at once.
    Create(Option<Split>),
    /// Make certain that a split which was read will stay.
    Confirm(Split),
    /// Split the document.
    Divide(Split),
    /// Send the update.
    Send,
}

/// A delta and the hash of its metric.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted<'a> {
    pub(crate) hash: u64,
    pub(crate) delta: Delta<'a>,
}

/// How much one document is given. Nothing about exactness depends on it, so processes may differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) metrics: usize,
    pub(crate) writer_shards: usize,
}

/// Bytes of an `int64` element without its key.
const ELEMENT: usize = 10;
/// Most bytes that one update adds to a document.
const MOST_ADDED: usize = 128 * 1024;
/// Bytes of counters at which a document is full, however long its names are.
const MOST_HELD: usize = 256 * 1024;
/// A document that became full bit by bit is divided by at least this.
const LEAST_PARTS: usize = 4;
/// An update with few deltas says little about the names in a document; it is judged as if it had these as well.
const USUAL: (usize, usize) = (16, 16 * 40);

impl Limits {
    /// Says in how many parts the counters of `target` are too many for one document, `None` when they are not.
    fn parts_for(self, target: &Target<'_>) -> Option<usize> {
        let is_too_large = target.deltas.len() > 2 * self.metrics || target.bytes > MOST_ADDED;
        is_too_large.then(|| {
            let by_metrics = target.deltas.len().div_ceil(self.metrics);
            by_metrics.max(target.bytes.div_ceil(MOST_ADDED / 2)).max(2)
        })
    }

    /// Returns the bytes of counters at which the document is full: those of twice as many metrics as it should have, with names
    /// as long as these.
    fn full(self, target: &Target<'_>) -> usize {
        let (count, bytes) = (target.deltas.len() + USUAL.0, target.bytes + USUAL.1);
        (2 * self.metrics * bytes / count).min(MOST_HELD)
    }
}

impl<'a> Target<'a> {
    fn new(bucket: Bucket, partition: Partition, deltas: Vec<Counted<'a>>, limits: Limits) -> Self {
        let bytes = deltas.iter().map(|counted| encoded_len(counted.delta.metric) + ELEMENT).sum();
        let mut target = Self {
            bucket,
            partition,
            deltas,
            bytes,
            step: Step::Send,
            refused: false,
            divided: false,
            futile: 0,
            omitted: Omitted::new(),
        };
        // What would have to be split is looked at first. Everything else is just sent: the guard sees to the rest.
        if target.split_when_missing(limits).is_some() {
            target.step = Step::Navigate;
        }
        target
    }

    /// Divides the deltas of one bucket among the documents that are known to be responsible.
    pub(crate) fn of_bucket(
        deltas: Vec<Counted<'a>>,
        tree: Option<&Tree>,
        writer: u64,
        limits: Limits,
        out: &mut Vec<Self>,
    ) {
        let Some(bucket) = deltas.first().map(|counted| counted.delta.bucket) else { return };
        match tree {
            None => out.push(Self::new(bucket, Partition::ROOT, deltas, limits)),
            Some(tree) => group(
                deltas,
                |counted| tree.leaf(counted.hash, writer),
                |partition, deltas| {
                    out.push(Self::new(bucket, partition, deltas, limits));
                },
            ),
        }
    }

    /// Divides the deltas among the children of the document.
    pub(crate) fn into_children(self, split: Split, writer: u64, limits: Limits, out: &mut Vec<Self>) {
        let Self { bucket, partition, deltas, divided, .. } = self;
        let child = |counted: &Counted<'a>| partition.child(split, counted.hash, writer);
        group(deltas, child, |partition, deltas| {
            let mut child = Self::new(bucket, partition, deltas, limits);
            if divided {
                child.step = Step::Create(child.split_when_missing(limits));
            }
            out.push(child);
        });
    }

    /// Says how the document has to be split from the start, should it not exist.
    pub(crate) fn split_when_missing(&self, limits: Limits) -> Option<Split> {
        let shards = limits.writer_shards.next_power_of_two() / self.partition.writer_shards();
        let by_writers = Split::into_parts(By::Writers, shards.max(1));
        let by_metrics = || Split::into_parts(By::Metrics, limits.parts_for(self)?);
        by_writers.or_else(by_metrics).and_then(|split| self.partition.allowed(split))
    }

    /// Says how the document, which holds `size` bytes of counters, has to be split before it takes these deltas.
    pub(crate) fn split_when_there(&self, size: usize, limits: Limits) -> Option<Split> {
        self.split_when_missing(limits).or_else(|| {
            let is_full = size >= limits.full(self);
            let split = is_full.then(|| Split::into_parts(By::Metrics, LEAST_PARTS)).flatten()?;
            self.partition.allowed(split)
        })
    }

    pub(crate) fn id(&self) -> String {
        document_id(self.bucket, self.partition)
    }

    /// Returns about how many bytes the update needs in a command.
    pub(crate) fn update_bytes(&self) -> usize {
        const REST: usize = 320;
        self.bytes + self.deltas.len() * 4 + REST
    }

    /// Writes the update: add what can be added, and set the watermark, if the guard lets it.
    pub(crate) fn write_update(&self, update: &mut Encoder, id: &BatchId, limits: Limits) {
        let can_be_split = Split::into_parts(By::Metrics, LEAST_PARTS)
            .is_some_and(|split| self.partition.allowed(split).is_some());
        // A document with damage takes what it can, however full: its counters may be no object whose size could be asked.
        let full = (can_be_split && self.omitted.is_empty())
            .then(|| i32::try_from(limits.full(self)).unwrap_or(i32::MAX));
        update.document("q", |query| guard(query, &self.id(), id, full));
        update.document("u", |change| {
            // An empty `$inc` is an error before MongoDB 5.0.
            if self.deltas.len() > self.omitted.len() {
                change.document("$inc", |inc| self.write_increments(inc));
            }
            change.document("$set", |set| {
                set.int64(&path(WATERMARKS, id.writer.as_str()), seq(id));
                if !self.omitted.is_empty() {
                    stamp(set, id, &self.omitted);
                }
            });
        });
    }

    fn write_increments(&self, inc: &mut Encoder) {
        for Counted { delta, .. } in &self.deltas {
            if self.omitted.is_empty() || !self.omitted.contains_key(delta.metric) {
                inc.int64_at(|key| counter_path(delta.metric, key), delta.n);
            }
        }
    }
}

/// Appends the path of a counter.
pub(crate) fn counter_path(metric: &str, key: &mut Vec<u8>) {
    key.extend_from_slice(COUNTERS.as_bytes());
    key.push(b'.');
    encode_metric(metric, key);
}

/// Hands on the deltas by partition, each group in its order.
fn group<'a>(
    deltas: Vec<Counted<'a>>,
    partition: impl Fn(&Counted<'a>) -> Partition,
    mut each: impl FnMut(Partition, Vec<Counted<'a>>),
) {
    let mut located: Vec<_> = deltas.into_iter().map(|counted| (partition(&counted), counted)).collect();
    located.sort_by_key(|(partition, _)| *partition);
    for group in located.chunk_by(|(a, _), (b, _)| a == b) {
        each(group[0].0, group.iter().map(|(_, counted)| *counted).collect());
    }
}

#[cfg(test)]
mod tests {
    use countem_core::Writer;
    use mongodb::bson::{Document, doc};

    use super::*;
    use crate::partition::hash;

    const LIMITS: Limits = Limits { metrics: 256, writer_shards: 1 };

    fn counted(metrics: &[String]) -> Vec<Counted<'_>> {
        let bucket = "2026-11-20".parse().unwrap();
        let delta = |metric| Delta { collection: "web", metric, bucket, n: 1, increments: 1 };
        metrics.iter().map(|metric| Counted { hash: hash(metric), delta: delta(metric) }).collect()
    }

    fn root(metrics: &[String], limits: Limits) -> Target<'_> {
        let mut out = Vec::new();
        Target::of_bucket(counted(metrics), None, 0, limits, &mut out);
        out.pop().unwrap()
    }

    fn metrics(count: usize, length: usize) -> Vec<String> {
        (0..count).map(|n| format!("{n:0length$}")).collect()
    }

    #[test]
    fn a_small_bucket_is_one_document_and_is_sent_at_once() {
        let metrics = metrics(512, 25);
        let target = root(&metrics, LIMITS);
        assert_eq!((target.step.clone(), target.split_when_missing(LIMITS)), (Step::Send, None));
        assert_eq!(target.id(), "2026-11-20/1");
    }

    #[test]
    fn many_or_long_metrics_are_divided_before_they_are_sent() {
        for (count, length, parts) in [(513, 25, 4), (10_000, 25, 64), (100_000, 25, 512), (300, 512, 4)] {
            let metrics = metrics(count, length);
            let target = root(&metrics, LIMITS);
            assert_eq!(target.step, Step::Navigate);
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
        assert_eq!(children[0].id(), "2026-11-20/1.7");
        assert_eq!(children[0].split_when_missing(limits).unwrap().by, By::Metrics);
        let fewer = Limits { writer_shards: 2, ..LIMITS };
        assert_eq!(
            children[0].split_when_missing(fewer).unwrap().by,
            By::Metrics,
            "fewer shards undo nothing"
        );
    }

    #[test]
    fn a_document_is_full_at_twice_its_metrics_whatever_their_length() {
        for (length, low, high) in [(5, 6_000, 10_500), (25, 17_000, 19_000), (300, 100_000, 160_000)] {
            let metrics = metrics(100, length);
            let full = LIMITS.full(&root(&metrics, LIMITS));
            assert!((low..high).contains(&full), "{length}: {full}");
        }
        let metrics = metrics(1, 25);
        let target = root(&metrics, LIMITS);
        assert_eq!(target.split_when_there(1000, LIMITS), None);
        assert_eq!(target.split_when_there(60_000, LIMITS).map(Split::parts), Some(4));
    }

    #[test]
    fn an_update_adds_what_can_be_added_and_sets_the_watermark() {
        let metrics = ["a.b".to_owned(), "big".to_owned()];
        let mut target = root(&metrics, LIMITS);
        let id = BatchId { writer: Writer::new(255, 12), lane: 0, seq: 88 };
        let update = |target: &Target<'_>| {
            let raw = Encoder::encode(0, |update| target.write_update(update, &id, LIMITS)).unwrap();
            assert!(raw.as_bytes().len() <= target.update_bytes() + 100);
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
        target.omitted.insert("a.b".to_owned(), "no number".to_owned());
        assert!(!update(&target).contains_key("$inc"));
    }
}
