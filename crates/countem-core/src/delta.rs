//! Deltas: the amounts that increments add to counters.

use std::ops::Range;

use jiff::Timestamp;

use crate::{Bucket, Schedule};

/// The amount that one increment, or many merged, adds to one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta<'a> {
    /// A valid [`CollectionName`](crate::CollectionName).
    pub collection: &'a str,
    /// A valid [`MetricName`](crate::MetricName).
    pub metric: &'a str,
    /// Bucket in which it was counted; nothing later changes it (I3).
    pub bucket: Bucket,
    /// The signed amount. May be zero when increments cancelled out.
    pub n: i64,
    /// Number of merged increments, the unit of conservation (I1). Zero where another bucket of the same counter
    /// already accounts for them.
    pub increments: u64,
}

impl<'a> Delta<'a> {
    /// Lists the deltas of the stored buckets that this delta adds to, the finest bucket first.
    ///
    /// Only the finest one carries the increments, so that conservation counts each of them once (I1).
    pub fn fan_out(self, schedule: &Schedule) -> impl Iterator<Item = Self> + use<'a, '_> {
        let in_bucket = move |(at, bucket)| self.in_bucket(bucket, at == 0);
        schedule.fan_out(self.bucket).enumerate().map(in_bucket)
    }

    /// Does what [`fan_out`](Self::fan_out) does, without the stored buckets that have expired at `now`, as
    /// [`Schedule::fan_out_kept`] leaves them out.
    pub fn fan_out_kept(self, schedule: &Schedule, now: Timestamp) -> impl Iterator<Item = Self> + use<'a> {
        let buckets = schedule.fan_out_kept(self.bucket, now).into_iter().enumerate();
        buckets.map(move |(at, bucket)| self.in_bucket(bucket, at == 0))
    }

    /// Returns the delta of one stored bucket, for callers that cache the buckets of a [`Schedule`].
    #[must_use]
    pub fn in_bucket(self, bucket: Bucket, is_finest: bool) -> Self {
        Self { bucket, increments: if is_finest { self.increments } else { 0 }, ..self }
    }
}

/// A set of deltas, each counter at most once, in two allocations whatever their number.
///
/// Not `Clone`: a delta has one owner (I2).
#[derive(Debug, Default)]
#[must_use = "deltas that are dropped are counts that are lost"]
pub struct Deltas {
    pub(crate) entries: Vec<Entry>,
    /// Collection and metric of every entry, one after the other.
    pub(crate) names: String,
}

/// One delta whose names lie in the arena beside it. Thirty-two bytes, two to a cache line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) names_at: u32,
    pub(crate) collection_len: u16,
    pub(crate) metric_len: u16,
    pub(crate) bucket: Bucket,
    pub(crate) n: i64,
    pub(crate) increments: u64,
}

/// Sums over deltas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of deltas.
    pub counters: usize,
    /// Number of increments merged into them.
    pub increments: u64,
    /// Sum of the amounts.
    pub n: i128,
}

impl Entry {
    pub(crate) fn collection(self, names: &str) -> &str {
        let at = self.names_at as usize;
        &names[at..at + usize::from(self.collection_len)]
    }

    pub(crate) fn metric(self, names: &str) -> &str {
        let at = self.names_at as usize + usize::from(self.collection_len);
        &names[at..at + usize::from(self.metric_len)]
    }

    pub(crate) fn delta(self, names: &str) -> Delta<'_> {
        Delta {
            collection: self.collection(names),
            metric: self.metric(names),
            bucket: self.bucket,
            n: self.n,
            increments: self.increments,
        }
    }
}

impl Deltas {
    /// Returns the number of deltas.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true for an empty set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the length of all names in bytes.
    pub fn name_bytes(&self) -> usize {
        self.names.len()
    }

    /// Lists the deltas.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Delta<'_>> + DoubleEndedIterator + Clone {
        self.entries.iter().map(|entry| entry.delta(&self.names))
    }

    /// Lists the deltas at the positions `range`, in the order of [`iter`](Self::iter).
    ///
    /// # Panics
    /// When the range ends beyond the last delta.
    pub fn range(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = Delta<'_>> {
        self.entries[range].iter().map(|entry| entry.delta(&self.names))
    }

    /// Returns the sums.
    pub fn totals(&self) -> Totals {
        Totals {
            counters: self.len(),
            increments: self.entries.iter().map(|entry| entry.increments).sum(),
            n: self.entries.iter().map(|entry| i128::from(entry.n)).sum(),
        }
    }

    /// Orders the deltas by collection, bucket and metric: documents and index pages are then touched once, in order.
    pub(crate) fn sort(&mut self) {
        let names = &self.names;
        self.entries.sort_unstable_by(|a, b| {
            let by_collection = a.collection(names).cmp(b.collection(names));
            by_collection.then(a.bucket.cmp(&b.bucket)).then_with(|| a.metric(names).cmp(b.metric(names)))
        });
    }

    /// Appends a delta whose counter is not in the set yet; `None` when the arena cannot address more names.
    pub(crate) fn push(&mut self, delta: Delta<'_>) -> Option<u32> {
        let index = u32::try_from(self.entries.len()).ok()?;
        let names_at = u32::try_from(self.names.len()).ok()?;
        let entry = Entry {
            names_at,
            collection_len: u16::try_from(delta.collection.len()).ok()?,
            metric_len: u16::try_from(delta.metric.len()).ok()?,
            bucket: delta.bucket,
            n: delta.n,
            increments: delta.increments,
        };
        self.names.push_str(delta.collection);
        self.names.push_str(delta.metric);
        self.entries.push(entry);
        Some(index)
    }
}
