//! Reads: periods that are not stored are summed from finer ones.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use countem_core::{
    Bucket, BucketRange, CollectionName, MetricName, Part, Period, Schedule, Schedules,
    jiff::{Timestamp, tz::TimeZone},
};
use countem_store::{Counters, RowQuery, Select, Store, Unreadable};
use futures_util::future::try_join_all;

use crate::{ReadError, Source, StoreSource, When};

/// Reads counters of one [`Source`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    source: Arc<dyn Source>,
}

impl Reader {
    /// Returns a reader of `source`.
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { source }
    }

    /// Returns a reader of `store` alone, without pending counts. `unrecorded` are the schedules of a store that has none recorded.
    pub fn of_store(store: Arc<dyn Store>, unrecorded: Arc<Schedules>) -> Self {
        Self::new(Arc::new(StoreSource { store, unrecorded }))
    }

    /// Returns the source of the counters.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Returns all counters of one bucket, sorted by metric; empty when nothing was counted. A metric without an exact value is
    /// among them as [`Unreadable`], and spoils no other.
    ///
    /// # Errors
    /// [`ReadError`]: the source cannot be read, or the bucket does not follow exactly from stored ones.
    pub async fn get_counters(
        &self,
        collection: &CollectionName,
        bucket: Bucket,
    ) -> Result<Counters, ReadError> {
        self.sum(&*self.schedules().await?, collection, bucket, Select::All).await
    }

    /// Returns the next counters of one bucket: at most `limit`, whose metrics sort after `after` in byte order.
    ///
    /// The last metric of a page is the `after` of the next one; a page of fewer than `limit` is the last.
    ///
    /// # Errors
    /// As [`get_counters`](Self::get_counters).
    pub async fn get_page(
        &self,
        collection: &CollectionName,
        bucket: Bucket,
        after: Option<&str>,
        limit: NonZeroUsize,
    ) -> Result<Counters, ReadError> {
        let select = Select::Page { prefix: String::new(), after: after.map(str::to_owned), limit };
        self.sum(&*self.schedules().await?, collection, bucket, select).await
    }

    /// Returns all counters of one bucket in every collection that has any.
    ///
    /// # Errors
    /// As [`get_counters`](Self::get_counters).
    pub async fn get_all_counters(
        &self,
        bucket: Bucket,
    ) -> Result<BTreeMap<CollectionName, Counters>, ReadError> {
        let names = self.collections().await?;
        let schedules = self.schedules().await?;
        let reads = names.iter().map(|name| self.sum(&schedules, name, bucket, Select::All));
        let read = try_join_all(reads).await?;
        Ok(names.into_iter().zip(read).filter(|(_, counters)| !counters.is_empty()).collect())
    }

    /// Returns one counter, `None` when it was never counted in the bucket.
    ///
    /// # Errors
    /// As [`get_counters`](Self::get_counters), and [`ReadError::Unreadable`].
    pub async fn get(
        &self,
        collection: &CollectionName,
        metric: &MetricName,
        bucket: Bucket,
    ) -> Result<Option<i64>, ReadError> {
        let schedules = self.schedules().await?;
        let counters = self.sum(&schedules, collection, bucket, Select::One(metric.clone())).await?;
        counters.get(metric.as_str()).map_err(|why| unreadable(metric, bucket, why))
    }

    /// Returns one counter in every bucket of a range in which it was counted. Every bucket of the range is exact.
    ///
    /// # Errors
    /// As [`get`](Self::get): one of the buckets does not follow exactly from stored ones, or has no exact value.
    pub async fn series(
        &self,
        collection: &CollectionName,
        metric: &MetricName,
        range: BucketRange,
    ) -> Result<BTreeMap<Bucket, i64>, ReadError> {
        let mut sums = BTreeMap::<Bucket, Counters>::new();
        for part in parts(&*self.schedules().await?, collection, range, self.source.now())? {
            let select = Select::One(metric.clone());
            let query = RowQuery { collection: collection.clone(), range: part.range(), select };
            for (stored, counters) in self.source.rows(&query).await? {
                let bucket = part.bucket(stored, range.period());
                if let Some(bucket) = bucket.filter(|bucket| range.contains(*bucket)) {
                    let sum = sums.entry(bucket).or_default();
                    counters.into_iter().for_each(|(metric, part)| sum.merge(&metric, part));
                }
            }
        }
        let value = |bucket, sum: &Counters| {
            let value = sum.get(metric.as_str()).map_err(|why| unreadable(metric, bucket, why));
            value.transpose().map(|value| value.map(|value| (bucket, value)))
        };
        sums.iter().filter_map(|(bucket, sum)| value(*bucket, sum)).collect()
    }

    /// Returns the first and the last stored bucket that is kept and in which `collection` has a counter, `None` for a collection
    /// without any. Each is of the finest period that holds it.
    ///
    /// # Errors
    /// The source could not be read.
    pub async fn extent(&self, collection: &CollectionName) -> Result<Option<(Bucket, Bucket)>, ReadError> {
        let mut ends: Option<(Bucket, Bucket)> = None;
        let schedules = self.schedules().await?;
        let schedule = schedules.of(collection.as_str());
        for (period, zone) in every_count(schedule, self.source.now()) {
            let range = kept(schedule, period, self.source.now());
            let Some(found) = self.source.extent(collection, range).await? else { continue };
            let start = |bucket: Bucket| bucket.start_instant(zone);
            let end = |bucket: Bucket| bucket.next().map_or(Timestamp::MAX, start);
            let (first, last) = ends.unwrap_or((found.first(), found.last()));
            ends = Some((
                if end(found.first()) <= start(first) { found.first() } else { first },
                if start(found.last()) >= end(last) { found.last() } else { last },
            ));
        }
        Ok(ends)
    }

    /// Returns the bucket nearest to `bucket`, of the same period, in which `collection` has a counter.
    ///
    /// # Errors
    /// The source could not be read.
    pub async fn nearest(
        &self,
        collection: &CollectionName,
        bucket: Bucket,
    ) -> Result<Option<Bucket>, ReadError> {
        if bucket == Bucket::ALL {
            return Ok(None);
        }
        let mut near = Vec::new();
        let schedules = self.schedules().await?;
        let schedule = schedules.of(collection.as_str());
        for (period, zone) in every_count(schedule, self.source.now()) {
            let all = kept(schedule, period, self.source.now());
            // The first day of the first year begins a few hours before it, in some zones.
            let start = Bucket::containing(period, bucket.start_instant(zone), zone).unwrap_or(all.first());
            let before = BucketRange::new(all.first(), start);
            let after = BucketRange::new(start.max(all.first()), all.last());
            for (range, is_before) in [(before, true), (after, false)] {
                let Some(range) = range else { continue };
                let Some(found) = self.source.extent(collection, range).await? else { continue };
                let stored = if is_before { found.last() } else { found.first() };
                near.extend(stored.rollup(bucket.period(), zone));
            }
        }
        let distance = |other: &Bucket| other.start().duration_since(bucket.start()).abs();
        Ok(near.into_iter().min_by_key(distance))
    }

    /// Lists the collections that hold a counter, sorted.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn collections(&self) -> Result<Vec<CollectionName>, ReadError> {
        self.source.collections().await
    }

    /// Returns the schedules by which the counts of the source are stored.
    ///
    /// # Errors
    /// The source could not be read.
    pub async fn schedules(&self) -> Result<Arc<Schedules>, ReadError> {
        self.source.schedules().await
    }

    /// Returns the bucket that `when` means at `now`, in the zone of the source.
    ///
    /// # Errors
    /// The source could not be read, or the bucket lies outside the years 0001 to 9999.
    pub async fn bucket(&self, when: When, now: Timestamp) -> Result<Bucket, ReadError> {
        Ok(when.bucket(now, self.schedules().await?.zone(now))?)
    }

    async fn sum(
        &self,
        schedules: &Schedules,
        collection: &CollectionName,
        bucket: Bucket,
        select: Select,
    ) -> Result<Counters, ReadError> {
        let parts = parts(schedules, collection, BucketRange::one(bucket), self.source.now())?;
        let mut query = RowQuery { collection: collection.clone(), range: BucketRange::one(bucket), select };
        let mut rows = Vec::new();
        for part in parts {
            query.range = part.range();
            let read = self.source.rows(&query).await?.into_iter();
            rows.extend(read.filter(|(stored, _)| part.bucket(*stored, bucket.period()) == Some(bucket)));
        }
        if rows.len() < 2 {
            return Ok(rows.pop().map(|(_, counters)| counters).unwrap_or_default());
        }
        let mut sums = Counters::sum(rows.into_iter().flat_map(|(_, counters)| counters));
        // The sums beyond the limit lack the metrics that were cut from the pages of single buckets.
        sums.truncate(query.limit());
        Ok(sums)
    }
}

fn unreadable(metric: &MetricName, bucket: Bucket, why: &Unreadable) -> ReadError {
    ReadError::Unreadable { metric: metric.to_string(), bucket, why: why.clone() }
}

/// Returns the stored buckets that hold the counts of the buckets of `range`, all of which are kept at `now`.
pub(crate) fn parts(
    schedules: &Schedules,
    collection: &CollectionName,
    range: BucketRange,
    now: Timestamp,
) -> Result<Vec<Part>, ReadError> {
    let schedule = schedules.of(collection.as_str());
    let parts = schedule.parts(range);
    let parts = parts.map_err(|(bucket, why)| ReadError::not_exact(collection, bucket, why))?;
    for part in &parts {
        let (first, period) = (part.range().first(), part.range().period());
        if let Some(kept_from) = schedule.kept_from(period, now).filter(|kept_from| first < *kept_from) {
            let (collection, bucket) = (collection.clone(), range.first());
            return Err(ReadError::Expired { collection, bucket, period, kept_from });
        }
    }
    Ok(parts)
}

/// Lists the periods, from fine to coarse, whose kept buckets hold every count that is kept at `now`, and the zone of their days.
fn every_count(schedule: &Schedule, now: Timestamp) -> Vec<(Period, &TimeZone)> {
    let mut periods: Vec<_> = schedule.finest().collect();
    let holds_all =
        |period: Period| schedule.has_always_stored(period) && schedule.kept_from(period, now).is_none();
    if !periods.iter().any(|(period, _)| holds_all(*period))
        && let Some((finest, zone)) = periods.iter().min_by_key(|(period, _)| *period).copied()
    {
        // Those in which the counts of expired finer buckets, or of earlier times, are kept; `all` tells no time.
        let coarser =
            schedule.ever_stored().into_iter().filter(|period| *period > finest && *period != Period::All);
        let known: Vec<_> = periods.iter().map(|(period, _)| *period).collect();
        periods.extend(coarser.filter(|period| !known.contains(period)).map(|period| (period, zone)));
    }
    periods
}

/// Returns the buckets of `period` that are kept at `now`.
fn kept(schedule: &Schedule, period: Period, now: Timestamp) -> BucketRange {
    let every = BucketRange::every(period);
    let first = schedule.kept_from(period, now).unwrap_or(every.first());
    BucketRange::new(first, every.last()).unwrap_or(every)
}

#[cfg(test)]
mod tests;
