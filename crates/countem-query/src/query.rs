//! Questions about counters.

mod limits;
mod metrics;

use std::{fmt, str::FromStr};

use countem_core::{Bucket, CollectionName, NameError, Period};
use jiff::Span;

pub use self::{
    limits::Limits,
    metrics::{LabelFilter, LabelFilterError, Metrics, Pattern, PatternError},
};
use crate::{TimeRange, TimeRangeError};

/// A question about the counters of one or more collections, answered by [`Reader::query`](crate::Reader::query).
///
/// It selects metrics and a range of time, and says how their counts are added up: by default each metric over the whole range.
///
/// ```
/// use countem_query::Query;
/// use countem_core::jiff::ToSpan as _;
///
/// let daily = Query::new("web").matching("GET *").last(30.days()).by_day();
/// let largest = Query::new("web").range("2026-11".parse()?).order(countem_query::Order::Value).limit(20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Query {
    pub(crate) collections: Vec<CollectionName>,
    pub(crate) metrics: Metrics,
    pub(crate) labels: Vec<LabelFilter>,
    pub(crate) range: TimeRange,
    pub(crate) step: Option<Period>,
    pub(crate) fill: Fill,
    pub(crate) group: Group,
    pub(crate) order: Order,
    pub(crate) is_reversed: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) after: Option<Cursor>,
    pub(crate) compare: Option<Compare>,
    pub(crate) limits: Limits,
    /// The first part that cannot be, which is reported when the query is asked.
    pub(crate) problem: Option<Problem>,
}

/// A part of a query that cannot be.
#[derive(Debug, Clone)]
pub(crate) enum Problem {
    Name(NameError),
    Range(TimeRangeError),
}

/// Points of buckets without a count. No choice changes a sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fill {
    /// They are left out.
    #[default]
    None,
    /// They are 0. Buckets that begin in the future have no point.
    Zero,
    /// They have a point without a value. Buckets that begin in the future have none.
    Gap,
}

/// Metrics that are added up to one row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Group {
    /// None: each metric is a row.
    #[default]
    Metric,
    /// Metrics with the same values of these labels. A label that is absent has the empty value.
    Labels(Vec<String>),
    /// Metrics whose names, without labels, have the same first `depth` levels.
    Level {
        /// Text between two levels, not empty.
        separator: String,
        /// Number of levels, from 1.
        depth: usize,
    },
    /// All metrics of a collection.
    All,
}

/// Order of the rows. Rows that are equal in it are in the order of their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Collections and names in byte order. The only order in which an answer can be [continued](Query::after).
    #[default]
    Name,
    /// The largest value first. Values that cannot be read come last.
    Value,
    /// The largest change first; needs a [comparison](Query::compare).
    Change,
}

/// An earlier range that is read beside the range of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// The range of as many buckets that ends where the range begins: the month before a month, 30 days before 30 days.
    Previous,
    /// The latest range of the same length before it that begins on the same day of the week.
    Weekdays,
}

/// Position in the order by name: the next row is the first one behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Collection of the last row.
    pub collection: CollectionName,
    /// Name of the last row.
    pub name: String,
}

impl Query {
    /// Returns a query for every metric of `collection` today. A name that is not valid is an error of the answer.
    pub fn new(collection: &str) -> Self {
        Self::of([]).and(collection)
    }

    /// Returns a query for every metric of some collections today.
    pub fn of(collections: impl IntoIterator<Item = CollectionName>) -> Self {
        let mut collections: Vec<_> = collections.into_iter().collect();
        collections.sort_unstable();
        collections.dedup();
        Self {
            collections,
            metrics: Metrics::All,
            labels: Vec::new(),
            range: TimeRange::TODAY,
            step: None,
            fill: Fill::default(),
            group: Group::default(),
            order: Order::default(),
            is_reversed: false,
            limit: None,
            after: None,
            compare: None,
            limits: Limits::default(),
            problem: None,
        }
    }

    /// Asks for another collection, too. Its rows are apart.
    #[must_use]
    pub fn and(mut self, collection: &str) -> Self {
        match CollectionName::new(collection) {
            Ok(collection) => {
                if let Err(at) = self.collections.binary_search(&collection) {
                    self.collections.insert(at, collection);
                }
            }
            Err(error) => self.problem = self.problem.or(Some(Problem::Name(error))),
        }
        self
    }

    /// Selects metrics.
    #[must_use]
    pub fn metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Selects the metrics whose names match a pattern, in which `*` is any text and `?` any character. See [`Metrics`].
    #[must_use]
    pub fn matching(self, pattern: &str) -> Self {
        self.metrics(Metrics::glob(pattern))
    }

    /// Selects the metrics that meet a condition on a label, among those that meet the others.
    #[must_use]
    pub fn label(mut self, filter: LabelFilter) -> Self {
        self.labels.push(filter);
        self
    }

    /// Selects a range of time. It includes both ends.
    #[must_use]
    pub fn range(self, range: TimeRange) -> Self {
        Self { range, ..self }
    }

    /// Selects the last days, hours or other units, the present one included: the span has one unit, such as `30.days()`.
    #[must_use]
    pub fn last(mut self, span: Span) -> Self {
        match TimeRange::last(span) {
            Ok(range) => self.range(range),
            Err(error) => {
                self.problem = self.problem.or(Some(Problem::Range(error)));
                self
            }
        }
    }

    /// Selects one bucket.
    #[must_use]
    pub fn bucket(self, bucket: Bucket) -> Self {
        self.range(bucket.into())
    }

    /// Asks for a point for each bucket of `period`, which has to divide the range.
    #[must_use]
    pub fn by(self, period: Period) -> Self {
        Self { step: Some(period), ..self }
    }

    /// Asks for a point for each day.
    #[must_use]
    pub fn by_day(self) -> Self {
        self.by(Period::Day)
    }

    /// Asks for a point for each hour.
    #[must_use]
    pub fn by_hour(self) -> Self {
        self.by(Period::Hour)
    }

    /// Chooses the points of buckets without a count.
    #[must_use]
    pub fn fill(self, fill: Fill) -> Self {
        Self { fill, ..self }
    }

    /// Adds up metrics.
    #[must_use]
    pub fn group(self, group: Group) -> Self {
        Self { group, ..self }
    }

    /// Adds up the metrics with the same values of labels.
    #[must_use]
    pub fn by_labels<K: Into<String>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        self.group(Group::Labels(keys.into_iter().map(Into::into).collect()))
    }

    /// Chooses the order of the rows.
    #[must_use]
    pub fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// Reverses the order of the rows: the smallest value or change first.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { is_reversed: !self.is_reversed, ..self }
    }

    /// Cuts the answer to the first `limit` rows.
    #[must_use]
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Continues an answer in the order by name: only rows behind `cursor`. Every row is returned once, while other metrics appear.
    #[must_use]
    pub fn after(self, cursor: Cursor) -> Self {
        Self { after: Some(cursor), ..self }
    }

    /// Reads an earlier range beside this one.
    #[must_use]
    pub fn compare(self, compare: Compare) -> Self {
        Self { compare: Some(compare), ..self }
    }

    /// Bounds the answer.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}

/// As `collection/name`.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.name)
    }
}

/// An error: the text is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no position; one is `collection/name`, as an answer gives it")]
pub struct CursorError(String);

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let parts = text.split_once('/');
        let cursor = parts.and_then(|(collection, name)| {
            Some(Self { collection: CollectionName::new(collection).ok()?, name: name.to_owned() })
        });
        cursor.ok_or_else(|| CursorError(text.to_owned()))
    }
}
