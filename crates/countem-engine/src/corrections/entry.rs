//! Corrections, and their entries in the audit log.

use std::fmt;

use countem_core::{Bucket, CollectionName, MetricName, jiff::Timestamp};
use countem_query::TimeRange;
use serde::{Deserialize, Serialize};

/// A change of stored counts. A range of `None` is all of time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Correction {
    /// Adds `n` to a counter of a bucket and to all stored periods, as an increment at the beginning of the bucket does; at the present
    /// moment if the bucket contains it.
    Add {
        /// The collection.
        collection: CollectionName,
        /// The metric.
        metric: MetricName,
        /// The bucket.
        bucket: Bucket,
        /// The amount, which may be negative.
        n: i64,
    },
    /// Adds the difference of a counter of a bucket to `value`, as [`Add`](Self::Add) does.
    Set {
        /// The collection.
        collection: CollectionName,
        /// The metric.
        metric: MetricName,
        /// The bucket.
        bucket: Bucket,
        /// The value after it.
        value: i64,
    },
    /// Moves the counts of a metric to one that has none.
    Rename {
        /// The collection.
        collection: CollectionName,
        /// The metric before.
        from: MetricName,
        /// The metric after.
        to: MetricName,
        /// The counts that are moved.
        range: Option<TimeRange>,
    },
    /// Adds the counts of metrics to those of another one.
    Merge {
        /// The collection.
        collection: CollectionName,
        /// The metrics that go.
        from: Vec<MetricName>,
        /// The metric that stays.
        to: MetricName,
        /// The counts that are moved.
        range: Option<TimeRange>,
    },
    /// Removes counts.
    Delete {
        /// The collection.
        collection: CollectionName,
        /// The metrics, `None` for all of the collection.
        metrics: Option<Vec<MetricName>>,
        /// The counts that are removed.
        range: Option<TimeRange>,
    },
}

/// Kind of a correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CorrectionKind {
    /// [`Correction::Add`]
    Add,
    /// [`Correction::Set`]
    Set,
    /// [`Correction::Rename`]
    Rename,
    /// [`Correction::Merge`]
    Merge,
    /// [`Correction::Delete`]
    Delete,
    /// The counts of an ingested file were taken back.
    Undo,
}

/// A correction in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CorrectionEntry {
    /// Identity, which sorts by time.
    pub id: String,
    /// Time at which it was asked for.
    #[serde(with = "time")]
    pub at: Timestamp,
    /// Name of the person or program that asked for it.
    pub author: String,
    /// The reason.
    pub reason: String,
    /// The kind.
    pub kind: CorrectionKind,
    /// The collection.
    pub collection: String,
    /// The corrected metrics; empty for all of the collection.
    pub metrics: Vec<String>,
    /// The ingested file whose counts were taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The metric to which the counts were moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The corrected bucket or range; `None` for all of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// The instants of the range, in seconds since 1970, the second one excluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<(i64, i64)>,
    /// Number of counters that were changed. Sums of them in coarser buckets are not counted.
    pub counters: u64,
    /// The amount that was added, moved or removed, if it is known exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<i64>,
    /// The value before, of one counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// The value after, of one counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// False while it goes on, or was interrupted and is to be continued.
    #[serde(skip, default = "finished")]
    pub is_finished: bool,
}

fn finished() -> bool {
    true
}

/// Times as in RFC 3339.
mod time {
    use countem_core::jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Correction {
    /// Returns the collection.
    pub fn collection(&self) -> &CollectionName {
        match self {
            Self::Add { collection, .. }
            | Self::Set { collection, .. }
            | Self::Rename { collection, .. }
            | Self::Merge { collection, .. }
            | Self::Delete { collection, .. } => collection,
        }
    }

    pub(super) fn kind(&self) -> CorrectionKind {
        match self {
            Self::Add { .. } => CorrectionKind::Add,
            Self::Set { .. } => CorrectionKind::Set,
            Self::Rename { .. } => CorrectionKind::Rename,
            Self::Merge { .. } => CorrectionKind::Merge,
            Self::Delete { .. } => CorrectionKind::Delete,
        }
    }
}

impl CorrectionKind {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Set => "set",
            Self::Rename => "rename",
            Self::Merge => "merge",
            Self::Delete => "delete",
            Self::Undo => "undo",
        }
    }
}

/// The correction in words, such as "rename `old` of `web` to `new`".
impl fmt::Display for CorrectionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics = match &self.metrics[..] {
            [] => "everything".to_owned(),
            [one] => format!("`{one}`"),
            [first, .., last] if self.metrics.len() > 3 => {
                format!("{} metrics from `{first}` to `{last}`", self.metrics.len())
            }
            all => all.iter().map(|metric| format!("`{metric}`")).collect::<Vec<_>>().join(", "),
        };
        let collection = &self.collection;
        match self.kind {
            CorrectionKind::Add => {
                write!(f, "add {} to {metrics} of `{collection}`", self.amount.unwrap_or_default())?;
            }
            CorrectionKind::Set => {
                write!(f, "set {metrics} of `{collection}` to {}", self.after.unwrap_or_default())?;
            }
            CorrectionKind::Undo => {
                write!(
                    f,
                    "undo the ingest of `{}` into `{collection}`",
                    self.file.as_deref().unwrap_or("-")
                )?;
            }
            kind => write!(f, "{} {metrics} of `{collection}`", kind.name())?,
        }
        if let Some(target) = &self.target {
            let word = if self.kind == CorrectionKind::Rename { "to" } else { "into" };
            write!(f, " {word} `{target}`")?;
        }
        self.range.as_ref().map_or(Ok(()), |range| write!(f, " in {range}"))
    }
}
