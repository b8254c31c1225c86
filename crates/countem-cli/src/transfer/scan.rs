//! Every stored counter, in order, in bounded memory.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
};

use anyhow::Result;
use countem_core::{Bucket, BucketRange, CollectionName, Period, Schedules, jiff::Timestamp};
use countem_query::{TimeRange, TimeRangeError};
use countem_store::{Counters, RowQuery, Rows, Select, Store, Value};
use countem_transfer::Digest;

use crate::{exit::UsageError, progress::Meters};

/// Maximum number of counters that are read at once.
const PAGE: usize = 50_000;

/// Reads the stored counters by collection, period, bucket and metric; without the buckets that have expired.
pub(crate) struct Scan {
    store: Arc<dyn Store>,
    schedules: Arc<Schedules>,
    now: Timestamp,
    range: Option<TimeRange>,
    /// The collections that are not read to their end; the first one is being read.
    collections: VecDeque<CollectionName>,
    /// The periods of the first collection that are not begun.
    periods: VecDeque<Period>,
    /// The buckets that are not read to their end.
    rest: Option<BucketRange>,
    /// The last metric of the first bucket that was read.
    after: Option<String>,
    /// Number of buckets that are read at once.
    buckets: u64,
    /// Reasons for which no buckets of a period were read, of the first collection that has none of another.
    unusable: Option<(CollectionName, Vec<String>)>,
    /// Some stored period of the range was read.
    is_usable: bool,
}

/// Counters that were read at once.
pub(crate) struct Page {
    pub(crate) collection: CollectionName,
    pub(crate) rows: Vec<(Bucket, Counters)>,
}

/// Values of metrics by bucket.
pub(crate) type Metrics = BTreeMap<String, Vec<(Bucket, Value)>>;

/// Position in a scan: the last counter that was read.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) collection: CollectionName,
    pub(crate) bucket: Bucket,
    pub(crate) metric: String,
}

impl Scan {
    /// Returns a scan of all counters of `collections` that are kept at `now`.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        schedules: Arc<Schedules>,
        collections: impl IntoIterator<Item = CollectionName>,
        now: Timestamp,
    ) -> Self {
        Self {
            store,
            schedules,
            now,
            range: None,
            collections: collections.into_iter().collect(),
            periods: Period::ALL.into(),
            rest: None,
            after: None,
            buckets: 1,
            unusable: None,
            is_usable: false,
        }
    }

    /// Leaves out the periods of whose whole buckets `range` is not made up, and the buckets outside of it.
    pub(crate) fn within(self, range: Option<TimeRange>) -> Self {
        Self { range, ..self }
    }

    /// Continues after `position`.
    pub(crate) fn after(mut self, position: Position) -> Self {
        let Position { collection, bucket, metric } = position;
        self.collections.retain(|name| *name >= collection);
        if self.collections.front() == Some(&collection) {
            self.periods.retain(|period| *period > bucket.period());
            self.rest = BucketRange::new(bucket, BucketRange::every(bucket.period()).last());
            self.after = Some(metric);
        }
        self
    }

    /// Returns the next counters, `None` after the last ones.
    ///
    /// # Errors
    /// The store cannot be read; a [`UsageError`] where the range has no buckets of a stored period that are kept.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>> {
        while let Some((collection, range)) = self.begin().await? {
            let (chunk, _) = range.split_at(if self.after.is_some() { 1 } else { self.buckets });
            let (read, limit) = self.read(&collection, chunk).await?;
            let counters = read.values().map(Counters::len).sum::<usize>();
            let mut rows = Vec::new();
            self.rest = range.split_at(chunk.len()).1;
            for (bucket, counters) in read {
                let last = counters.metrics().next_back().filter(|_| counters.len() >= limit);
                self.after = last.map(str::to_owned);
                rows.push((bucket, counters));
                if self.after.is_some() {
                    // There may be more metrics in this bucket, which come before the next one.
                    self.rest = BucketRange::new(bucket, range.last());
                    break;
                }
            }
            if let (true, Some(rest)) = (rows.is_empty(), self.rest) {
                self.rest = self.store.extent(&collection, rest).await?;
            }
            if chunk.len() == self.buckets {
                // A quarter of the limit on average, so that few buckets have more.
                let target = self.buckets.saturating_mul(PAGE as u64 / 4) / (counters.max(1) as u64);
                self.buckets = target.clamp(1, self.buckets.saturating_mul(16).min(PAGE as u64));
            }
            if !rows.is_empty() {
                return Ok(Some(Page { collection, rows }));
            }
        }
        Ok(None)
    }

    /// Returns the next counters by collection, period, metric and bucket; `None` after the last ones. Whole metrics are read at once.
    ///
    /// # Errors
    /// As [`next`](Self::next), and a [`UsageError`] where one metric may have too many buckets.
    pub(crate) async fn next_metrics(&mut self) -> Result<Option<(CollectionName, Metrics)>> {
        const MAX_BUCKETS: u64 = 1_000_000;
        while let Some((collection, range)) = self.begin().await? {
            if range.len() > MAX_BUCKETS {
                let (period, first, last) = (range.period(), range.first(), range.last());
                let why = format!(
                    "`{collection}` has more than {MAX_BUCKETS} buckets of a {period} from {first} to {last}: name a shorter range with `--range`, or another format"
                );
                return Err(UsageError::new(why).into());
            }
            let (read, limit) = self.read(&collection, range).await?;
            let mut metrics = Metrics::new();
            for (bucket, counters) in read {
                for (metric, value) in counters {
                    metrics.entry(metric).or_default().push((bucket, value));
                }
                // The first metrics of all buckets are among the first ones of each.
                while metrics.len() > limit {
                    metrics.pop_last();
                }
            }
            self.after = metrics.keys().next_back().filter(|_| metrics.len() >= limit).cloned();
            if self.after.is_none() {
                self.rest = None;
            }
            if !metrics.is_empty() {
                return Ok(Some((collection, metrics)));
            }
        }
        Ok(None)
    }

    /// Returns the collection that is being read and its buckets that are not read to their end, `None` after the last ones.
    async fn begin(&mut self) -> Result<Option<(CollectionName, BucketRange)>> {
        while self.rest.is_none() {
            if !self.begin_period().await? {
                let unusable = self.unusable.take().filter(|_| !self.is_usable);
                return match unusable {
                    Some((_, why)) => Err(UsageError::new(why.join(", and ")).into()),
                    None => Ok(None),
                };
            }
        }
        Ok(self.collections.front().cloned().zip(self.rest))
    }

    /// Reads the first metrics of each bucket of `range`, after the last one that was read. Returns them and their maximum number.
    async fn read(&mut self, collection: &CollectionName, range: BucketRange) -> Result<(Rows, usize)> {
        let limit = PAGE / usize::try_from(range.len()).unwrap_or(PAGE);
        let limit = NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN);
        let select = Select::Page { prefix: String::new(), after: self.after.take(), limit };
        let query = RowQuery { collection: collection.clone(), range, select };
        Ok((self.store.read(&query, None).await?, limit.get()))
    }

    /// Goes on to the next period that has counters; false after the last one.
    async fn begin_period(&mut self) -> Result<bool> {
        loop {
            let Some(collection) = self.collections.front().cloned() else { return Ok(false) };
            let Some(period) = self.periods.pop_front() else {
                self.collections.pop_front();
                self.periods = Period::ALL.into();
                continue;
            };
            let schedule = self.schedules.of(collection.as_str());
            let is_stored = schedule.ever_stored().contains(&period);
            let mut range = match self.range {
                None => BucketRange::every(period),
                Some(wanted) => match wanted.buckets(period, self.now, self.schedules.zone(self.now)) {
                    Ok(range) => range,
                    Err(TimeRangeError::NotWhole { .. }) => {
                        let why =
                            format!("`{wanted}` is not made up of whole {period} buckets of `{collection}`");
                        self.note(&collection, why, is_stored);
                        continue;
                    }
                    Err(error) => return Err(UsageError::new(error.to_string()).into()),
                },
            };
            if let Some(kept_from) = schedule.kept_from(period, self.now).filter(|from| *from > range.first())
            {
                let Some(kept) = BucketRange::new(kept_from, range.last()) else {
                    let why =
                        format!("the {period} buckets of `{collection}` before {kept_from} have expired");
                    self.note(&collection, why, is_stored && self.range.is_some());
                    continue;
                };
                range = kept;
            }
            self.is_usable |= is_stored;
            self.rest = self.store.extent(&collection, range).await?;
            self.buckets = 1;
            if self.rest.is_some() {
                return Ok(true);
            }
        }
    }

    /// Remembers why buckets of a period are not read.
    fn note(&mut self, collection: &CollectionName, why: String, is_stored: bool) {
        let (of, reasons) = self.unusable.get_or_insert_with(|| (collection.clone(), Vec::new()));
        if of == collection && is_stored {
            reasons.push(why);
        }
    }
}

impl Page {
    /// Lists the counters that have a value.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (Bucket, &str, i64)> {
        self.rows.iter().flat_map(|(bucket, counters)| {
            counters.readable().map(|(metric, value)| (*bucket, metric, value))
        })
    }

    /// Returns the position after the page.
    pub(crate) fn end(&self) -> Option<Position> {
        let (bucket, counters) = self.rows.last()?;
        let metric = counters.metrics().next_back()?.to_owned();
        Some(Position { collection: self.collection.clone(), bucket: *bucket, metric })
    }
}

/// Returns the digest of the rest of `scan`.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn digest(mut scan: Scan, meters: &Meters) -> Result<Digest> {
    let mut digest = Digest::default();
    while let Some(page) = scan.next().await? {
        for (bucket, metric, value) in page.counters() {
            digest.add(page.collection.as_str(), bucket, metric, value);
            meters.handle(1);
        }
    }
    Ok(digest)
}
