//! Formats of results.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Display,
    io::{self, Write},
};

use anyhow::Result;
use comfy_table::{CellAlignment, Table};
use countem_query::{Counters, Unreadable};
use countem_store_uri::escaped;
use serde::Serialize;
use serde_json::{Value, json};

/// Format of results, the value of `--output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON object
    Json,
    /// One JSON object per line
    Ndjson,
    /// Comma-separated values with a header
    Csv,
    /// The same with `--csv-safe`: no text cell is a formula
    #[value(skip)]
    CsvSafe,
    /// OpenMetrics, of an export alone
    #[value(name = "openmetrics")]
    OpenMetrics,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Text(String),
    Number(i64),
    /// Reason why there is no value.
    Error(String),
    /// There is no value, and none is expected.
    Empty,
}

/// Rows of values under named columns.
#[derive(Debug)]
pub(crate) struct Listing {
    columns: Vec<String>,
    /// Number of leading columns that are the same in every row, which a table leaves out.
    constant: usize,
    rows: Vec<Vec<Cell>>,
}

impl Cell {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Number(number) => number.to_string().into(),
            Self::Error(why) => format!("error: {why}").into(),
            Self::Empty => "".into(),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&countem_query::Value> for Cell {
    fn from(value: &countem_query::Value) -> Self {
        value.as_ref().copied().into()
    }
}

impl From<Result<i64, &Unreadable>> for Cell {
    fn from(value: Result<i64, &Unreadable>) -> Self {
        value.map_or_else(|why| Self::Error(why.to_string()), Self::Number)
    }
}

/// Counters in JSON: those that have a value, and beside them `errors`, which is left out when there are none.
#[derive(Debug, Serialize)]
pub(crate) struct JsonCounters<'a> {
    counters: BTreeMap<&'a str, i64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<&'a str, String>,
}

impl<'a> From<&'a Counters> for JsonCounters<'a> {
    fn from(counters: &'a Counters) -> Self {
        let errors = counters.unreadable().map(|(metric, why)| (metric, why.to_string()));
        Self { counters: counters.readable().collect(), errors: errors.collect() }
    }
}

impl Listing {
    /// Returns an empty listing.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        Self { columns, constant: 0, rows: Vec::new() }
    }

    /// Leaves the first `constant` columns out of tables, since they repeat the command line.
    pub(crate) fn hide(self, constant: usize) -> Self {
        Self { constant, ..self }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: impl Into<Vec<Cell>>) {
        self.rows.push(row.into());
    }

    /// Writes the listing to standard output, or `json` instead if the format is one JSON object.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn print(&self, format: Format, json: &impl Serialize) -> Result<()> {
        let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
        match format {
            Format::Table => self.write_table(&mut out)?,
            Format::Json => {
                serde_json::to_writer(&mut out, json).map_err(io::Error::from)?;
                writeln!(out)?;
            }
            Format::Ndjson => self.write_ndjson(&mut out)?,
            Format::Csv => self.write_csv(&mut out, false)?,
            Format::CsvSafe => self.write_csv(&mut out, true)?,
            Format::OpenMetrics => anyhow::bail!("`-o openmetrics` is for `countem export`"),
        }
        Ok(out.flush()?)
    }

    /// Writes the listing to standard output. One JSON object holds the rows under `name`.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn print_as(&self, format: Format, name: &str) -> Result<()> {
        let rows: Vec<_> = self.objects().collect();
        self.print(format, &json!({ name: rows }))
    }

    /// Writes columns under capital headers, numbers to the right; no lines and no colours, which depend on the terminal.
    /// Names are escaped, also in a pipe: the other formats have them as they are.
    fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(self.columns[self.constant..].iter().map(|name| name.to_uppercase()));
        for row in &self.rows {
            table.add_row(row[self.constant..].iter().map(|cell| shown(&cell.text())));
        }
        let is_number =
            |at: usize| self.rows.iter().any(|row| matches!(row[self.constant + at], Cell::Number(_)));
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if is_number(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn write_ndjson(&self, out: &mut impl Write) -> io::Result<()> {
        self.objects().try_for_each(|row| writeln!(out, "{row}"))
    }

    /// Returns each row as a JSON object.
    fn objects(&self) -> impl Iterator<Item = Value> {
        self.rows.iter().map(|row| {
            let pairs = self.columns.iter().zip(row).map(|(name, cell)| {
                let (name, value) = match cell {
                    Cell::Text(text) => (name.as_str(), Value::from(text.as_str())),
                    Cell::Number(number) => (name.as_str(), Value::from(*number)),
                    Cell::Empty => (name.as_str(), Value::Null),
                    Cell::Error(why) => ("error", Value::from(why.as_str())),
                };
                (name.to_owned(), value)
            });
            Value::Object(pairs.collect())
        })
    }

    /// Writes comma-separated values (RFC 4180), with `\n` at the end of a line. If `is_safe`, text that a spreadsheet would
    /// take for a formula begins with `'`.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn write_csv(&self, out: &mut impl Write, is_safe: bool) -> io::Result<()> {
        let header = self.columns.iter().map(|name| Cell::Text(name.clone())).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            for (at, cell) in row.iter().enumerate() {
                out.write_all(if at > 0 { b"," } else { b"" })?;
                // No program reads the words of an error as a number.
                let mut text = cell.text();
                if is_safe && matches!(cell, Cell::Text(_)) && text.starts_with(FORMULA) {
                    text = format!("'{text}").into();
                }
                if text.contains(['"', ',', '\n', '\r']) {
                    write!(out, "\"{}\"", text.replace('"', "\"\""))?;
                } else {
                    out.write_all(text.as_bytes())?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Characters with which a formula begins in a spreadsheet.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Writes a message of one line beside the result to standard error, which may be closed.
pub(crate) fn say(message: impl Display) {
    writeln!(io::stderr(), "{}", shown(&message.to_string())).ok();
}

/// Returns foreign text as people may read it, on one line.
pub(crate) fn shown(text: &str) -> String {
    escaped(text).collect()
}

/// Returns the text of an error without the numbers that the system gives its errors, which the words before them explain.
pub(crate) fn without_codes(text: &str) -> String {
    const CODE: &str = " (os error ";
    let mut parts = text.split(CODE);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((code, rest)) if code.parse::<i32>().is_ok() => out += rest,
            _ => out.extend([CODE, part]),
        }
    }
    out
}

/// Writes a number with commas between thousands.
pub(crate) fn grouped(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

/// Writes a number that may be negative with commas between thousands.
pub(crate) fn grouped_signed(n: i64) -> String {
    format!("{}{}", if n < 0 { "-" } else { "" }, grouped(n.unsigned_abs()))
}

/// Writes a number and what it counts: `1 line`, `2,000 lines`.
pub(crate) fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let mut listing = Listing::new(&["collection", "metric", "value"]).hide(1);
        listing.push(["web".into(), "GET 200".into(), 1234.into()]);
        listing.push(["web".into(), "a \"b\", 🦀".into(), Cell::Number(-5)]);
        listing
    }

    fn written(write: impl Fn(&Listing, &mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&listing(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn table_is_aligned_and_plain() {
        let expected = "METRIC     VALUE\nGET 200     1234\na \"b\", 🦀     -5\n";
        assert_eq!(written(|listing, out| listing.write_table(out)), expected);
        assert_eq!(Listing::new(&["a"]).write_table(&mut Vec::new()).ok(), Some(()));
    }

    #[test]
    fn csv_quotes_separators_and_quotes() {
        let expected = "collection,metric,value\nweb,GET 200,1234\nweb,\"a \"\"b\"\", 🦀\",-5\n";
        assert_eq!(written(|listing, out| listing.write_csv(out, false)), expected);
    }

    #[test]
    fn safe_csv_has_no_formula() {
        let mut listing = Listing::new(&["metric", "value"]);
        for metric in ["=1+1", "+a", "-5", "@x", "\t=x", "\r=x", "a=b"] {
            listing.push([metric.into(), Cell::Number(-5)]);
        }
        let written = |is_safe| {
            let mut out = Vec::new();
            listing.write_csv(&mut out, is_safe).unwrap();
            String::from_utf8(out).unwrap()
        };
        let safe = "metric,value\n'=1+1,-5\n'+a,-5\n'-5,-5\n'@x,-5\n'\t=x,-5\n\"'\r=x\",-5\na=b,-5\n";
        assert_eq!(written(true), safe);
        assert_eq!(written(false), safe.replace('\'', ""));
    }

    #[test]
    fn ndjson_has_one_object_per_row() {
        let text = written(|listing, out| listing.write_ndjson(out));
        assert_eq!(text.lines().next().unwrap(), r#"{"collection":"web","metric":"GET 200","value":1234}"#);
    }
}
