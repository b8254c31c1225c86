//! Reads: periods that are not stored are summed from finer ones.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use countem_core::{Bucket, BucketRange, CollectionName, MetricName, Period, Schedules};
use countem_store::{Counters, Query, Select, Store, Unreadable};
use futures_util::future::try_join_all;

use crate::{ReadError, Source, StoreSource};

/// Reads counters of one [`Source`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    source: Arc<dyn Source>,
    schedules: Arc<Schedules>,
}

impl Reader {
    /// Returns a reader of `source`, whose stored periods are those of `schedules`.
    pub fn new(source: Arc<dyn Source>, schedules: Arc<Schedules>) -> Self {
        Self { source, schedules }
    }

    /// Returns a reader of `store` alone, without pending counts.
    pub fn of_store(store: Arc<dyn Store>, schedules: Arc<Schedules>) -> Self {
        Self::new(Arc::new(StoreSource(store)), schedules)
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
        self.sum(collection, bucket, Select::All).await
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
        self.sum(collection, bucket, Select::Page { after: after.map(str::to_owned), limit }).await
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
        let reads = names.iter().map(|name| self.get_counters(name, bucket));
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
        let counters = self.sum(collection, bucket, Select::One(metric.clone())).await?;
        counters.get(metric.as_str()).map_err(|why| unreadable(metric, bucket, why))
    }

    /// Returns one counter in every bucket of a range in which it was counted.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn series(
        &self,
        collection: &CollectionName,
        metric: &MetricName,
        range: BucketRange,
    ) -> Result<BTreeMap<Bucket, i64>, ReadError> {
        let query = Query {
            collection: collection.clone(),
            range: self.finer(collection, range)?,
            select: Select::One(metric.clone()),
        };
        let zone = self.schedules.of(collection.as_str()).zone();
        let mut sums = BTreeMap::<Bucket, Counters>::new();
        for (fine, counters) in self.source.rows(&query).await? {
            let bucket = fine.rollup(range.period(), zone);
            // Both ends of the range nest, but the zone may have had another offset in between. Spans of UTC always nest.
            if range.period().is_civil()
                && !fine.nests_in_civil_days(zone)
                && fine.next().and_then(|next| next.rollup(range.period(), zone)) != bucket
            {
                return Err(self.not_stored(collection, range.period()));
            }
            if let Some(bucket) = bucket.filter(|bucket| range.contains(*bucket)) {
                let sum = sums.entry(bucket).or_default();
                counters.into_iter().for_each(|(metric, part)| sum.merge(&metric, part));
            }
        }
        let value = |bucket, sum: &Counters| {
            let value = sum.get(metric.as_str()).map_err(|why| unreadable(metric, bucket, why));
            value.transpose().map(|value| value.map(|value| (bucket, value)))
        };
        sums.iter().filter_map(|(bucket, sum)| value(*bucket, sum)).collect()
    }

    /// Lists the collections that hold a counter, sorted.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn collections(&self) -> Result<Vec<CollectionName>, ReadError> {
        self.source.collections().await
    }

    /// Returns the coarsest stored buckets that make up the buckets of `range`.
    fn finer(&self, collection: &CollectionName, range: BucketRange) -> Result<BucketRange, ReadError> {
        let schedule = self.schedules.of(collection.as_str());
        let zone = schedule.zone();
        // The stored buckets of one bucket, if its first and last instant are boundaries of theirs.
        let nested = |bucket: Bucket, period| {
            BucketRange::within(bucket, period, zone).filter(|within| {
                bucket == Bucket::ALL
                    || period == bucket.period()
                    || [within.first(), within.last()].iter().all(|end| {
                        end.nests_in_civil_days(zone) && end.rollup(bucket.period(), zone) == Some(bucket)
                    })
            })
        };
        let mut finer = schedule.periods().iter().rev().filter(|period| **period <= range.period());
        let found = finer.find_map(|period| {
            let (first, last) = (nested(range.first(), *period)?, nested(range.last(), *period)?);
            BucketRange::new(first.first(), last.last())
        });
        found.ok_or_else(|| self.not_stored(collection, range.period()))
    }

    fn not_stored(&self, collection: &CollectionName, period: Period) -> ReadError {
        let stored = self.schedules.of(collection.as_str()).periods().iter();
        let stored = stored.map(|period| format!("{period} buckets")).collect::<Vec<_>>().join(", ");
        ReadError::NotStored { collection: collection.clone(), period, stored }
    }

    async fn sum(
        &self,
        collection: &CollectionName,
        bucket: Bucket,
        select: Select,
    ) -> Result<Counters, ReadError> {
        let range = self.finer(collection, BucketRange::one(bucket))?;
        let query = Query { collection: collection.clone(), range, select };
        let mut rows = self.source.rows(&query).await?.into_values();
        if rows.len() < 2 {
            return Ok(rows.next().unwrap_or_default());
        }
        let mut sums = Counters::sum(rows.flatten());
        // The sums beyond the limit lack the metrics that were cut from the pages of single buckets.
        sums.truncate(query.limit());
        Ok(sums)
    }
}

fn unreadable(metric: &MetricName, bucket: Bucket, why: &Unreadable) -> ReadError {
    ReadError::Unreadable { metric: metric.to_string(), bucket, why: why.clone() }
}

#[cfg(test)]
mod tests;
