//! The counters of one bucket.

use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    ops::Index,
};

/// Counters of one bucket: a map from metric to value, sorted by metric.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Counters(BTreeMap<String, i64>);

impl Counters {
    /// Returns an empty map.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Returns the value of `metric`, `None` when it was never counted.
    pub fn get(&self, metric: &str) -> Option<i64> {
        self.0.get(metric).copied()
    }

    /// Returns the number of counters.
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

    /// Lists the metrics, sorted.
    pub fn metrics(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + Clone {
        self.0.keys().map(String::as_str)
    }

    /// Lists the values, sorted by metric.
    pub fn values(&self) -> impl ExactSizeIterator<Item = i64> + DoubleEndedIterator + Clone {
        self.0.values().copied()
    }

    /// Returns the sum of all values, which may leave the range of `i64`.
    pub fn total(&self) -> i128 {
        self.values().map(i128::from).sum()
    }

    /// Adds `n` to `metric` and returns the sum, or `None` and changes nothing where the sum leaves the range of `i64`.
    pub fn add(&mut self, metric: &str, n: i64) -> Option<i64> {
        match self.0.get_mut(metric) {
            Some(value) => *value = value.checked_add(n)?,
            None => drop(self.0.insert(metric.to_owned(), n)),
        }
        self.get(metric)
    }

    /// Sets the value of `metric` and returns the one before.
    pub fn insert(&mut self, metric: impl Into<String>, value: i64) -> Option<i64> {
        self.0.insert(metric.into(), value)
    }

    /// Removes `metric` and returns its value.
    pub fn remove(&mut self, metric: &str) -> Option<i64> {
        self.0.remove(metric)
    }

    /// Keeps the first `len` counters.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            let first_cut = self.0.keys().nth(len).cloned().expect("a longer map has a key at `len`");
            self.0.split_off(&first_cut);
        }
    }

    /// Returns the counters as a map.
    pub fn into_map(self) -> BTreeMap<String, i64> {
        self.0
    }
}

/// The value of a metric that was counted.
///
/// # Panics
/// When the metric was never counted; [`Counters::get`] returns `None` then.
impl Index<&str> for Counters {
    type Output = i64;

    fn index(&self, metric: &str) -> &i64 {
        &self.0[metric]
    }
}

impl<M: Into<String>> FromIterator<(M, i64)> for Counters {
    fn from_iter<I: IntoIterator<Item = (M, i64)>>(counters: I) -> Self {
        Self(counters.into_iter().map(|(metric, value)| (metric.into(), value)).collect())
    }
}

impl<M: Into<String>> Extend<(M, i64)> for Counters {
    fn extend<I: IntoIterator<Item = (M, i64)>>(&mut self, counters: I) {
        self.0.extend(counters.into_iter().map(|(metric, value)| (metric.into(), value)));
    }
}

impl<M: Into<String>, const N: usize> From<[(M, i64); N]> for Counters {
    fn from(counters: [(M, i64); N]) -> Self {
        Self::from_iter(counters)
    }
}

impl From<BTreeMap<String, i64>> for Counters {
    fn from(counters: BTreeMap<String, i64>) -> Self {
        Self(counters)
    }
}

impl PartialEq<BTreeMap<String, i64>> for Counters {
    fn eq(&self, other: &BTreeMap<String, i64>) -> bool {
        self.0 == *other
    }
}

impl IntoIterator for Counters {
    type Item = (String, i64);
    type IntoIter = btree_map::IntoIter<String, i64>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Counters {
    type Item = (&'a str, i64);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Metrics and values of [`Counters::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a>(btree_map::Iter<'a, String, i64>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, i64);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(metric, value)| (metric.as_str(), *value))
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
        assert_eq!(counters.total(), i128::from(i64::MAX) + 5);
    }

    #[test]
    fn truncation_keeps_the_first_counters() {
        let mut counters = Counters::from([("a", 1), ("b", 2), ("c", 3)]);
        counters.truncate(3);
        assert_eq!(counters.len(), 3);
        counters.truncate(1);
        assert_eq!(counters, Counters::from([("a", 1)]));
    }
}
