//! `countem top`

use std::{collections::BTreeMap, num::NonZeroUsize};

use anyhow::Result;
use clap::Args;
use countem_core::CollectionName;
use countem_query::{Answer, Row};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::{
        bucket::RangeFlags,
        get,
        select::{OrderFlag, SelectFlags},
    },
    exit::{Exit, query_error, say_unreadable_rows},
    global::Global,
    output::{Cell, Listing},
    store::{Effective, Timeout},
};

/// Read the largest counters of a collection
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Top {
    /// The collection
    collection: CollectionName,
    #[command(flatten)]
    select: SelectFlags,
    /// Number of counters
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "10", value_parser = number)]
    number: NonZeroUsize,
    /// Order of the counters
    #[arg(long, default_value = "value")]
    order: OrderFlag,
    /// The other way round: the smallest first
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    range: RangeFlags,
    #[command(flatten)]
    timeout: Timeout,
}

const AFTER: &str = "\
Examples:
  countem top web
  countem top pages -n 3 --bucket 2015-05
  countem top web 'GET *' --range 7d --compare --order change
  countem top app signups --by country --range this-month";

/// The rows in order, as they are in JSON.
#[derive(Debug, Serialize)]
struct Ranking<'a> {
    collection: &'a str,
    #[serde(flatten)]
    range: JsonRange,
    top: Vec<JsonRow<'a>>,
    /// Rows without a value, which have no rank.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<&'a str, String>,
}

/// A range in JSON: `bucket`, or `range` where it has several.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum JsonRange {
    Bucket(String),
    Range(String),
}

impl JsonRange {
    pub(super) fn of(answer: &Answer) -> Self {
        let range = answer.range;
        if range.first() == range.last() {
            Self::Bucket(range.first().to_string())
        } else {
            Self::Range(range.to_string())
        }
    }

    pub(super) fn text(&self) -> &str {
        let (Self::Bucket(text) | Self::Range(text)) = self;
        text
    }
}

#[derive(Debug, Serialize)]
struct JsonRow<'a> {
    #[serde(flatten)]
    name: JsonName<'a>,
    value: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    earlier: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<i128>,
}

/// Name of a row in JSON: `metric`, or `labels` of a group.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum JsonName<'a> {
    Metric(&'a str),
    Labels(BTreeMap<&'a str, &'a str>),
}

impl<'a> JsonName<'a> {
    pub(super) fn of(row: &'a Row) -> Self {
        if row.labels.is_empty() {
            return Self::Metric(&row.name);
        }
        Self::Labels(row.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect())
    }
}

fn number(text: &str) -> Result<NonZeroUsize, &'static str> {
    text.parse().map_err(|_| "expected how many counters, 1 or more")
}

impl Top {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load_within(global, &self.timeout)?;
        let query = self.select.query(&self.collection)?.order(self.order.into()).limit(self.number.get());
        let query = if self.reverse { query.reversed() } else { query };
        let answer = self.timeout.block_on(async {
            let reader = effective.open_reader(global.quiet).await?;
            let query = query.range(self.range.of(&reader).await?);
            let answer = reader.query(&query, Timestamp::now()).await.map_err(query_error)?;
            if answer.rows.is_empty() {
                get::require(&reader, &self.collection).await?;
                get::say_nearest(&reader, &self.collection, answer.range.last(), global).await?;
            }
            Ok(answer)
        })?;
        let range = JsonRange::of(&answer);
        let collection = self.collection.as_str();
        let mut columns = vec!["collection", "bucket"];
        columns.extend(name_columns(&self.select));
        columns.push("value");
        if self.select.is_compared() {
            columns.extend(["earlier", "change"]);
        }
        let mut listing = Listing::new(&columns).hide(2);
        for row in &answer.rows {
            let mut cells = vec![collection.into(), range.text().into()];
            cells.extend(name_cells(row));
            cells.push((&row.value).into());
            if let Some(earlier) = &row.earlier {
                cells.push(earlier.into());
                let change = row.change().map(|change| {
                    i64::try_from(change).map_or_else(|_| Cell::Text(change.to_string()), Cell::Number)
                });
                cells.push(change.unwrap_or(Cell::Empty));
            }
            listing.push(cells);
        }
        let top = answer.readable().map(|(row, value)| JsonRow {
            name: JsonName::of(row),
            value,
            earlier: row.earlier.as_ref().and_then(|earlier| earlier.as_ref().ok().copied()),
            change: row.change(),
        });
        let unreadable = answer
            .all_rows()
            .filter_map(|row| Some((row.name.as_str(), row.value.as_ref().err()?.to_string())));
        let (top, errors) = (top.collect(), unreadable.collect());
        listing.print(global.output, &Ranking { collection, range, top, errors })?;
        Ok(say_unreadable_rows(&answer))
    }
}

/// Returns the columns that name a row: its labels, or `metric`.
pub(super) fn name_columns(select: &SelectFlags) -> Vec<&str> {
    let labels: Vec<_> = select.labels().iter().map(String::as_str).collect();
    if labels.is_empty() { vec!["metric"] } else { labels }
}

/// Returns the cells that name a row.
pub(super) fn name_cells(row: &Row) -> Vec<Cell> {
    if row.labels.is_empty() {
        return vec![row.name.as_str().into()];
    }
    row.labels.iter().map(|(_, value)| value.as_str().into()).collect()
}
