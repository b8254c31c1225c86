//! The rows of an answer, as they are found.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use countem_core::{CollectionName, Labelled, MetricName};
use countem_store::Value;

use super::pages::{Sums, merge};
use crate::{Cursor, Group, Order, Query, QueryError, Row};

/// Rows found so far. With a limit, only those that can be in the answer are kept.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    query: &'a Query,
    /// The only rows that are wanted.
    chosen: Option<BTreeSet<Cursor>>,
    /// Groups, by collection and name.
    groups: BTreeMap<Cursor, (Vec<(String, String)>, Sums)>,
    /// Metrics, where each is a row.
    rows: Vec<Row>,
    has_more: bool,
    unranked: Vec<Row>,
    total: Option<Value>,
    points: usize,
    bytes: usize,
}

impl<'a> Found<'a> {
    /// Returns an empty set of rows; with `chosen`, others are not kept.
    pub(crate) fn new(query: &'a Query, chosen: Option<BTreeSet<Cursor>>) -> Self {
        Self {
            query,
            chosen,
            groups: BTreeMap::new(),
            rows: Vec::new(),
            has_more: false,
            unranked: Vec::new(),
            total: None,
            points: 0,
            bytes: 0,
        }
    }

    /// Adds a metric, if it is selected.
    ///
    /// # Errors
    /// [`QueryError::Limit`].
    pub(crate) fn add(
        &mut self,
        collection: &CollectionName,
        metric: String,
        sums: Sums,
    ) -> Result<(), QueryError> {
        let labelled = Labelled::split(&metric);
        let is_selected = self.query.metrics.selects(&labelled, &metric)
            && self.query.labels.iter().all(|label| label.admits(&labelled));
        if !is_selected {
            return Ok(());
        }
        let (name, labels) = match &self.query.group {
            Group::Metric => (None, Vec::new()),
            Group::Labels(keys) => {
                let labels: Vec<_> = keys
                    .iter()
                    .map(|key| (key.clone(), labelled.get(key).unwrap_or_default().to_owned()))
                    .collect();
                (Some(name_of(&labels)), labels)
            }
            Group::Level { separator, depth } => (Some(level(labelled.name, separator, *depth)), Vec::new()),
            Group::All => (Some(String::new()), Vec::new()),
        };
        let is_group = name.is_some();
        let cursor = Cursor { collection: collection.clone(), name: name.unwrap_or(metric) };
        if self.chosen.as_ref().is_some_and(|chosen| !chosen.contains(&cursor)) {
            return Ok(());
        }
        if let Some(value) = &sums.value {
            merge(&mut self.total, value.clone());
        }
        let limits = &self.query.limits;
        if is_group {
            let is_new = !self.groups.contains_key(&cursor);
            let group = self.groups.entry(cursor.clone()).or_insert_with(|| (labels, Sums::default()));
            let before = group.1.points.len();
            group.1.merge(sums);
            self.points += group.1.points.len() - before;
            if is_new {
                self.bytes += cursor.name.len();
                exceeds("rows", self.groups.len(), limits.rows)?;
            }
        } else if self.query.after.as_ref().is_none_or(|after| cursor > *after) {
            let row = row(cursor, labels, sums, self.query);
            if self.is_cut_off(&row) {
                self.has_more = true;
                return Ok(());
            }
            self.points += row.points.len();
            self.bytes += row.name.len();
            self.rows.push(row);
            match self.query.limit {
                // The rows that are kept are cut now and then, at a cost that does not grow with their number.
                Some(limit) if self.rows.len() >= limit.saturating_mul(2).max(1_000) => self.cut(limit),
                Some(_) => {}
                None => exceeds("rows", self.rows.len(), limits.rows)?,
            }
        }
        if self.query.limit.is_some() && !is_group { Ok(()) } else { self.check_size() }
    }

    fn check_size(&self) -> Result<(), QueryError> {
        exceeds("points", self.points, self.query.limits.points)?;
        exceeds("bytes", self.bytes, self.query.limits.bytes)
    }

    /// Returns true when no metric behind those that were added can be in the answer.
    pub(crate) fn is_full(&self) -> bool {
        let Query { order, is_reversed, group, limit, .. } = self.query;
        *order == Order::Name
            && !is_reversed
            && *group == Group::Metric
            && limit.is_some_and(|limit| self.has_more || self.rows.len() > limit)
    }

    /// Returns the rows in order.
    ///
    /// # Errors
    /// [`QueryError::Limit`].
    pub(crate) fn finish(mut self) -> Result<Finished, QueryError> {
        let is_whole = !self.is_full();
        let groups = std::mem::take(&mut self.groups);
        let after = self.query.after.as_ref();
        let behind = groups.into_iter().filter(|(cursor, _)| after.is_none_or(|after| cursor > after));
        self.rows.extend(behind.map(|(cursor, (labels, sums))| row(cursor, labels, sums, self.query)));
        self.cut(self.query.limit.unwrap_or(usize::MAX));
        exceeds("rows", self.rows.len(), self.query.limits.rows)?;
        self.check_size()?;
        let total = is_whole.then(|| self.total.unwrap_or(Ok(0)));
        exceeds("rows", self.unranked.len(), self.query.limits.rows)?;
        Ok(Finished { rows: self.rows, has_more: self.has_more, unranked: self.unranked, total })
    }

    /// Returns true for a row with a rank behind the rows that the last cut has kept, which come first and are in order.
    fn is_cut_off(&self, row: &Row) -> bool {
        let Query { order, is_reversed, limit, .. } = self.query;
        let last = limit.filter(|_| self.has_more).and_then(|limit| self.rows.get(limit - 1));
        let is_behind = |last| compare(row, last, *order, *is_reversed).is_gt();
        (*order == Order::Name || rank(row, *order).is_some()) && last.is_some_and(is_behind)
    }

    fn cut(&mut self, limit: usize) {
        let Query { order, is_reversed, .. } = self.query;
        self.rows.sort_by(|a, b| compare(a, b, *order, *is_reversed));
        if self.rows.len() > limit {
            self.has_more = true;
            let cut = self.rows.split_off(limit);
            if *order != Order::Name {
                self.unranked.extend(cut.into_iter().filter(|row| rank(row, *order).is_none()));
            }
            self.points = self.rows.iter().map(|row| row.points.len()).sum();
            self.bytes = self.rows.iter().map(|row| row.name.len()).sum();
        }
    }
}

/// The rows of an answer.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) rows: Vec<Row>,
    /// Others were cut off.
    pub(crate) has_more: bool,
    /// Those cut off that cannot be read, unless the order is by name.
    pub(crate) unranked: Vec<Row>,
    /// Sum of all selected counters, `None` where not all were read.
    pub(crate) total: Option<Value>,
}

/// Compares the size of an answer with its limit.
pub(crate) fn exceeds(limit: &'static str, size: usize, max: usize) -> Result<(), QueryError> {
    if size > max { Err(QueryError::Limit { limit, max: max as u64 }) } else { Ok(()) }
}

fn row(cursor: Cursor, labels: Vec<(String, String)>, sums: Sums, query: &Query) -> Row {
    Row {
        collection: cursor.collection,
        name: cursor.name,
        labels,
        value: sums.value.unwrap_or(Ok(0)),
        earlier: query.compare.map(|_| sums.earlier.unwrap_or(Ok(0))),
        points: sums.points.into_iter().map(|(bucket, value)| (bucket, Some(value))).collect(),
    }
}

/// Returns the labels as the canonical text of a metric without a name.
fn name_of(labels: &[(String, String)]) -> String {
    let pairs = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    MetricName::labelled("", pairs).map_or_else(
        |_| {
            // Too long for a metric.
            let mut text = String::new();
            for (key, value) in labels {
                write!(text, "{key}={value:?};").ok();
            }
            text
        },
        |name| name.to_string(),
    )
}

/// Returns the first `depth` levels of a name, or the whole of a name that has fewer.
fn level(name: &str, separator: &str, depth: usize) -> String {
    let end = name.match_indices(separator).nth(depth.saturating_sub(1)).map_or(name.len(), |(at, _)| at);
    name[..end].to_owned()
}

fn compare(a: &Row, b: &Row, order: Order, is_reversed: bool) -> Ordering {
    let by_name = || (&a.collection, &a.name).cmp(&(&b.collection, &b.name));
    let descending = |a: Option<i128>, b: Option<i128>| match (a, b) {
        (Some(a), Some(b)) if is_reversed => a.cmp(&b),
        (Some(a), Some(b)) => b.cmp(&a),
        // What cannot be read is last in both directions.
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    match order {
        Order::Name if is_reversed => by_name().reverse(),
        Order::Name => by_name(),
        Order::Value | Order::Change => descending(rank(a, order), rank(b, order)).then_with(by_name),
    }
}

/// Returns the number by which a row is ordered; `None` for one that cannot be read.
fn rank(row: &Row, order: Order) -> Option<i128> {
    match order {
        Order::Change => row.change(),
        _ => row.value.as_ref().ok().copied().map(i128::from),
    }
}
