//! `countem top`

use std::{collections::BTreeMap, num::NonZeroUsize};

use anyhow::Result;
use clap::Args;
use countem_core::CollectionName;
use countem_query::{Answer, Reader, Row};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    commands::{
        bucket::RangeFlags,
        count, get,
        select::{Earlier, OrderFlag, SelectFlags},
    },
    exit::{Exit, query_error, say_unreadable_rows},
    global::Global,
    output::{Cell, Listing, say},
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
    /// Compare with an earlier range: the one before, or the latest that begins on the same weekday
    #[arg(long, value_name = "RANGE", num_args = 0..=1, default_missing_value = "previous")]
    compare: Option<Earlier>,
    /// Number of counters
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "10", value_parser = count, allow_negative_numbers = true)]
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
    /// The range of the comparison, and whether the range that is compared with it is not over yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    earlier: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
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
    change: Option<Value>,
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

impl Top {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load_within(global, &self.timeout)?;
        let query = self
            .select
            .query(&self.collection, &effective.config, global.quiet)?
            .order(self.order.into())
            .limit(self.number.get());
        let query = if self.reverse { query.reversed() } else { query };
        let query = if let Some(compare) = self.compare { query.compare(compare.into()) } else { query };
        let answer = self.timeout.block_on(async {
            let reader = effective.open_reader(global.quiet).await?;
            let query = query.range(self.range.of(&reader).await?);
            let answer = reader.query(&query, Timestamp::now()).await.map_err(query_error)?;
            if answer.rows.is_empty() {
                say_empty(&reader, &self.collection, &self.select, &answer, global).await?;
            }
            Ok(answer)
        })?;
        if let Some(earlier) = answer.earlier.filter(|_| answer.is_partial && !global.quiet) {
            say(format_args!(
                "countem: {} is not over, and compared with the whole of {earlier}",
                answer.range
            ));
        }
        let range = JsonRange::of(&answer);
        let collection = self.collection.as_str();
        let mut columns = vec!["collection", "bucket"];
        columns.extend(name_columns(&self.select));
        columns.push("value");
        if self.compare.is_some() {
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
            // Beyond 64 bits a text, as in every other format.
            change: row
                .change()
                .map(|change| i64::try_from(change).map_or_else(|_| change.to_string().into(), Value::from)),
        });
        let unreadable = answer.all_rows().filter_map(|row| {
            Some((
                row.name.as_str(),
                row.value
                    .as_ref()
                    .err()
                    .or(row.earlier.as_ref().and_then(|earlier| earlier.as_ref().err()))?
                    .to_string(),
            ))
        });
        let (top, errors) = (top.collect(), unreadable.collect());
        listing.print(
            global.output,
            &Ranking {
                collection,
                range,
                earlier: answer.earlier.map(|range| range.to_string()),
                partial: answer.is_partial && answer.earlier.is_some(),
                top,
                errors,
            },
        )?;
        Ok(say_unreadable_rows(&answer))
    }
}

/// Says that the answer has no row, and why.
pub(super) async fn say_empty(
    reader: &Reader,
    collection: &CollectionName,
    select: &SelectFlags,
    answer: &Answer,
    global: &Global,
) -> Result<()> {
    get::require(reader, collection).await?;
    let range = answer.range;
    if range.first() == range.last() && !select.is_selective() {
        return get::say_nearest(reader, collection, range.last(), global).await;
    }
    if !global.quiet {
        let matching = if select.is_selective() { " that matches" } else { "" };
        say(format_args!(
            "no counter of `{collection}`{matching} was counted in {}",
            JsonRange::of(answer).text()
        ));
    }
    Ok(())
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
