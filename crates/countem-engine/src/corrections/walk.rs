//! Reading the counters that a correction names, page by page.

use std::{collections::BTreeMap, num::NonZeroUsize};

use countem_core::{Bucket, BucketRange, CollectionName, Delta, MetricName, Period, Table};
use countem_query::ReadError;
use countem_store::{Counters, RowQuery, Select, Store};
use serde::{Deserialize, Serialize};

use super::{
    CorrectionEntry, CorrectionError,
    levels::{Level, Levels},
};

/// Maximum number of deltas of a batch, about.
const BATCH: usize = if cfg!(test) { 24 } else { 10_000 };

/// Names of a correction.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) collection: CollectionName,
    /// The metrics that go; `None` for all.
    pub(super) sources: Option<Vec<MetricName>>,
    pub(super) target: Option<MetricName>,
}

/// Position behind the counters that were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    period: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bucket: Option<String>,
    /// Some metrics of the bucket are not read yet: those behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
}

/// Counters that were read at once.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) rows: Vec<(Bucket, String, i64)>,
    /// Position behind them; `None` at the end.
    pub(super) cursor: Option<Cursor>,
}

/// Buckets of a walk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Buckets {
    /// Those that are corrected on their own, and perhaps others.
    Own,
    /// All that the correction touches.
    Touched,
}

/// A walk over the stored counters of a correction, period by period.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) scope: &'a Scope,
    pub(super) levels: &'a Levels,
}

impl Scope {
    /// Reads the names of an entry.
    pub(super) fn of(entry: &CorrectionEntry) -> Result<Self, CorrectionError> {
        let metric = |name: &String| MetricName::new(name);
        let names = || {
            let sources: Result<Vec<_>, _> = entry.metrics.iter().map(metric).collect();
            Ok(Self {
                collection: CollectionName::new(&entry.collection)?,
                sources: Some(sources?).filter(|sources| !sources.is_empty()),
                target: entry.target.as_ref().map(metric).transpose()?,
            })
        };
        names().map_err(|error: countem_core::NameError| CorrectionError::refused(error.to_string()))
    }
}

impl Cursor {
    fn begin(period: Period) -> Self {
        Self { period: period.name().to_owned(), bucket: None, metric: None }
    }

    fn behind(bucket: Bucket, metric: Option<&str>) -> Self {
        let metric = metric.map(str::to_owned);
        Self { bucket: Some(bucket.to_string()), metric, ..Self::begin(bucket.period()) }
    }

    fn bucket(&self) -> Option<Bucket> {
        self.bucket.as_ref()?.parse().ok()
    }
}

impl Buckets {
    fn of(self, levels: &Levels, level: &Level) -> Option<BucketRange> {
        match self {
            Self::Own => levels.own(level),
            Self::Touched => levels.touched(level),
        }
    }
}

impl Walk<'_> {
    /// Returns the maximum number of counters whose deltas make up a batch.
    pub(super) fn page_len(&self) -> usize {
        (BATCH / (2 * self.levels.levels.len()).max(1)).max(1)
    }

    /// Returns the counters that come next among `buckets`; no more than [`page_len`](Self::page_len), and at least one unless the walk is over.
    pub(super) async fn next(
        &self,
        mut cursor: Option<Cursor>,
        buckets: Buckets,
    ) -> Result<Page, CorrectionError> {
        let from = cursor.as_ref().and_then(|cursor| cursor.period.parse::<Period>().ok());
        let levels = self.levels.levels.iter().filter(|level| from.is_none_or(|from| level.period >= from));
        // A closure must not live across a wait.
        let levels: Vec<&Level> = levels.collect();
        for (at, level) in levels.iter().enumerate() {
            let in_level = cursor.take().filter(|cursor| cursor.period == level.period.name());
            let page = self.in_level(buckets.of(self.levels, level), in_level).await?;
            if page.cursor.is_some() {
                return Ok(page);
            }
            // The level is over.
            if !page.rows.is_empty() {
                let next = levels.get(at + 1).map(|next| Cursor::begin(next.period));
                return Ok(Page { cursor: next, ..page });
            }
        }
        Ok(Page::default())
    }

    /// Returns the counters of one period behind `cursor`; without a cursor where none follow.
    async fn in_level(
        &self,
        range: Option<BucketRange>,
        cursor: Option<Cursor>,
    ) -> Result<Page, CorrectionError> {
        let mut metric = cursor.as_ref().and_then(|cursor| cursor.metric.clone());
        let mut rest = match (range, cursor.as_ref().and_then(Cursor::bucket)) {
            (Some(range), Some(bucket)) => {
                let first = if metric.is_some() { Some(bucket) } else { bucket.next() };
                first.and_then(|first| BucketRange::new(first.max(range.first()), range.last()))
            }
            (range, _) => range,
        };
        let mut page = Page::default();
        let mut buckets = 1;
        'pieces: while let Some(range) = rest {
            let room = self.page_len().saturating_sub(page.rows.len()).max(1);
            let (piece, limit) = match &self.scope.sources {
                Some(sources) => (range.split_at((room / sources.len()).max(1) as u64).0, usize::MAX),
                None if metric.is_some() => (BucketRange::one(range.first()), room),
                None => {
                    let piece = range.split_at(buckets.min(room) as u64).0;
                    (piece, (room / usize::try_from(piece.len()).unwrap_or(1)).max(1))
                }
            };
            let before = page.rows.len();
            let read = self.read(piece, metric.take(), limit).await?;
            rest = range.split_at(piece.len()).1;
            for (bucket, counters) in read {
                let count = counters.len();
                for (metric, value) in counters {
                    let value =
                        value.map_err(|why| ReadError::Unreadable { metric: metric.clone(), bucket, why })?;
                    page.rows.push((bucket, metric, value));
                }
                if count >= limit {
                    // There may be more metrics in this bucket, which come before the next one.
                    metric = page.rows.last().map(|(_, metric, _)| metric.clone());
                    if page.rows.len() >= self.page_len() / 2 {
                        page.cursor = Some(Cursor::behind(bucket, metric.as_deref()));
                        return Ok(page);
                    }
                    rest = BucketRange::new(bucket, range.last());
                    buckets = 1;
                    continue 'pieces;
                }
            }
            if page.rows.len() >= self.page_len() / 2 && rest.is_some() {
                page.cursor = Some(Cursor::behind(piece.last(), None));
                return Ok(page);
            }
            let found = page.rows.len() - before;
            if found * 4 < room {
                buckets = buckets.saturating_mul(4);
            }
            if let (0, Some(range)) = (found, rest) {
                rest = self.store.extent(&self.scope.collection, range).await?;
            }
        }
        page.cursor = None;
        Ok(page)
    }

    /// Reads the sources in some buckets; of all metrics at most `limit` in each, behind `after` in the first one.
    async fn read(
        &self,
        range: BucketRange,
        after: Option<String>,
        limit: usize,
    ) -> Result<BTreeMap<Bucket, Counters>, CorrectionError> {
        let query = |select| RowQuery { collection: self.scope.collection.clone(), range, select };
        let Some(sources) = &self.scope.sources else {
            let limit = NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN);
            let select = Select::Page { prefix: String::new(), after, limit };
            return Ok(self.store.read(&query(select), None).await?);
        };
        let mut rows = BTreeMap::<Bucket, Counters>::new();
        for source in sources {
            for (bucket, counters) in self.store.read(&query(Select::One(source.clone())), None).await? {
                let row = rows.entry(bucket).or_default();
                counters.into_iter().for_each(|(metric, value)| row.merge(&metric, value));
            }
        }
        Ok(rows)
    }

    /// Adds to `table` the deltas that take a counter back, and give its value to the target.
    pub(super) fn fold(
        &self,
        table: &mut Table,
        (bucket, metric, value): &(Bucket, String, i64),
    ) -> Result<(), CorrectionError> {
        let too_large = || {
            CorrectionError::refused(format!(
                "the sum of `{metric}` in {bucket} and near it leaves the range of 64 bits: correct a shorter range"
            ))
        };
        let back = value.checked_neg().ok_or_else(too_large)?;
        let collection = self.scope.collection.as_str();
        for (at, bucket) in self.levels.reached(*bucket).into_iter().enumerate() {
            let increments = u64::from(at == 0);
            let delta = Delta { collection, metric, bucket, n: back, increments };
            table.merge(delta).map_err(|_| too_large())?;
            if let Some(target) = &self.scope.target {
                let delta = Delta { metric: target.as_str(), n: *value, ..delta };
                table.merge(delta).map_err(|_| too_large())?;
            }
        }
        Ok(())
    }
}
