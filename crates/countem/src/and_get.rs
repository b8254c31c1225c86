//! Queries, and counting with an answer.

use countem_core::{CollectionName, MetricName};
use countem_query::{Answer, Query};

use crate::{Collector, Error, When};

impl Collector {
    /// Answers a query: ranges, series, groups by label or level, the largest counters, comparisons. Includes what this node has
    /// not stored yet, exactly once.
    ///
    /// ```
    /// use countem::{Query, jiff::ToSpan as _, query::Order};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let (collector, _) = countem::Collector::for_test();
    /// collector.increment("web", "GET /", 3);
    /// collector.increment("web", "GET /about", 1);
    ///
    /// let query = Query::new("web").matching("GET *").last(30.days()).by_day().order(Order::Value);
    /// let answer = collector.query(query).await?;
    /// assert_eq!(answer.rows[0].name, "GET /");
    /// assert_eq!(answer.rows[0].value, Ok(3));
    /// assert_eq!(answer.total, Some(Ok(4)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Query`]: the query contradicts itself, has no exact answer, or exceeds one of its
    /// [limits](crate::query::Limits). [`Error::Read`]: the store could not be read.
    pub async fn query(&self, query: Query) -> Result<Answer, Error> {
        self.read(async move |reader, now| reader.query(&query, now).await).await
    }

    /// Counts `n` events now, and returns the counter after that, by `when` of today, of another day or of a period. A negative
    /// `n` decrements.
    ///
    /// The answer has all counts of this node, stored or not, each exactly once, as of a moment after the increment. Those of other
    /// nodes are as old as the stored value, which is read again after [`stored_age`](crate::Builder::stored_age), one second by default, and
    /// after every flush of this node. What other nodes have not stored yet is not in it. [`get`](Self::get) always reads the store.
    ///
    /// # Errors
    /// [`Error::Refused`]: not counted. Other errors: counted, but the counter could not be read.
    pub async fn increment_and_get(
        &self,
        collection: &str,
        metric: &str,
        n: i64,
        when: impl Into<When>,
    ) -> Result<i64, Error> {
        self.try_increment(collection, metric, n)?;
        let (collection, metric) = (CollectionName::new(collection)?, MetricName::new(metric)?);
        let (when, aged) = (when.into(), self.aged_reader());
        let value = self.read(async move |reader, now| {
            let bucket = reader.bucket(when, now).await?;
            aged.get(&collection, &metric, bucket).await
        });
        Ok(value.await?.unwrap_or(0))
    }

    /// Takes `n` from a counter, or as much as brings it to zero, and returns the counter after that. A counter that is not
    /// positive stays as it is.
    ///
    /// `when` selects the bucket whose value is kept from falling below zero. Calls of one process follow each other. Those of
    /// several nodes do not know of each other's pending counts, and may together take more than there is.
    ///
    /// # Errors
    /// As [`increment_and_get`](Self::increment_and_get).
    pub async fn decrement_to_zero(
        &self,
        collection: &str,
        metric: &str,
        n: u64,
        when: impl Into<When>,
    ) -> Result<i64, Error> {
        let (collection, metric) = (CollectionName::new(collection)?, MetricName::new(metric)?);
        let when = when.into();
        let _turn = self.decrements().lock().await;
        let value = self.get(collection.as_str(), metric.as_str(), when).await?.unwrap_or(0);
        let taken = value.max(0).unsigned_abs().min(n).cast_signed();
        if taken > 0 {
            self.try_increment(collection.as_str(), metric.as_str(), -taken)?;
        }
        Ok(value - taken)
    }
}
