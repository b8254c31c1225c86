//! Counting and reading in one collection.

use std::collections::BTreeMap;

use countem_core::{Bucket, BucketRange, CollectionName, LabelError, NameError, jiff::Timestamp};
use countem_engine::{Counter, Refusal};

use crate::{Collector, Counters, Error, When};

impl Collector {
    /// Binds the collector to one collection.
    ///
    /// # Errors
    /// [`NameError`] when the name is not valid.
    pub fn scoped(&self, collection: &str) -> Result<Scope, NameError> {
        Ok(Scope::new(self.clone(), CollectionName::new(collection)?))
    }
}

/// A collector bound to one collection; see [`Collector::scoped`]. Its methods are those of [`Collector`] without the name
/// of the collection.
#[derive(Debug, Clone)]
pub struct Scope {
    collector: Collector,
    collection: CollectionName,
}

impl Scope {
    pub(crate) fn new(collector: Collector, collection: CollectionName) -> Self {
        Self { collector, collection }
    }

    /// Returns the name of the collection.
    pub fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// See [`Collector::increment`].
    #[inline]
    pub fn increment(&self, metric: &str, n: i64) {
        self.collector.increment(self.collection.as_str(), metric, n);
    }

    /// See [`Collector::try_increment`].
    ///
    /// # Errors
    /// As [`Collector::try_increment`].
    #[inline]
    pub fn try_increment(&self, metric: &str, n: i64) -> Result<(), Refusal> {
        self.collector.try_increment(self.collection.as_str(), metric, n)
    }

    /// See [`Collector::increment_with`].
    pub fn increment_with(&self, metric: &str, labels: &[(&str, &str)], n: i64) {
        self.collector.increment_with(self.collection.as_str(), metric, labels, n);
    }

    /// See [`Collector::try_increment_with`].
    ///
    /// # Errors
    /// As [`Collector::try_increment_with`].
    pub fn try_increment_with(&self, metric: &str, labels: &[(&str, &str)], n: i64) -> Result<(), Refusal> {
        self.collector.try_increment_with(self.collection.as_str(), metric, labels, n)
    }

    /// See [`Collector::increment_at`].
    ///
    /// # Errors
    /// As [`Collector::increment_at`].
    pub fn increment_at(&self, metric: &str, n: i64, timestamp: Timestamp) -> Result<(), Refusal> {
        self.collector.increment_at(self.collection.as_str(), metric, n, timestamp)
    }

    /// See [`Collector::increment_at_with`].
    ///
    /// # Errors
    /// As [`Collector::increment_at_with`].
    pub fn increment_at_with(
        &self,
        metric: &str,
        labels: &[(&str, &str)],
        n: i64,
        timestamp: Timestamp,
    ) -> Result<(), Refusal> {
        self.collector.increment_at_with(self.collection.as_str(), metric, labels, n, timestamp)
    }

    /// See [`Collector::increment_durable`].
    ///
    /// # Errors
    /// As [`Collector::increment_durable`].
    ///
    /// # Cancel safety
    /// As [`Collector::increment_durable`].
    pub async fn increment_durable(&self, metric: &str, n: i64) -> Result<(), Error> {
        self.collector.increment_durable(self.collection.as_str(), metric, n).await
    }

    /// See [`Collector::increment_durable_with`].
    ///
    /// # Errors
    /// As [`Collector::increment_durable_with`].
    ///
    /// # Cancel safety
    /// As [`Collector::increment_durable_with`].
    pub async fn increment_durable_with(
        &self,
        metric: &str,
        labels: &[(&str, &str)],
        n: i64,
    ) -> Result<(), Error> {
        self.collector.increment_durable_with(self.collection.as_str(), metric, labels, n).await
    }

    /// See [`Collector::counter`].
    ///
    /// # Errors
    /// As [`Collector::counter`].
    pub fn counter(&self, metric: &str) -> Result<Counter, NameError> {
        self.collector.counter(self.collection.as_str(), metric)
    }

    /// See [`Collector::counter_with`].
    ///
    /// # Errors
    /// As [`Collector::counter_with`].
    pub fn counter_with(&self, metric: &str, labels: &[(&str, &str)]) -> Result<Counter, LabelError> {
        self.collector.counter_with(self.collection.as_str(), metric, labels)
    }

    /// See [`Collector::get_counters`].
    ///
    /// # Errors
    /// As [`Collector::get_counters`].
    pub async fn get_counters(&self, when: impl Into<When>) -> Result<Counters, Error> {
        self.collector.get_counters(self.collection.as_str(), when).await
    }

    /// See [`Collector::get`].
    ///
    /// # Errors
    /// As [`Collector::get`].
    pub async fn get(&self, metric: &str, when: impl Into<When>) -> Result<Option<i64>, Error> {
        self.collector.get(self.collection.as_str(), metric, when).await
    }

    /// See [`Collector::series`].
    ///
    /// # Errors
    /// As [`Collector::series`].
    pub async fn series(&self, metric: &str, range: BucketRange) -> Result<BTreeMap<Bucket, i64>, Error> {
        self.collector.series(self.collection.as_str(), metric, range).await
    }
}
