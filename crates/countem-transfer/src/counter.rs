//! One counter of one bucket.

use countem_core::{
    Bucket, BucketError, CollectionName, LabelError, MetricName, NameError, Period,
    jiff::{Timestamp, tz::TimeZone},
};

/// A counter of one bucket that has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// The collection.
    pub collection: CollectionName,
    /// The bucket, whose period is that of the counter.
    pub bucket: Bucket,
    /// The metric.
    pub metric: MetricName,
    /// The value.
    pub value: i64,
}

/// A counter of one bucket to write, which may have no exact value.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The collection.
    pub collection: &'a str,
    /// The bucket.
    pub bucket: Bucket,
    /// The metric.
    pub metric: &'a str,
    /// The value, or the reason why there is none.
    pub value: Result<i64, &'a str>,
}

/// An error: the line is no counter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The collection or metric has no valid name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The bucket is none.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The bucket is of another period than the line says.
    #[error("bucket {bucket} is a {found}, not a {said}")]
    Period {
        /// The bucket.
        bucket: Bucket,
        /// Its period.
        found: &'static str,
        /// The period in the line.
        said: String,
    },
    /// The value is no whole number.
    #[error("value `{0}` is no whole number from -9223372036854775808 to 9223372036854775807")]
    Value(String),
    /// The counter was exported without a value.
    #[error(
        "`{metric}` was exported without a value ({why}): remove the line, or export it again once it can be read"
    )]
    NoValue {
        /// The metric.
        metric: String,
        /// The reason.
        why: String,
    },
    /// The line has another number of fields than there are columns.
    #[error("{found} fields where there are {columns} columns (separator `{separator}`)")]
    Fields {
        /// Number of fields.
        found: usize,
        /// Number of columns.
        columns: usize,
        /// The separator.
        separator: char,
    },
    /// A quoted field does not end on its line, or text follows it.
    #[error("a quoted field does not end at a separator (`{0}`) or at the end of the line")]
    Quote(char),
    /// A line of Graphite has another number of words.
    #[error("{0} words; expected `metric.path value timestamp`")]
    Graphite(usize),
    /// A tag of Graphite is none.
    #[error("tag `{0}` is not of the form key=value")]
    Tag(String),
    /// The labels make no metric.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The timestamp is none.
    #[error("timestamp `{0}` is no whole number of seconds since 1970")]
    Timestamp(String),
    /// The date of a hit is none.
    #[error("date `{0}` is not of the form 2026-11-20T14:05:09Z")]
    Date(String),
    /// The column `Bot` of a hit has another content.
    #[error("`{0}` is no number of a bot, which is 0 for people")]
    Bot(String),
    /// The document is not of the expected form.
    #[error("{0}; expected documents such as {{\"_id\":\"20140312\",\"MyMethod\":{{\"calls\":5}}}}")]
    Document(String),
    /// The line is not JSON of the expected form.
    #[error("{0}; expected {{\"collection\":…,\"bucket\":…,\"metric\":…,\"value\":…}}")]
    Json(String),
}

impl Counter {
    /// Returns the counter of texts.
    ///
    /// # Errors
    /// [`RowError`]: one of them breaks its rules.
    pub fn new(
        collection: &str,
        period: Option<&str>,
        bucket: &str,
        metric: &str,
        value: i64,
    ) -> Result<Self, RowError> {
        let bucket: Bucket = bucket.parse()?;
        let found = bucket.period().name();
        if let Some(said) = period.filter(|said| *said != found) {
            return Err(RowError::Period { bucket, found, said: said.to_owned() });
        }
        let (collection, metric) = (CollectionName::new(collection)?, MetricName::new(metric)?);
        Ok(Self { collection, bucket, metric, value })
    }

    /// Returns the counter of the second of `moment`, which is the same whatever periods a store keeps.
    pub(crate) fn at(
        collection: &CollectionName,
        moment: Timestamp,
        metric: MetricName,
        value: i64,
    ) -> Result<Self, RowError> {
        let bucket = Bucket::containing(Period::Second, moment, &TimeZone::UTC)?;
        Ok(Self { collection: collection.clone(), bucket, metric, value })
    }

    /// Returns the counter as it is written.
    pub fn record(&self) -> Record<'_> {
        let Self { collection, bucket, metric, value } = self;
        Record {
            collection: collection.as_str(),
            bucket: *bucket,
            metric: metric.as_str(),
            value: Ok(*value),
        }
    }
}
