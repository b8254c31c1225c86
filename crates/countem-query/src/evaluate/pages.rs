//! Pages of the counters of one collection, added up over ranges of buckets.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    num::NonZeroUsize,
};

use countem_core::{Bucket, BucketRange, CollectionName, MetricName, Part};
use countem_store::{Counters, RowQuery, Select, Value, plus};

use crate::{ReadError, Source};

/// Sums of one metric or of one row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sums {
    /// Sum over the range; `None` where nothing was counted.
    pub(crate) value: Option<Value>,
    /// Sum over the earlier range.
    pub(crate) earlier: Option<Value>,
    /// Sums over the buckets of the range.
    pub(crate) points: BTreeMap<Bucket, Value>,
}

/// The stored buckets that are read of a collection.
#[derive(Debug)]
pub(crate) struct Spans {
    pub(crate) collection: CollectionName,
    /// Stored buckets of the range.
    pub(crate) range: Vec<Part>,
    /// Stored buckets of the earlier range; empty without a comparison.
    pub(crate) earlier: Vec<Part>,
}

/// The requested buckets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requested {
    pub(crate) range: BucketRange,
    pub(crate) earlier: Option<BucketRange>,
    /// A sum of each bucket is requested, too.
    pub(crate) by_bucket: bool,
}

/// Metrics of a collection, in byte order, each with its sums.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) spans: &'a Spans,
    pub(crate) requested: Requested,
    pub(crate) select: Selected,
}

/// The metrics that are read.
#[derive(Debug)]
pub(crate) enum Selected {
    One(MetricName),
    Page {
        prefix: String,
        after: Option<String>,
        /// Maximum number of metrics in a page.
        limit: NonZeroUsize,
    },
    /// All pages were returned.
    End,
}

/// Approximate number of counters that are read at once, which bounds the memory of a query.
const TARGET: usize = if cfg!(test) { 7 } else { 200_000 };
/// Minimum number of metrics that a page is made of, where only a few rows are wanted.
const MIN_PAGE: usize = 1_000;
/// Ranges with more buckets are narrowed to those that hold counters before they are read.
const SPARSE: u64 = if cfg!(test) { 3 } else { 1_000 };

impl Selected {
    /// Returns the largest pages, or those of `rows` metrics where that is less.
    pub(crate) fn pages(prefix: &str, after: Option<String>, rows: Option<usize>) -> Self {
        let limit = rows.map_or(TARGET, |rows| TARGET.min(rows.saturating_add(1).max(MIN_PAGE)));
        Self::Page {
            prefix: prefix.to_owned(),
            after,
            limit: NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN),
        }
    }

    fn select(&self) -> Option<Select> {
        match self {
            Self::One(metric) => Some(Select::One(metric.clone())),
            Self::Page { prefix, after, limit } => {
                Some(Select::Page { prefix: prefix.clone(), after: after.clone(), limit: *limit })
            }
            Self::End => None,
        }
    }
}

impl Pages<'_> {
    /// Returns the next metrics, `None` after the last ones.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<(String, Sums)>>, ReadError> {
        let Some(select) = self.select.select() else { return Ok(None) };
        let mut page = Vec::new();
        for part in &self.spans.range {
            let range = self.requested.range;
            let by_bucket = self.requested.by_bucket;
            self.read(part, &select, &mut page, |sums: &mut Sums, stored, value| {
                let Some(bucket) =
                    part.bucket(stored, range.period()).filter(|bucket| range.contains(*bucket))
                else {
                    return;
                };
                if by_bucket {
                    add(sums.points.entry(bucket), value.clone());
                }
                merge(&mut sums.value, value);
            })
            .await?;
        }
        for (part, range) in self.spans.earlier.iter().zip(self.requested.earlier.iter().cycle()) {
            self.read(part, &select, &mut page, |sums: &mut Sums, stored, value| {
                if part.bucket(stored, range.period()).is_some_and(|bucket| range.contains(bucket)) {
                    merge(&mut sums.earlier, value);
                }
            })
            .await?;
        }
        self.select = match std::mem::replace(&mut self.select, Selected::End) {
            Selected::Page { prefix, limit, .. } if page.len() >= limit.get() => {
                Selected::Page { prefix, after: page.last().map(|(metric, _)| metric.clone()), limit }
            }
            _ => Selected::End,
        };
        // Some stored buckets lie outside the requested ones, and some metrics in these only.
        page.retain(|(_, sums)| sums.value.is_some() || sums.earlier.is_some());
        Ok(Some(page))
    }

    /// Reads the stored buckets of `part`, as many at once as memory allows, and adds their counters to `page`, whose metrics are
    /// always the first ones of all that were read.
    async fn read(
        &self,
        part: &Part,
        select: &Select,
        page: &mut Vec<(String, Sums)>,
        mut add: impl FnMut(&mut Sums, Bucket, Value),
    ) -> Result<(), ReadError> {
        let collection = &self.spans.collection;
        let mut rest = Some(part.range());
        if part.range().len() > SPARSE {
            rest = self.source.extent(collection, part.range()).await?;
        }
        let limit = match select {
            Select::Page { limit, .. } => limit.get(),
            _ => 1,
        };
        let mut buckets = (TARGET / limit).max(1) as u64;
        while let Some(range) = rest {
            let (chunk, after) = range.split_at(buckets);
            let query = RowQuery { collection: collection.clone(), range: chunk, select: select.clone() };
            let rows = self.source.rows(&query).await?;
            let read = rows.values().map(Counters::len).sum::<usize>().max(1) as u64;
            for (bucket, counters) in rows {
                merge_sorted(page, counters, |sums, value| add(sums, bucket, value));
                page.truncate(limit);
            }
            buckets = (buckets.saturating_mul(TARGET as u64) / read).clamp(1, buckets.saturating_mul(64));
            rest = after;
        }
        Ok(())
    }
}

/// Adds the counters of a bucket to the metrics of a page. Both are in byte order, so that each is walked over once.
fn merge_sorted(page: &mut Vec<(String, Sums)>, counters: Counters, mut add: impl FnMut(&mut Sums, Value)) {
    let (mut at, known) = (0, page.len());
    for (metric, value) in counters {
        while at < known && page[at].0 < metric {
            at += 1;
        }
        if at < known && page[at].0 == metric {
            add(&mut page[at].1, value);
        } else {
            let mut sums = Sums::default();
            add(&mut sums, value);
            page.push((metric, sums));
        }
    }
    if page.len() > known {
        // Two sorted runs, which a stable sort merges.
        page.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
}

impl Sums {
    /// Adds the sums of another metric of the same row.
    pub(crate) fn merge(&mut self, other: Self) {
        other.value.into_iter().for_each(|value| merge(&mut self.value, value));
        other.earlier.into_iter().for_each(|value| merge(&mut self.earlier, value));
        for (bucket, value) in other.points {
            add(self.points.entry(bucket), value);
        }
    }
}

pub(crate) fn merge(sum: &mut Option<Value>, value: Value) {
    *sum = Some(match sum.take() {
        Some(sum) => plus(sum, value),
        None => value,
    });
}

fn add(entry: Entry<'_, Bucket, Value>, value: Value) {
    match entry {
        Entry::Vacant(entry) => drop(entry.insert(value)),
        Entry::Occupied(mut entry) => {
            let sum = std::mem::replace(entry.get_mut(), Ok(0));
            *entry.get_mut() = plus(sum, value);
        }
    }
}
