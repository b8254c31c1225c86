//! Reading counters, with periods that are not stored derived from finer ones.

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{Bucket, BucketRange, CollectionName, MetricName, Period, Schedules};
use countem_store::{Counters, Query, Select, Store};
use futures_util::future::try_join_all;

use crate::{ReadError, Source, StoreSource};

/// Reads counters. Cheap to clone.
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

    /// Returns all counters of one bucket, sorted by metric; empty when nothing was counted.
    ///
    /// # Errors
    /// [`ReadError`] when the store cannot be read or the period does not follow from what is stored.
    pub async fn get_counters(
        &self,
        collection: &CollectionName,
        bucket: Bucket,
    ) -> Result<Counters, ReadError> {
        self.sum(collection, bucket, Select::All).await
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
    /// As [`get_counters`](Self::get_counters).
    pub async fn get(
        &self,
        collection: &CollectionName,
        metric: &MetricName,
        bucket: Bucket,
    ) -> Result<Option<i64>, ReadError> {
        let mut counters = self.sum(collection, bucket, Select::One(metric.clone())).await?;
        Ok(counters.remove(metric.as_str()))
    }

    /// Returns one counter in every bucket of a range in which it was counted.
    ///
    /// # Errors
    /// As [`get_counters`](Self::get_counters).
    pub async fn series(
        &self,
        collection: &CollectionName,
        metric: &MetricName,
        range: BucketRange,
    ) -> Result<BTreeMap<Bucket, i64>, ReadError> {
        let select = Select::One(metric.clone());
        if self.is_stored(collection, range.period()) {
            let query = Query { collection: collection.clone(), range, select };
            let rows = self.source.rows(&query).await?;
            return Ok(rows
                .into_iter()
                .filter_map(|(b, mut row)| Some((b, row.remove(metric.as_str())?)))
                .collect());
        }
        let mut series = BTreeMap::new();
        // One read over the finer buckets of the whole range, then summed bucket by bucket.
        let (first, last) = (self.finer(collection, range.first())?, self.finer(collection, range.last())?);
        let Some(whole) = BucketRange::new(first.first(), last.last()) else { return Ok(series) };
        let query = Query { collection: collection.clone(), range: whole, select };
        let zone = self.schedules.of(collection.as_str()).zone();
        for (fine, mut row) in self.source.rows(&query).await? {
            let bucket = fine.rollup(range.period(), zone).filter(|bucket| range.contains(*bucket));
            if let (Some(bucket), Some(value)) = (bucket, row.remove(metric.as_str())) {
                let sum = series.entry(bucket).or_insert(0_i64);
                *sum = sum
                    .checked_add(value)
                    .ok_or_else(|| ReadError::Overflow { metric: metric.to_string(), bucket })?;
            }
        }
        Ok(series)
    }

    /// Lists the collections that hold a counter, sorted.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn collections(&self) -> Result<Vec<CollectionName>, ReadError> {
        self.source.collections().await
    }

    fn is_stored(&self, collection: &CollectionName, period: Period) -> bool {
        self.schedules.of(collection.as_str()).periods().contains(&period)
    }

    /// The coarsest stored buckets that make up `bucket`.
    fn finer(&self, collection: &CollectionName, bucket: Bucket) -> Result<BucketRange, ReadError> {
        let schedule = self.schedules.of(collection.as_str());
        let zone = schedule.zone();
        let nests = |range: &BucketRange| {
            let ends = [range.first(), range.last()];
            bucket == Bucket::ALL
                || *range == BucketRange::one(bucket)
                || ends.iter().all(|end| {
                    end.nests_in_civil_days(zone) && end.rollup(bucket.period(), zone) == Some(bucket)
                })
        };
        let finer = schedule.periods().iter().rev().filter(|period| **period <= bucket.period());
        let mut ranges = finer.filter_map(|period| BucketRange::within(bucket, *period, zone));
        ranges.find(nests).ok_or_else(|| ReadError::NotStored {
            collection: collection.clone(),
            period: bucket.period(),
            stored: schedule.periods().iter().map(|p| format!("{p} buckets")).collect::<Vec<_>>().join(", "),
        })
    }

    async fn sum(
        &self,
        collection: &CollectionName,
        bucket: Bucket,
        select: Select,
    ) -> Result<Counters, ReadError> {
        let range = self.finer(collection, bucket)?;
        let mut rows =
            self.source.rows(&Query { collection: collection.clone(), range, select }).await?.into_values();
        let mut total = rows.next().unwrap_or_default();
        for counters in rows {
            for (metric, value) in counters {
                let sum = total.get(&metric).copied().unwrap_or(0).checked_add(value);
                let sum = sum.ok_or_else(|| ReadError::Overflow { metric: metric.clone(), bucket })?;
                total.insert(metric, sum);
            }
        }
        Ok(total)
    }
}
