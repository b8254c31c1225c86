//! `countem series`

mod chart;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write as _},
    num::NonZeroUsize,
};

use anyhow::Result;
use clap::Args;
use countem_core::{Bucket, CollectionName, Period};
use countem_query::{Answer, Fill, Order, TimeRange, Value};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    commands::{
        count,
        select::{OrderFlag, SelectFlags},
        top::{JsonName, name_cells, name_columns, say_empty},
    },
    exit::{Exit, query_error, say_unreadable_rows},
    global::Global,
    output::{Cell, Format, Listing},
    store::{Effective, Timeout},
};

/// Read counters over time
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Series {
    /// The collection
    collection: CollectionName,
    #[command(flatten)]
    select: SelectFlags,
    /// The range of time: 30d (the last 30 days, today included), 24h, 2015-05, 2015-Q2, last-week, 2015-05-01..2015-05-17,
    /// 2015-05-01.. (until now), all; both ends are included
    #[arg(long, value_name = "RANGE", default_value = "30d", allow_hyphen_values = true)]
    range: TimeRange,
    /// Period of the points, which has to divide the range [default: day, or the finer one that the range speaks of]
    #[arg(long, value_name = "PERIOD")]
    step: Option<Period>,
    /// Points without a count
    #[arg(long, default_value = "zero")]
    fill: FillFlag,
    /// Order of the metrics [default: name; value with --number]
    #[arg(long)]
    order: Option<OrderFlag>,
    /// Only so many metrics, the largest ones
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = count, allow_negative_numbers = true)]
    number: Option<NonZeroUsize>,
    #[command(flatten)]
    timeout: Timeout,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FillFlag {
    /// Leave them out
    None,
    /// 0, also for a metric that did not exist yet
    Zero,
    /// No value
    Gap,
}

const AFTER: &str = "\
In a terminal, one metric is a bar chart, and several are a line each. Otherwise there is one line per metric and bucket:

  countem series web 'GET 200' --range 24h
  countem series web -n 5 --range 12w --step week
  countem series app signups --by country --range this-month
  countem series web -o csv --range 2015-05 > may.csv";

/// The rows, as they are in JSON.
#[derive(Debug, Serialize)]
struct JsonSeries<'a> {
    collection: &'a str,
    step: &'a str,
    series: Vec<JsonRow<'a>>,
    /// Rows of which a point has no value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<&'a str, String>,
}

#[derive(Debug, Serialize)]
struct JsonRow<'a> {
    #[serde(flatten)]
    name: JsonName<'a>,
    points: Vec<(String, Option<i64>)>,
}

impl Series {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load_within(global, &self.timeout)?;
        let step = self.step.unwrap_or_else(|| self.range.period().min(Period::Day));
        let order = match (self.order, self.number) {
            (Some(order), _) => order.into(),
            (None, Some(_)) => Order::Value,
            (None, None) => Order::Name,
        };
        let fill = match self.fill {
            FillFlag::None => Fill::None,
            FillFlag::Zero => Fill::Zero,
            FillFlag::Gap => Fill::Gap,
        };
        let mut query = self
            .select
            .query(&self.collection, &effective.config, global.quiet)?
            .range(self.range)
            .by(step)
            .fill(fill)
            .order(order);
        if let Some(number) = self.number {
            query = query.limit(number.get());
        }
        let answer = self.timeout.block_on(async {
            let reader = effective.open_reader(global.quiet).await?;
            let answer = reader.query(&query, Timestamp::now()).await.map_err(query_error)?;
            if answer.rows.is_empty() {
                say_empty(&reader, &self.collection, &self.select, &answer, global).await?;
            }
            Ok(answer)
        })?;
        if matches!(global.output, Format::Table) && io::stdout().is_terminal() {
            let width = terminal_width();
            let text = chart::of(&answer, width);
            io::stdout().lock().write_all(text.as_bytes())?;
        } else {
            self.print(global.output, &answer, step)?;
        }
        Ok(say_unreadable_rows(&answer))
    }

    fn print(&self, format: Format, answer: &Answer, step: Period) -> Result<()> {
        let collection = self.collection.as_str();
        let mut columns = vec!["collection"];
        columns.extend(name_columns(&self.select));
        columns.extend(["bucket", "value"]);
        let mut listing = Listing::new(&columns).hide(1);
        for row in &answer.rows {
            for (bucket, value) in &row.points {
                let mut cells = vec![collection.into()];
                cells.extend(name_cells(row));
                cells.extend([bucket.to_string().as_str().into(), cell(value.as_ref())]);
                listing.push(cells);
            }
        }
        let points = |points: &[(Bucket, Option<Value>)]| {
            let value = |value: &Option<Value>| value.as_ref().and_then(|value| value.as_ref().ok().copied());
            points.iter().map(|(bucket, point)| (bucket.to_string(), value(point))).collect()
        };
        let series =
            answer.rows.iter().map(|row| JsonRow { name: JsonName::of(row), points: points(&row.points) });
        let errors = answer.rows.iter().filter_map(|row| {
            let why = row.points.iter().find_map(|(_, value)| value.as_ref()?.as_ref().err())?;
            Some((row.name.as_str(), why.to_string()))
        });
        let (series, errors) = (series.collect(), errors.collect());
        listing.print(format, &JsonSeries { collection, step: step.name(), series, errors })
    }
}

fn cell(value: Option<&Value>) -> Cell {
    value.map_or(Cell::Empty, Cell::from)
}

/// Returns the width of the terminal, 80 if it is not known.
fn terminal_width() -> usize {
    terminal_size::terminal_size().map_or(80, |(width, _)| width.0.into())
}
