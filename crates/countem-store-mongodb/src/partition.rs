//! The documents of a bucket, and the one in which a metric is counted.
//!
//! # One bucket, a growing tree of documents
//!
//! A (collection, bucket) begins as one document, the *root*. A document that has become full is **split**: it gets the
//! field `split`, takes no delta ever again, and what comes later goes to its *children*, each responsible for an equal
//! share of the hashes. What was counted in it stays there; a read sums over all documents of the bucket. A split goes by
//! the hash of the metric (too many metrics) or by the hash of the writer (writer shards: too many writers of one metric).
//!
//! # Why a batch cannot be counted in two documents
//!
//! A batch may be sent again by a process that remembers nothing, after the tree has grown, and while an older copy of
//! the request is still on its way. It is counted once nevertheless, because of four facts:
//!
//! 1. *A split is for ever.* It is written only where there is none (`split: {$exists: false}`), no writer relies on it before a
//!    majority (a standalone: the journal) has it, and nothing removes or changes it. So a document and a hash determine the
//!    child for ever.
//! 2. *The guard of every update asks for it.* An update applies only if the document is not split and does not have the
//!    batch's watermark, and sets the watermark in the same atomic step. So after a split no copy of any request changes the
//!    counters or the watermark of that document.
//! 3. *A delta goes to a child only after its parent was read as split and without the batch's watermark*, or if the parent
//!    was known to be split before the batch was sent for the first time (see `SentBatches`; a decoded batch may have been). With 2, the batch is not in
//!    the parent and never will be.
//! 4. *A document gets all deltas of the batch whose hashes it covers, or none*: the first document on the way down from
//!    the root that is not split, or has the watermark, is the same for all of them.
//!
//! By induction from the root each delta is counted in exactly one document, whatever the configuration of the processes
//! that send it: size limit, number of parts and number of shards only decide which split is *written*, never the
//! meaning of a stored one.

use std::fmt;

use countem_core::hash::{fnv64, murmur3};

/// Hashes a metric or writer. Mixed at the end, because the tree is read from the highest bits, which FNV alone mixes badly.
/// Part of the stored layout: it never changes.
pub(crate) fn hash(text: &str) -> u64 {
    murmur3(fnv64(text))
}

/// Maximum number of bits of a hash that the tree uses. Sixteen million documents are more than a bucket can need; a
/// document at this depth is never split.
const MAX_BITS: u32 = 24;

/// One document of a bucket: the shares of the metrics and of the writers that it is responsible for.
///
/// A share is a leading part of a hash with a one in front, as the nodes of a binary heap are numbered: 1 covers every hash, 2
/// and 3 a half each, 64 to 127 a sixty-fourth each. The text form is the number for the metrics, followed by a dot
/// and the number for the writers unless that is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition {
    metrics: Share,
    writers: Share,
}

/// A leading part of a hash with a one in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Share(u32);

impl Share {
    const ALL: Self = Self(1);

    /// Returns the number of bits of a hash that decide whether it is covered.
    fn bits(self) -> u32 {
        self.0.ilog2()
    }

    fn covers(self, hash: u64) -> bool {
        self == Self::of(hash, self.bits())
    }

    /// Returns the share of `bits` bits that covers `hash`.
    fn of(hash: u64, bits: u32) -> Self {
        let leading = hash.checked_shr(u64::BITS - bits).unwrap_or(0);
        let leading = u32::try_from(leading).expect("at most 24 bits are taken");
        Self(1 << bits | leading)
    }

    fn parse(text: &str) -> Option<Self> {
        let number: u32 = text.parse().ok().filter(|number| *number > 0)?;
        (number.to_string() == text && number.ilog2() <= MAX_BITS).then_some(Self(number))
    }
}

/// Division of a document's later deltas among its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) by: By,
    /// The number of children is two to this power.
    bits: u32,
}

/// Kind of hash that decides which child is responsible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Metrics,
    Writers,
}

impl Split {
    /// Splits into at least `parts`, `None` if that is one part.
    pub(crate) fn into_parts(by: By, parts: usize) -> Option<Self> {
        let bits = parts.next_power_of_two().ilog2().min(MAX_BITS);
        (bits > 0).then_some(Self { by, bits })
    }

    /// Reads back a stored split, `None` for a number of parts that is never stored.
    pub(crate) fn stored(by: By, parts: i64) -> Option<Self> {
        let parts = usize::try_from(parts).ok().filter(|parts| parts.is_power_of_two())?;
        Self::into_parts(by, parts).filter(|split| split.parts() == parts)
    }

    pub(crate) fn parts(self) -> usize {
        1 << self.bits
    }
}

impl Partition {
    pub(crate) const ROOT: Self = Self { metrics: Share::ALL, writers: Share::ALL };

    /// Returns the child that is responsible for a metric and a writer which this partition covers.
    pub(crate) fn child(self, split: Split, metric: u64, writer: u64) -> Self {
        match split.by {
            By::Metrics => Self { metrics: Share::of(metric, self.metrics.bits() + split.bits), ..self },
            By::Writers => Self { writers: Share::of(writer, self.writers.bits() + split.bits), ..self },
        }
    }

    /// Tells whether this partition is on the way from the root to where the metric is counted.
    pub(crate) fn covers(self, metric: u64, writer: u64) -> bool {
        self.metrics.covers(metric) && self.writers.covers(writer)
    }

    /// Returns `split`, cut to the bits that the hash has left; `None` if there are none.
    pub(crate) fn allowed(self, split: Split) -> Option<Split> {
        let used = match split.by {
            By::Metrics => self.metrics.bits(),
            By::Writers => self.writers.bits(),
        };
        let bits = split.bits.min(MAX_BITS - used);
        (bits > 0).then_some(Split { bits, ..split })
    }

    /// Returns the number of shards among which the splits above this partition divide the writers.
    pub(crate) fn writer_shards(self) -> usize {
        1 << self.writers.bits()
    }

    /// Returns the number of the share of the writers. Documents with the same one that are not split hold different metrics.
    pub(crate) fn writer_share(self) -> u32 {
        self.writers.0
    }

    /// Lists the numbers of all documents that can cover `metric`, from the root down.
    pub(crate) fn numbers_covering(metric: u64) -> impl Iterator<Item = u32> {
        (0..=MAX_BITS).map(move |bits| Share::of(metric, bits).0)
    }

    /// Reads back the text form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.split_once('.') {
            None => Some(Self { metrics: Share::parse(text)?, writers: Share::ALL }),
            Some((metrics, writers)) => {
                let writers = Share::parse(writers).filter(|share| *share != Share::ALL)?;
                Some(Self { metrics: Share::parse(metrics)?, writers })
            }
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.metrics.0)?;
        if self.writers != Share::ALL {
            write!(f, ".{}", self.writers.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn split(by: By, parts: usize) -> Split {
        Split::into_parts(by, parts).unwrap()
    }

    #[test]
    fn hash_never_changes() {
        assert_eq!(hash(""), 0xefd0_1f60_ba99_2926);
        assert_eq!(hash("MyMethod.calls"), 0xcf37_b177_eabf_6942);
        assert_eq!(hash("00000000000000ff-12"), 0x9ab7_7d10_348b_d33d);
        assert_eq!(hash("GET 200"), 0x0ab4_bd25_f3d8_4ca0);
        assert_eq!(hash("ä/€"), 0x5b0b_0118_3b27_1a1b);
    }

    #[test]
    fn partition_reads_back_from_its_text() {
        for text in ["1", "2", "127", "1.4", "64.7", "33554431"] {
            assert_eq!(Partition::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "0", "01", "-1", "+1", "1.1", "1.", ".1", "1.2.3", "33554432", "1.0", "x"] {
            assert!(Partition::parse(bad).is_none(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn children_divide_the_hashes_of_their_parent() {
        let by_writer = split(By::Writers, 4);
        let by_metric = split(By::Metrics, 64);
        let mut seen = BTreeMap::<Partition, usize>::new();
        for n in 0..64_000 {
            let (metric, writer) = (hash(&format!("metric {n}")), hash(&format!("writer {}", n % 100)));
            let middle = Partition::ROOT.child(by_writer, metric, writer);
            let leaf = middle.child(by_metric, metric, writer);
            for partition in [Partition::ROOT, middle, leaf] {
                assert!(partition.covers(metric, writer));
            }
            assert!(!leaf.covers(!metric, writer) && !leaf.covers(metric, !writer));
            *seen.entry(leaf).or_default() += 1;
        }
        assert_eq!(seen.len(), 256);
        let by_share = seen.iter().fold([0; 64], |mut sums, (partition, metrics)| {
            sums[partition.metrics.0 as usize - 64] += metrics;
            sums
        });
        assert!(by_share.iter().all(|metrics| (850..1150).contains(metrics)), "uneven: {by_share:?}");
    }

    #[test]
    fn numbers_covering_a_metric_match_its_partitions() {
        let (metric, writer) = (hash("m"), hash("w"));
        let numbers: Vec<_> = Partition::numbers_covering(metric).collect();
        let mut partition = Partition::ROOT;
        assert_eq!(partition.metrics.0, numbers[0]);
        for (bits, parts) in [(3, 8), (5, 4), (11, 64)] {
            partition = partition.child(split(By::Metrics, parts), metric, writer);
            assert_eq!(partition.metrics.0, numbers[bits]);
        }
    }

    #[test]
    fn depth_of_a_tree_is_bounded() {
        let deep = Partition::parse("8388608").unwrap();
        assert_eq!(deep.allowed(split(By::Metrics, 64)), Some(split(By::Metrics, 2)));
        let deepest = Partition::parse("16777216").unwrap();
        assert_eq!(deepest.allowed(split(By::Metrics, 2)), None);
        assert_eq!(deepest.allowed(split(By::Writers, 2)), Some(split(By::Writers, 2)));
    }

    #[test]
    fn only_written_values_are_read_as_splits() {
        assert_eq!(Split::stored(By::Metrics, 64), Split::into_parts(By::Metrics, 40));
        for bad in [-4, 0, 1, 3, 1 << 25] {
            assert_eq!(Split::stored(By::Metrics, bad), None);
        }
    }
}
