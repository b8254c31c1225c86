//! Answers to queries.

use countem_core::{Bucket, BucketRange, CollectionName, Period};
use countem_store::Value;

use crate::Cursor;

/// The answer to a [`Query`](crate::Query).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The range, in the buckets of the step or, without one, in the coarsest that make it up.
    pub range: BucketRange,
    /// Period of the points, `None` without points.
    pub step: Option<Period>,
    /// The range of the comparison.
    pub earlier: Option<BucketRange>,
    /// The range is not over yet, so that its values may grow; a comparison is one with a whole range.
    pub is_partial: bool,
    /// The rows, in the order of the query.
    pub rows: Vec<Row>,
    /// Rows without a value that a limit has cut off. They have no rank in an order by value or change: each might be the first.
    pub unranked: Vec<Row>,
    /// Sum of all selected counters, those of rows beyond the limit included; `None` where the answer did not read them.
    pub total: Option<Value>,
    /// Position behind the last row, if more rows follow in the order by name.
    pub next: Option<Cursor>,
}

/// One metric, or the metrics of one group.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// The collection.
    pub collection: CollectionName,
    /// The metric; the labels of a group as in `{country="DE"}`; the first levels of a hierarchy; empty for all metrics.
    pub name: String,
    /// Keys and values of a group of labels.
    pub labels: Vec<(String, String)>,
    /// Sum over the range.
    pub value: Value,
    /// Sum over the range of the comparison, `None` without one.
    pub earlier: Option<Value>,
    /// Sums over the buckets of the step, in order; see [`Fill`](crate::Fill) for those without a count.
    pub points: Vec<(Bucket, Option<Value>)>,
}

impl Answer {
    /// Lists the rows, and after them the unranked ones.
    pub fn all_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().chain(&self.unranked)
    }

    /// Lists the rows that have a value.
    pub fn readable(&self) -> impl Iterator<Item = (&Row, i64)> {
        self.rows.iter().filter_map(|row| Some((row, *row.value.as_ref().ok()?)))
    }

    /// Returns true when a value or a point of a row cannot be told exactly.
    pub fn has_unreadable(&self) -> bool {
        self.all_rows().any(Row::has_unreadable)
    }
}

impl<'a> IntoIterator for &'a Answer {
    type Item = &'a Row;
    type IntoIter = std::slice::Iter<'a, Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter()
    }
}

impl Row {
    /// Returns the difference to the range of the comparison; `None` without one, or where a value cannot be told.
    pub fn change(&self) -> Option<i128> {
        let earlier = *self.earlier.as_ref()?.as_ref().ok()?;
        Some(i128::from(*self.value.as_ref().ok()?) - i128::from(earlier))
    }

    /// Returns the change as a fraction of the earlier value: 0.5 for half as much again. `None` where that was 0.
    pub fn relative_change(&self) -> Option<f64> {
        let earlier = *self.earlier.as_ref()?.as_ref().ok()?;
        #[expect(clippy::cast_precision_loss, reason = "a fraction for people")]
        let change = |change: i128| change as f64 / (earlier as f64).abs();
        (earlier != 0).then(|| self.change().map(change)).flatten()
    }

    /// Returns the position behind this row, in the order by name.
    pub fn cursor(&self) -> Cursor {
        Cursor { collection: self.collection.clone(), name: self.name.clone() }
    }

    fn has_unreadable(&self) -> bool {
        self.value.is_err()
            || matches!(self.earlier, Some(Err(_)))
            || self.points.iter().any(|(_, value)| matches!(value, Some(Err(_))))
    }
}

/// Values that cannot be told are under `error` in place of `value`, and in points texts in place of numbers.
#[cfg(feature = "serde")]
mod serialize {
    use countem_store::Value;
    use serde::{
        Serialize, Serializer,
        ser::{SerializeMap, SerializeSeq},
    };

    use super::{Answer, Row};

    impl Serialize for Answer {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("from", &self.range.first().to_string())?;
            map.serialize_entry("to", &self.range.last().to_string())?;
            if let Some(step) = self.step {
                map.serialize_entry("step", step.name())?;
            }
            if let Some(earlier) = self.earlier {
                map.serialize_entry("earlier_from", &earlier.first().to_string())?;
                map.serialize_entry("earlier_to", &earlier.last().to_string())?;
            }
            map.serialize_entry("partial", &self.is_partial)?;
            map.serialize_entry("rows", &self.rows)?;
            if !self.unranked.is_empty() {
                map.serialize_entry("unranked", &self.unranked)?;
            }
            if let Some(total) = &self.total {
                entry(&mut map, "total", "total_error", total)?;
            }
            if let Some(next) = &self.next {
                map.serialize_entry("next", &next.to_string())?;
            }
            map.end()
        }
    }

    impl Serialize for Row {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry("collection", self.collection.as_str())?;
            if self.labels.is_empty() {
                map.serialize_entry("metric", &self.name)?;
            } else {
                map.serialize_entry("labels", &Labels(&self.labels))?;
            }
            entry(&mut map, "value", "error", &self.value)?;
            if let Some(earlier) = &self.earlier {
                entry(&mut map, "earlier", "earlier_error", earlier)?;
            }
            if !self.points.is_empty() {
                map.serialize_entry("points", &Points(self))?;
            }
            map.end()
        }
    }

    fn entry<M: SerializeMap>(map: &mut M, key: &str, error: &str, value: &Value) -> Result<(), M::Error> {
        match value {
            Ok(value) => map.serialize_entry(key, value),
            Err(why) => map.serialize_entry(error, &why.to_string()),
        }
    }

    struct Labels<'a>(&'a [(String, String)]);

    impl Serialize for Labels<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
        }
    }

    struct Points<'a>(&'a Row);

    impl Serialize for Points<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut points = serializer.serialize_seq(Some(self.0.points.len()))?;
            for (bucket, value) in &self.0.points {
                let bucket = bucket.to_string();
                match value {
                    Some(Ok(value)) => points.serialize_element(&(bucket, value))?,
                    Some(Err(why)) => points.serialize_element(&(bucket, why.to_string()))?,
                    None => points.serialize_element(&(bucket, None::<i64>))?,
                }
            }
            points.end()
        }
    }
}
