//! Waiting without a runtime.
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let collector = countem::Collector::builder().start_blocking()?;
//! collector.increment("app-events", "MyMethod.calls", 1);
//! let today = collector.blocking().get_counters("app-events", None)?;
//! assert_eq!(today["MyMethod.calls"], 1);
//! collector.blocking().shutdown();
//! # Ok(())
//! # }
//! ```

use std::{collections::BTreeMap, future::Future};

use countem_core::{Bucket, BucketRange, CollectionName};

use crate::{
    Counters, Error, ShutdownReport, When,
    query::{Answer, Query},
};

impl crate::Collector {
    /// Returns the async methods as blocking ones, for code without a runtime.
    pub fn blocking(&self) -> Collector<'_> {
        Collector(self)
    }
}

/// The async methods of a [`Collector`](crate::Collector), blocking the calling thread; see
/// [`Collector::blocking`](crate::Collector::blocking).
///
/// # Panics
/// Every method, when called from async code, which must not be blocked.
#[derive(Debug, Clone, Copy)]
pub struct Collector<'a>(pub(crate) &'a crate::Collector);

impl Collector<'_> {
    /// Does what [`increment_durable`](crate::Collector::increment_durable) does.
    ///
    /// # Errors
    /// As [`increment_durable`](crate::Collector::increment_durable).
    pub fn increment_durable(&self, collection: &str, metric: &str, n: i64) -> Result<(), Error> {
        block_on(self.0.increment_durable(collection, metric, n))
    }

    /// Does what [`increment_durable_with`](crate::Collector::increment_durable_with) does.
    ///
    /// # Errors
    /// As [`increment_durable_with`](crate::Collector::increment_durable_with).
    pub fn increment_durable_with(
        &self,
        collection: &str,
        metric: &str,
        labels: &[(&str, &str)],
        n: i64,
    ) -> Result<(), Error> {
        block_on(self.0.increment_durable_with(collection, metric, labels, n))
    }

    /// Does what [`durable`](crate::Collector::durable) does.
    ///
    /// # Errors
    /// As [`durable`](crate::Collector::durable).
    pub fn durable(&self) -> Result<(), Error> {
        block_on(self.0.durable())
    }

    /// Does what [`get_counters`](crate::Collector::get_counters) does.
    ///
    /// # Errors
    /// As [`get_counters`](crate::Collector::get_counters).
    pub fn get_counters(&self, collection: &str, when: impl Into<When>) -> Result<Counters, Error> {
        block_on(self.0.get_counters(collection, when))
    }

    /// Does what [`get_all_counters`](crate::Collector::get_all_counters) does.
    ///
    /// # Errors
    /// As [`get_all_counters`](crate::Collector::get_all_counters).
    pub fn get_all_counters(
        &self,
        when: impl Into<When>,
    ) -> Result<BTreeMap<CollectionName, Counters>, Error> {
        block_on(self.0.get_all_counters(when))
    }

    /// Does what [`get`](crate::Collector::get) does.
    ///
    /// # Errors
    /// As [`get`](crate::Collector::get).
    pub fn get(&self, collection: &str, metric: &str, when: impl Into<When>) -> Result<Option<i64>, Error> {
        block_on(self.0.get(collection, metric, when))
    }

    /// Does what [`series`](crate::Collector::series) does.
    ///
    /// # Errors
    /// As [`series`](crate::Collector::series).
    pub fn series(
        &self,
        collection: &str,
        metric: &str,
        range: BucketRange,
    ) -> Result<BTreeMap<Bucket, i64>, Error> {
        block_on(self.0.series(collection, metric, range))
    }

    /// Does what [`query`](crate::Collector::query) does.
    ///
    /// # Errors
    /// As [`query`](crate::Collector::query).
    pub fn query(&self, query: Query) -> Result<Answer, Error> {
        block_on(self.0.query(query))
    }

    /// Does what [`increment_and_get`](crate::Collector::increment_and_get) does.
    ///
    /// # Errors
    /// As [`increment_and_get`](crate::Collector::increment_and_get).
    pub fn increment_and_get(
        &self,
        collection: &str,
        metric: &str,
        n: i64,
        when: impl Into<When>,
    ) -> Result<i64, Error> {
        block_on(self.0.increment_and_get(collection, metric, n, when))
    }

    /// Does what [`decrement_to_zero`](crate::Collector::decrement_to_zero) does.
    ///
    /// # Errors
    /// As [`decrement_to_zero`](crate::Collector::decrement_to_zero).
    pub fn decrement_to_zero(
        &self,
        collection: &str,
        metric: &str,
        n: u64,
        when: impl Into<When>,
    ) -> Result<i64, Error> {
        block_on(self.0.decrement_to_zero(collection, metric, n, when))
    }

    /// Does what [`collections`](crate::Collector::collections) does.
    ///
    /// # Errors
    /// As [`collections`](crate::Collector::collections).
    pub fn collections(&self) -> Result<Vec<CollectionName>, Error> {
        block_on(self.0.collections())
    }

    /// Does what [`flush`](crate::Collector::flush) does.
    ///
    /// # Errors
    /// As [`flush`](crate::Collector::flush).
    pub fn flush(&self) -> Result<(), Error> {
        block_on(self.0.flush())
    }

    /// Does what [`shutdown`](crate::Collector::shutdown) does.
    pub fn shutdown(&self) -> ShutdownReport {
        block_on(self.0.shutdown())
    }
}

/// Polls a future on this thread. The engine's own runtime does the work that the future waits for.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime without I/O and timers needs nothing that could be missing").block_on(future)
}
