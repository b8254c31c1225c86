//! The handle that a service holds.

use std::{borrow::Cow, collections::BTreeMap, future::Future, sync::Arc};

use countem_core::{
    Bucket, BucketRange, CollectionName, LabelError, MetricName, NameError, Period, jiff::Timestamp,
};
use countem_engine::{Counter, Engine, Refusal, ShutdownReport, Stats};
use countem_query::{ReadError, Reader};
use tokio::sync::Mutex;

use crate::{Counters, Error, When};

/// Counts events and reads counters. Cheap to clone, `Send + Sync`.
///
/// Call [`shutdown`](Self::shutdown) at the end, or hold a [`guard`](Self::guard): see
/// [the end of a process](crate#the-end-of-a-process).
#[derive(Debug, Clone)]
pub struct Collector {
    pub(crate) engine: Engine,
    /// Held by the call of [`decrement_to_zero`](Self::decrement_to_zero) that is under way.
    decrements: Arc<Mutex<()>>,
}

impl Collector {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, decrements: Arc::default() }
    }

    /// Returns the engine, for programs that pass on the calls of other nodes: a store that was given to the collector is called on its
    /// [runtime](Engine::runtime).
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn decrements(&self) -> &Mutex<()> {
        &self.decrements
    }

    /// Counts `n` events now. Never blocks on the store, never fails: what is refused is counted in [`stats`](Self::stats) and logged.
    ///
    /// The bucket is chosen here and now; it stays the same however late the count is stored.
    #[inline]
    pub fn increment(&self, collection: &str, metric: &str, n: i64) {
        self.engine.count(collection, metric, n);
    }

    /// Counts `n` events now, or returns the reason why not.
    ///
    /// # Errors
    /// [`Refusal`]: invalid name, shut down, no room for a new counter, overflow.
    #[inline]
    pub fn try_increment(&self, collection: &str, metric: &str, n: i64) -> Result<(), Refusal> {
        self.engine.increment(collection, metric, n)
    }

    /// Counts `n` events under a metric with labels, as [`increment`](Self::increment) does. The order of the labels does not matter.
    ///
    /// The metric is one text, `signups{country="DE",plan="pro"}`, which any other method takes, too; [`MetricName::labelled`] makes it.
    ///
    /// ```
    /// # let (collector, _clock) = countem::Collector::for_test();
    /// collector.increment_with("app", "signups", &[("plan", "pro"), ("country", "DE")], 1);
    /// # let signups = collector.blocking().get("app", r#"signups{country="DE",plan="pro"}"#, None).unwrap();
    /// # assert_eq!(signups, Some(1));
    /// ```
    pub fn increment_with(&self, collection: &str, metric: &str, labels: &[(&str, &str)], n: i64) {
        match MetricName::labelled_text(metric, labels) {
            Ok(metric) => self.engine.count(collection, &metric, n),
            Err(error) => self.engine.refuse(&error.into()),
        }
    }

    /// Counts `n` events under a metric with labels, or returns the reason why not.
    ///
    /// # Errors
    /// As [`try_increment`](Self::try_increment), and [`Refusal::Labels`]: a key that is none or comes twice.
    pub fn try_increment_with(
        &self,
        collection: &str,
        metric: &str,
        labels: &[(&str, &str)],
        n: i64,
    ) -> Result<(), Refusal> {
        self.engine.increment(collection, &self.labelled(metric, labels)?, n)
    }

    /// Returns the text of a metric with labels, or counts and logs the refusal.
    fn labelled<'a>(&self, metric: &'a str, labels: &[(&str, &str)]) -> Result<Cow<'a, str>, Refusal> {
        let metric = MetricName::labelled_text(metric, labels).map_err(Refusal::from);
        metric.inspect_err(|refusal| self.engine.refuse(refusal))
    }

    /// Counts `n` events at the time they happened, which has to lie in the configured past and future window.
    ///
    /// # Errors
    /// As [`try_increment`](Self::try_increment), and when the time lies outside the window.
    pub fn increment_at(
        &self,
        collection: &str,
        metric: &str,
        n: i64,
        timestamp: Timestamp,
    ) -> Result<(), Refusal> {
        self.engine.increment_at(collection, metric, n, timestamp)
    }

    /// Counts `n` events under a metric with labels at the time they happened.
    ///
    /// # Errors
    /// As [`increment_at`](Self::increment_at) and [`try_increment_with`](Self::try_increment_with).
    pub fn increment_at_with(
        &self,
        collection: &str,
        metric: &str,
        labels: &[(&str, &str)],
        n: i64,
        timestamp: Timestamp,
    ) -> Result<(), Refusal> {
        self.engine.increment_at(collection, &self.labelled(metric, labels)?, n, timestamp)
    }

    /// Returns a handle of one counter, whose increments need no look-up.
    ///
    /// # Errors
    /// [`NameError`] when a name is not valid.
    pub fn counter(&self, collection: &str, metric: &str) -> Result<Counter, NameError> {
        self.engine.counter(collection, metric)
    }

    /// Returns a handle of one counter with labels.
    ///
    /// # Errors
    /// [`LabelError`] when the collection, the metric or a label is not valid.
    pub fn counter_with(
        &self,
        collection: &str,
        metric: &str,
        labels: &[(&str, &str)],
    ) -> Result<Counter, LabelError> {
        Ok(self.engine.counter(collection, &MetricName::labelled_text(metric, labels)?)?)
    }

    /// Counts `n` events now and returns once they survive the end of the process: with a journal once they are in it, else
    /// once they are in the store.
    ///
    /// Calls that wait at the same time share one write.
    ///
    /// # Errors
    /// [`Error::Refused`]: not counted. [`Error::NotDurable`]: counted, but the journal cannot be written. Without a journal
    /// this waits while the store is away.
    ///
    /// # Cancel safety
    /// The increment stays counted when the future is dropped.
    pub async fn increment_durable(&self, collection: &str, metric: &str, n: i64) -> Result<(), Error> {
        self.engine.increment(collection, metric, n)?;
        Ok(self.engine.durable().await?)
    }

    /// Counts `n` events under a metric with labels and returns once they survive the end of the process, as
    /// [`increment_durable`](Self::increment_durable) does.
    ///
    /// # Errors
    /// As [`increment_durable`](Self::increment_durable) and [`try_increment_with`](Self::try_increment_with).
    ///
    /// # Cancel safety
    /// The increment stays counted when the future is dropped.
    pub async fn increment_durable_with(
        &self,
        collection: &str,
        metric: &str,
        labels: &[(&str, &str)],
        n: i64,
    ) -> Result<(), Error> {
        self.try_increment_with(collection, metric, labels, n)?;
        Ok(self.engine.durable().await?)
    }

    /// Returns once everything accepted before the call survives the end of the process.
    ///
    /// # Errors
    /// [`Error::NotDurable`]: the journal cannot be written. Everything stays counted.
    pub async fn durable(&self) -> Result<(), Error> {
        Ok(self.engine.durable().await?)
    }

    /// Returns all counters of a collection, sorted by metric: `None` for today, or a date, a bucket or a period, which
    /// stands for its current bucket. Includes what this node has not stored yet, exactly once.
    ///
    /// Weeks, months, years and `all` that are not stored are summed from days.
    ///
    /// A metric without an exact value (its sum exceeds 64 bits, or the stored value is no whole number) is among them as
    /// [`Unreadable`](crate::Unreadable) and spoils no other, so every value is a `Result`.
    ///
    /// # Errors
    /// [`Error`]: invalid name, a bucket that does not follow from what is stored, or a store that could not be read.
    pub async fn get_counters(&self, collection: &str, when: impl Into<When>) -> Result<Counters, Error> {
        let (collection, when) = (CollectionName::new(collection)?, when.into());
        self.read(async move |reader, now| {
            let bucket = reader.bucket(when, now).await?;
            reader.get_counters(&collection, bucket).await
        })
        .await
    }

    /// Returns the counters of all collections, as [`get_counters`](Self::get_counters) does of one.
    ///
    /// # Errors
    /// As [`get_counters`](Self::get_counters).
    pub async fn get_all_counters(
        &self,
        when: impl Into<When>,
    ) -> Result<BTreeMap<CollectionName, Counters>, Error> {
        let when = when.into();
        self.read(async move |reader, now| {
            let bucket = reader.bucket(when, now).await?;
            reader.get_all_counters(bucket).await
        })
        .await
    }

    /// Returns one counter, `None` when it was never counted in this bucket.
    ///
    /// # Errors
    /// As [`get_counters`](Self::get_counters), and when the counter is unreadable.
    pub async fn get(
        &self,
        collection: &str,
        metric: &str,
        when: impl Into<When>,
    ) -> Result<Option<i64>, Error> {
        let (collection, metric) = (CollectionName::new(collection)?, MetricName::new(metric)?);
        let when = when.into();
        self.read(async move |reader, now| {
            let bucket = reader.bucket(when, now).await?;
            reader.get(&collection, &metric, bucket).await
        })
        .await
    }

    /// Returns the bucket that contains the present moment of the collector's clock, in its time zone.
    ///
    /// # Errors
    /// [`Error::Bucket`]: the clock shows an impossible time.
    pub fn current(&self, period: Period) -> Result<Bucket, Error> {
        self.bucket(period)
    }

    /// Returns the bucket of a read, by the collector's clock and time zone.
    ///
    /// # Errors
    /// [`Error::Bucket`]: it lies outside the years 0001 to 9999.
    pub fn bucket(&self, when: impl Into<When>) -> Result<Bucket, Error> {
        let now = self.engine.now();
        Ok(when.into().bucket(now, self.engine.calendar().schedules().zone(now))?)
    }

    /// Returns one counter in every bucket of a range in which it was counted.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn series(
        &self,
        collection: &str,
        metric: &str,
        range: BucketRange,
    ) -> Result<BTreeMap<Bucket, i64>, Error> {
        let (collection, metric) = (CollectionName::new(collection)?, MetricName::new(metric)?);
        self.read(async move |reader, _| reader.series(&collection, &metric, range).await).await
    }

    /// Lists the collections that hold a counter, sorted.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn collections(&self) -> Result<Vec<CollectionName>, Error> {
        self.read(async move |reader, _| reader.collections().await).await
    }

    /// Returns once everything accepted before the call is in the store. Waits while the store is away.
    ///
    /// # Errors
    /// [`Error::NotStored`]: a [`shutdown`](Self::shutdown) gave up first; its report says what is missing.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing about what is stored.
    pub async fn flush(&self) -> Result<(), Error> {
        if self.engine.flush().await { Ok(()) } else { Err(Error::NotStored) }
    }

    /// Stops intake, stores what is pending until the deadline, and reports where every accepted increment is.
    ///
    /// Later increments are refused; a second call returns the same report.
    ///
    /// # Cancel safety
    /// The shutdown goes on when the future is dropped.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.engine.shutdown().await
    }

    /// Returns the number of increments that are accepted, applied, pending, quarantined and dropped, and the state of every
    /// lane.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Returns the [`stats`](Self::stats) in the text format of [OpenMetrics], which Prometheus scrapes: serve it at `/metrics`
    /// as [`METRICS_CONTENT_TYPE`](crate::METRICS_CONTENT_TYPE). All numbers are of the same moment:
    ///
    /// ```text
    /// countem_increments_accepted_total = countem_increments_applied_total + countem_increments_pending
    ///                                   + countem_increments_quarantined_total + countem_increments_dropped_total
    /// ```
    ///
    /// [OpenMetrics]: https://prometheus.io/docs/specs/om/open_metrics_spec/
    #[cfg(feature = "metrics")]
    pub fn metrics(&self) -> String {
        crate::metrics::of(self.stats())
    }

    /// Spreads threads over `collectors` in-memory tables, within the configured limits, and returns their number. The
    /// router also resizes itself: it grows when threads meet, and shrinks when they do not.
    pub fn resize(&self, collectors: usize) -> usize {
        self.engine.resize(collectors)
    }

    pub(crate) fn aged_reader(&self) -> Reader {
        self.engine.aged_reader()
    }

    pub(crate) async fn read<T, E, F>(
        &self,
        ask: impl FnOnce(Reader, Timestamp) -> F + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        E: From<ReadError> + Into<Error> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.engine.run(ask(self.engine.reader(), self.engine.now())).await.map_err(Into::into)
    }
}
