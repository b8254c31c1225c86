//! The calls of a store over HTTP, as client and server know them.
//!
//! A batch is posted to [`BATCHES`] as the bytes of [`Batch::encode`](countem_core::Batch::encode), and answered by [`Applied`]. Every
//! other method of a store is a [`Call`]: a JSON object posted to its path below [`STORE`]. Counters are answered as rows, line by line;
//! everything else as one JSON value. A failed call is answered by a problem (RFC 9457) with one of the [codes](code_of).

use std::{collections::BTreeMap, fmt, str::FromStr};

use countem_core::{
    BatchId, Bucket, BucketRange, CollectionName, MetricName, Quarantined, Schedules, Writer, jiff::Timestamp,
};
use countem_store::{ErrorKind, RowQuery, Select};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

mod claims;
mod rows;

pub use claims::{Claimed, KeyClaim};
pub use rows::{MAX_COUNTERS, MAX_LINE, ROWS_TYPE, RowLines, RowsError, read_rows};

/// Path of batches. The parameter `journaled` is `true` for those [whose quarantine a journal keeps](countem_core::Batch::is_journaled).
pub const BATCHES: &str = "/api/v1/batches";
/// Path above those of the calls.
pub const STORE: &str = "/api/v1/store";
/// Media type of a batch.
pub const BATCH_TYPE: &str = "application/vnd.countem.batch";
/// Media type of a problem.
pub const PROBLEM_TYPE: &str = "application/problem+json";
/// Maximum length of a batch in bytes.
pub const MAX_BATCH: usize = 64 << 20;
/// Maximum length of the body of a call in bytes.
pub const MAX_CALL: usize = 16 << 20;

/// A call of a method of a store.
pub trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// Name of the call, which is its path below [`STORE`].
    const NAME: &'static str;
    /// The method changes something, so a lost answer leaves it in doubt.
    const CHANGES: bool;
    /// The answer.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
}

macro_rules! calls {
    ($($(#[doc = $doc:literal])+ $name:literal $effect:ident $call:ident {
        $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty,)*
    } -> $answer:ty;)*) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $call {$(
            $(#[doc = $field_doc])+
            pub $field: $type,
        )*}

        impl Call for $call {
            const NAME: &'static str = $name;
            const CHANGES: bool = calls!(@ $effect);
            type Answer = $answer;
        }
    )*};
    (@ reads) => { false };
    (@ changes) => { true };
}

calls! {
    /// Forgets the bookkeeping of a writer.
    "forget" changes Forget {
        /// The writer.
        writer: Text<Writer>,
    } -> Done;
    /// Registers a writer.
    "register" changes Register {
        /// The writer.
        writer: Text<Writer>,
    } -> Registered;
    /// Asks if a writer is remembered.
    "remembers" reads Remembers {
        /// The writer.
        writer: Text<Writer>,
    } -> bool;
    /// Retires a writer.
    "retire" changes Retire {
        /// The writer.
        writer: Text<Writer>,
    } -> Done;
    /// Retires the earlier writers of the same node.
    "retire_predecessors" changes RetirePredecessors {
        /// The writer.
        writer: Text<Writer>,
    } -> Done;
    /// Reads counters. The answer is rows, not JSON.
    "read" reads Read {
        /// The counters.
        query: Selection,
        /// With what the server has pending.
        with_pending: bool,
        /// A batch of the caller that counts as applied, [encoded](countem_core::Batch::encode), in hexadecimal digits.
        in_flight: Option<String>,
    } -> Done;
    /// Lists the collections.
    "collections" reads Collections {
        /// With what the server has pending.
        with_pending: bool,
    } -> Vec<Text<CollectionName>>;
    /// Asks for the first and the last bucket with a counter.
    "extent" reads Extent {
        /// The collection.
        collection: Text<CollectionName>,
        /// First bucket of the range.
        first: Text<Bucket>,
        /// Last bucket of the range.
        last: Text<Bucket>,
        /// With what the server has pending.
        with_pending: bool,
    } -> Option<(Text<Bucket>, Text<Bucket>)>;
    /// Lists the quarantine of the store.
    "quarantined" reads ListQuarantined {} -> Vec<Held>;
    /// Ends the quarantine of a count.
    "release" changes Release {
        /// The count.
        held: Held,
        /// Add it to its counter; else give it up.
        retry: bool,
    } -> Released;
    /// Lists marks.
    "marks" reads Marks {
        /// Beginning of their keys.
        prefix: String,
    } -> BTreeMap<String, String>;
    /// Asks for the recorded schedules.
    "schedules" reads ReadSchedules {} -> Option<Text<Schedules>>;
    /// Records schedules.
    "record_schedules" changes RecordSchedules {
        /// The schedules.
        schedules: Text<Schedules>,
    } -> Text<Schedules>;
    /// Removes counters that are zero.
    "remove_zeros" changes RemoveZeros {
        /// Their collection.
        collection: Text<CollectionName>,
        /// Their buckets and metrics.
        counters: Vec<(Text<Bucket>, Text<MetricName>)>,
    } -> usize;
    /// Claims idempotency keys.
    "claim" changes Claim {
        /// The claims.
        claims: Vec<KeyClaim>,
        /// The present moment.
        now: Text<Timestamp>,
    } -> Vec<Claimed>;
    /// Checks that the store can be used.
    "check" reads Check {} -> Done;
    /// Examines the store for damage.
    "verify" reads Verify {} -> Vec<String>;
}

/// Answer to a call that has none.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Done {}

/// Answer to [`Register`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registered {
    /// See [`Registration::Fresh`](countem_store::Registration::Fresh).
    Fresh,
    /// See [`Registration::Cloned`](countem_store::Registration::Cloned).
    Cloned,
}

/// Answer to [`Release`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Released {
    /// See [`Released::Done`](countem_store::Released::Done).
    Done,
    /// See [`Released::Kept`](countem_store::Released::Kept).
    Kept(String),
    /// See [`Released::Gone`](countem_store::Released::Gone).
    Gone,
}

/// Answer to a batch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Applied {
    /// Deltas that could not be added. All others were.
    pub quarantined: Vec<Delta>,
}

/// A delta that could not be added.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delta {
    /// Collection of the counter.
    pub collection: String,
    /// Metric of the counter.
    pub metric: String,
    /// Bucket in which it was counted.
    pub bucket: Text<Bucket>,
    /// The amount.
    pub n: i64,
    /// Number of merged increments.
    pub increments: u64,
    /// The reason.
    pub reason: String,
}

/// A count in quarantine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    /// The batch of which it is a part.
    pub batch: Text<BatchId>,
    /// The count.
    pub delta: Delta,
}

/// Counters of one collection in a range of buckets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// The collection.
    pub collection: Text<CollectionName>,
    /// First bucket of the range.
    pub first: Text<Bucket>,
    /// Last bucket of the range.
    pub last: Text<Bucket>,
    /// The metrics.
    pub metrics: Metrics,
}

/// Metrics of a [`Selection`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Metrics {
    /// Every metric.
    All,
    /// One metric.
    One(Text<MetricName>),
    /// In each bucket, the first metrics of those that begin with `prefix` and sort after `after`.
    Page {
        /// Beginning of the metrics.
        prefix: String,
        /// Position.
        after: Option<String>,
        /// Maximum number of metrics, not zero.
        limit: std::num::NonZeroUsize,
    },
}

/// An error: the buckets are no range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeError;

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the first bucket is not before the last one, or not of the same period")
    }
}

impl std::error::Error for RangeError {}

impl From<&RowQuery> for Selection {
    fn from(query: &RowQuery) -> Self {
        Self {
            collection: Text(query.collection.clone()),
            first: Text(query.range.first()),
            last: Text(query.range.last()),
            metrics: match &query.select {
                Select::All => Metrics::All,
                Select::One(metric) => Metrics::One(Text(metric.clone())),
                Select::Page { prefix, after, limit } => {
                    Metrics::Page { prefix: prefix.clone(), after: after.clone(), limit: *limit }
                }
            },
        }
    }
}

impl TryFrom<Selection> for RowQuery {
    type Error = RangeError;

    fn try_from(selection: Selection) -> Result<Self, RangeError> {
        Ok(Self {
            collection: selection.collection.0,
            range: BucketRange::new(selection.first.0, selection.last.0).ok_or(RangeError)?,
            select: match selection.metrics {
                Metrics::All => Select::All,
                Metrics::One(metric) => Select::One(metric.0),
                Metrics::Page { prefix, after, limit } => Select::Page { prefix, after, limit },
            },
        })
    }
}

impl From<countem_store::Applied> for Applied {
    fn from(applied: countem_store::Applied) -> Self {
        Self { quarantined: applied.quarantined.into_iter().map(Delta::from).collect() }
    }
}

impl From<Applied> for countem_store::Applied {
    fn from(applied: Applied) -> Self {
        Self { quarantined: applied.quarantined.into_iter().map(Quarantined::from).collect() }
    }
}

impl From<Quarantined> for Delta {
    fn from(quarantined: Quarantined) -> Self {
        let Quarantined { collection, metric, bucket, n, increments, reason } = quarantined;
        Self { collection, metric, bucket: Text(bucket), n, increments, reason }
    }
}

impl From<Delta> for Quarantined {
    fn from(delta: Delta) -> Self {
        let Delta { collection, metric, bucket, n, increments, reason } = delta;
        Self { collection, metric, bucket: bucket.0, n, increments, reason }
    }
}

impl From<countem_store::Held> for Held {
    fn from(held: countem_store::Held) -> Self {
        Self { batch: Text(held.batch), delta: held.quarantined.into() }
    }
}

impl From<Held> for countem_store::Held {
    fn from(held: Held) -> Self {
        Self { batch: held.batch.0, quarantined: held.delta.into() }
    }
}

/// A value that travels as its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// Returns the bytes that hexadecimal digits stand for.
pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Returns the hexadecimal digits of bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a string takes any text");
        digits
    })
}

/// The part of a problem that a client reads.
#[derive(Debug, Deserialize)]
pub struct Problem {
    /// Kind of the error.
    pub code: String,
    /// The reason, in words.
    #[serde(default)]
    pub detail: String,
}

/// Returns the code of the problem by which an error of this kind is answered.
pub fn code_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotApplied => "store_unavailable",
        ErrorKind::InDoubt => "in_doubt",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Conflict => "mark_moved",
        // A new kind needs a code of its own; without one, it is no success and nothing that passes.
        _ => "store_refused",
    }
}

/// Returns what is known after a problem with this code. Its server answered before it did anything, but for `in_doubt` and `internal`.
pub fn kind_of(code: &str) -> ErrorKind {
    match code {
        "in_doubt" | "internal" => ErrorKind::InDoubt,
        "unsupported" => ErrorKind::Unsupported,
        "mark_moved" => ErrorKind::Conflict,
        "store_unavailable" | "body_timeout" | "rate_limited" | "full" | "busy" | "stopping" => {
            ErrorKind::NotApplied
        }
        _ => ErrorKind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_errors_travel_as_codes() {
        for kind in [
            ErrorKind::NotApplied,
            ErrorKind::InDoubt,
            ErrorKind::Refused,
            ErrorKind::Unsupported,
            ErrorKind::Conflict,
        ] {
            assert_eq!(kind_of(code_of(kind)), kind);
        }
        assert_eq!(kind_of("forbidden"), ErrorKind::Refused);
    }

    #[test]
    fn hexadecimal_digits_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        for bad in ["0", "0g", "+1", "é0"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn query_travels_unchanged() {
        let limit = std::num::NonZeroUsize::new(3).unwrap();
        for select in [
            Select::All,
            Select::One(MetricName::new("GET \"200\" ß").unwrap()),
            Select::Page { prefix: "a".into(), after: Some("ab".into()), limit },
        ] {
            let collection = CollectionName::new("web").unwrap();
            let query = RowQuery { select, ..RowQuery::bucket(collection, "2026-W47".parse().unwrap()) };
            let json = serde_json::to_string(&Selection::from(&query)).unwrap();
            let read: Selection = serde_json::from_str(&json).unwrap();
            assert_eq!(RowQuery::try_from(read), Ok(query), "{json}");
        }
        let backwards = r#"{"collection":"web","first":"2026-11-21","last":"2026-11-20","metrics":"all"}"#;
        assert_eq!(
            RowQuery::try_from(serde_json::from_str::<Selection>(backwards).unwrap()),
            Err(RangeError)
        );
    }
}
