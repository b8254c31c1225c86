//! The counters of one bucket.

use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    ops::Index,
    sync::Arc,
};

/// Counters of one bucket: a map from metric to value, sorted by metric.
///
/// A metric that was counted and has no exact value, because its sum exceeds 64 bits or the store holds no whole number for it,
/// has an [`Unreadable`] in place of the value. So every way to a value returns a `Result`: one bad counter spoils no other, and
/// is never taken for a counter that is missing.
///
/// A clone shares its counters with the original until one of them is changed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Counters(Arc<Map>);

type Map = BTreeMap<String, Result<i64, Unreadable>>;

impl Counters {
    /// Returns an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds up the parts of each metric, exactly: a sum is unreadable if one of its parts is no number or if it exceeds 64 bits
    /// in the end.
    pub fn sum(parts: impl IntoIterator<Item = (String, Result<i64, Unreadable>)>) -> Self {
        let mut parts: Vec<_> = parts.into_iter().collect();
        parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        parts.dedup_by(|(metric, part), (kept, sum)| {
            let is_same = metric == kept;
            if is_same {
                *sum = plus(std::mem::replace(sum, Ok(0)), std::mem::replace(part, Ok(0)));
            }
            is_same
        });
        Self(Arc::new(parts.into_iter().collect()))
    }

    fn changed(&mut self) -> &mut Map {
        Arc::make_mut(&mut self.0)
    }

    /// Returns the value of `metric`, `None` when it was never counted.
    ///
    /// # Errors
    /// [`Unreadable`]: it was counted, and has no exact value.
    pub fn get(&self, metric: &str) -> Result<Option<i64>, &Unreadable> {
        self.0.get(metric).map(as_value).transpose()
    }

    /// Returns the number of counters, unreadable ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true when nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lists metrics and values, sorted by metric.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.0.iter())
    }

    /// Lists the metrics, sorted, unreadable ones included.
    pub fn metrics(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + Clone {
        self.0.keys().map(String::as_str)
    }

    /// Lists the values, sorted by metric.
    pub fn values(
        &self,
    ) -> impl ExactSizeIterator<Item = Result<i64, &Unreadable>> + DoubleEndedIterator + Clone {
        self.0.values().map(as_value)
    }

    /// Lists the metrics that have a value. Show [`unreadable`](Self::unreadable) beside them.
    pub fn readable(&self) -> impl DoubleEndedIterator<Item = (&str, i64)> + Clone {
        self.0.iter().filter_map(|(metric, value)| Some((metric.as_str(), *value.as_ref().ok()?)))
    }

    /// Lists the metrics that have no exact value, each with the reason.
    pub fn unreadable(&self) -> impl DoubleEndedIterator<Item = (&str, &Unreadable)> + Clone {
        self.0.iter().filter_map(|(metric, value)| Some((metric.as_str(), value.as_ref().err()?)))
    }

    /// Returns the sum of all values, which may leave the range of `i64`.
    ///
    /// # Errors
    /// The first [`Unreadable`].
    pub fn total(&self) -> Result<i128, &Unreadable> {
        self.values().map(|value| value.map(i128::from)).sum()
    }

    /// Adds `n` to `metric` and returns the sum, or `None` and changes nothing where the sum leaves the range of `i64`, or the
    /// value is unreadable.
    pub fn add(&mut self, metric: &str, n: i64) -> Option<i64> {
        let sum = match self.0.get(metric) {
            Some(value) => value.as_ref().ok()?.checked_add(n)?,
            None => n,
        };
        self.insert(metric, sum);
        Some(sum)
    }

    /// Adds `part` to the value of `metric`, exactly, as [`sum`](Self::sum) does.
    pub fn merge(&mut self, metric: &str, part: Result<i64, Unreadable>) {
        let counters = self.changed();
        match counters.get_mut(metric) {
            Some(value) => *value = plus(std::mem::replace(value, Ok(0)), part),
            None => drop(counters.insert(metric.to_owned(), part)),
        }
    }

    /// Sets the value of `metric`.
    pub fn insert(&mut self, metric: impl Into<String>, value: i64) {
        self.changed().insert(metric.into(), Ok(value));
    }

    /// Removes `metric` and returns its value.
    pub fn remove(&mut self, metric: &str) -> Option<Result<i64, Unreadable>> {
        self.changed().remove(metric)
    }

    /// Keeps the first `len` counters.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            let first_cut = self.0.keys().nth(len).cloned().expect("a longer map has a key at `len`");
            self.changed().split_off(&first_cut);
        }
    }

    /// Returns the counters as a map.
    ///
    /// # Errors
    /// The first [`Unreadable`].
    pub fn into_map(self) -> Result<BTreeMap<String, i64>, Unreadable> {
        self.into_iter().map(|(metric, value)| Ok((metric, value?))).collect()
    }
}

/// Reason why a metric that was counted has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[error(transparent)]
pub struct Unreadable(Box<Reason>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
enum Reason {
    #[error("the sum {0} exceeds the range of a 64-bit integer")]
    Overflow(i128),
    #[error("the stored value is {0}, not a whole number of 64 bits")]
    NoInteger(String),
}

impl Unreadable {
    /// Returns the reason that the stored value is `found` and no whole number.
    pub fn no_integer(found: impl Into<String>) -> Self {
        Self(Box::new(Reason::NoInteger(found.into())))
    }
}

/// The value of a counter that was counted, or the reason why it has none.
pub type Value = Result<i64, Unreadable>;

/// Adds two parts of a value, exactly: only the whole sum has to fit into 64 bits.
pub fn plus(a: Value, b: Value) -> Value {
    let exact = |part: Value| match part {
        Ok(value) => Ok(i128::from(value)),
        Err(Unreadable(reason)) => match *reason {
            Reason::Overflow(sum) => Ok(sum),
            reason => Err(Unreadable(Box::new(reason))),
        },
    };
    // More than 2^63 parts would be needed to leave the range.
    let sum = exact(a)? + exact(b)?;
    i64::try_from(sum).map_err(|_| Unreadable(Box::new(Reason::Overflow(sum))))
}

fn as_value(value: &Result<i64, Unreadable>) -> Result<i64, &Unreadable> {
    value.as_ref().copied()
}

/// The value of a metric that was counted.
///
/// # Panics
/// When the metric was never counted or is unreadable; [`Counters::get`] tells then.
impl Index<&str> for Counters {
    type Output = i64;

    fn index(&self, metric: &str) -> &i64 {
        self.0[metric].as_ref().unwrap_or_else(|why| panic!("`{metric}` cannot be read: {why}"))
    }
}

impl<M: Into<String>> FromIterator<(M, i64)> for Counters {
    fn from_iter<I: IntoIterator<Item = (M, i64)>>(counters: I) -> Self {
        counters.into_iter().map(|(metric, value)| (metric, Ok(value))).collect()
    }
}

impl<M: Into<String>> FromIterator<(M, Result<i64, Unreadable>)> for Counters {
    fn from_iter<I: IntoIterator<Item = (M, Result<i64, Unreadable>)>>(counters: I) -> Self {
        Self(Arc::new(counters.into_iter().map(|(metric, value)| (metric.into(), value)).collect()))
    }
}

impl<M: Into<String>> Extend<(M, i64)> for Counters {
    fn extend<I: IntoIterator<Item = (M, i64)>>(&mut self, counters: I) {
        self.changed().extend(counters.into_iter().map(|(metric, value)| (metric.into(), Ok(value))));
    }
}

impl<M: Into<String>> Extend<(M, Result<i64, Unreadable>)> for Counters {
    fn extend<I: IntoIterator<Item = (M, Result<i64, Unreadable>)>>(&mut self, counters: I) {
        self.changed().extend(counters.into_iter().map(|(metric, value)| (metric.into(), value)));
    }
}

impl<M: Into<String>, const N: usize> From<[(M, i64); N]> for Counters {
    fn from(counters: [(M, i64); N]) -> Self {
        Self::from_iter(counters)
    }
}

impl From<BTreeMap<String, i64>> for Counters {
    fn from(counters: BTreeMap<String, i64>) -> Self {
        Self::from_iter(counters)
    }
}

impl PartialEq<BTreeMap<String, i64>> for Counters {
    fn eq(&self, other: &BTreeMap<String, i64>) -> bool {
        self.len() == other.len()
            && self.iter().zip(other).all(|(ours, (metric, value))| ours == (metric, Ok(*value)))
    }
}

impl IntoIterator for Counters {
    type Item = (String, Result<i64, Unreadable>);
    type IntoIter = btree_map::IntoIter<String, Result<i64, Unreadable>>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl<'a> IntoIterator for &'a Counters {
    type Item = (&'a str, Result<i64, &'a Unreadable>);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (metric, value) in self {
            match value {
                Ok(value) => map.entry(&metric, &value),
                Err(why) => map.entry(&metric, &format_args!("({why})")),
            };
        }
        map.finish()
    }
}

/// A map from metric to value; counters of which one is unreadable are refused.
#[cfg(feature = "serde")]
impl serde::Serialize for Counters {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some((metric, why)) = self.unreadable().next() {
            return Err(serde::ser::Error::custom(format_args!("`{metric}` cannot be read: {why}")));
        }
        serializer.collect_map(self.readable())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Counters {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<String, i64>::deserialize(deserializer).map(Self::from)
    }
}

/// Metrics and values of [`Counters::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a>(btree_map::Iter<'a, String, Result<i64, Unreadable>>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, Result<i64, &'a Unreadable>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(metric, value)| (metric.as_str(), as_value(value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_addition_changes_nothing() {
        let mut counters = Counters::from([("a", i64::MAX)]);
        assert_eq!(counters.add("a", 1), None);
        assert_eq!(counters.add("b", 2), Some(2));
        assert_eq!(counters.add("b", 3), Some(5));
        assert_eq!(counters, Counters::from([("a", i64::MAX), ("b", 5)]));
        assert_eq!(counters.total(), Ok(i128::from(i64::MAX) + 5));
    }

    #[test]
    fn truncation_keeps_the_first_counters() {
        let mut counters = Counters::from([("a", 1), ("b", 2), ("c", 3)]);
        counters.truncate(3);
        assert_eq!(counters.len(), 3);
        counters.truncate(1);
        assert_eq!(counters, Counters::from([("a", 1)]));
    }

    #[test]
    fn only_the_whole_sum_has_to_fit() {
        let parts = [
            ("b", 1),
            ("a", 2),
            ("b", 3),
            ("c", i64::MAX),
            ("c", 2),
            ("c", -2),
            ("d", i64::MAX),
            ("d", 1),
            ("e", i64::MIN),
            ("e", -1),
        ];
        let mut sums = Counters::sum(parts.map(|(metric, n)| (metric.to_owned(), Ok(n))));
        assert_eq!(sums.readable().collect::<Vec<_>>(), [("a", 2), ("b", 4), ("c", i64::MAX)]);
        let unreadable = sums.unreadable().map(|(metric, why)| format!("{metric}: {why}"));
        assert_eq!(
            unreadable.collect::<Vec<_>>(),
            [
                "d: the sum 9223372036854775808 exceeds the range of a 64-bit integer",
                "e: the sum -9223372036854775809 exceeds the range of a 64-bit integer",
            ]
        );
        sums.merge("d", Ok(-1));
        sums.merge("f", Ok(6));
        assert_eq!((sums["d"], sums["f"]), (i64::MAX, 6));
    }

    #[test]
    fn sum_with_an_unreadable_part_is_unreadable() {
        let damaged = || Err(Unreadable::no_integer("12.5"));
        for parts in [[damaged(), Ok(1)], [Ok(1), damaged()], [damaged(), damaged()]] {
            let sums = Counters::sum(parts.map(|part| ("m".to_owned(), part)));
            assert_eq!(sums.get("m"), Err(&Unreadable::no_integer("12.5")));
            assert_eq!((sums.len(), sums.total().is_err()), (1, true));
            assert_ne!(sums, BTreeMap::from([("m".to_owned(), 1)]));
        }
        let mut sums = Counters::sum([("m".to_owned(), damaged())]);
        assert_eq!(sums.add("m", 1), None);
        assert_eq!(sums.get("other"), Ok(None));
        assert!(sums.into_map().is_err());
    }
}
