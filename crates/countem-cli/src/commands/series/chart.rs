//! Series for people: a bar for each point of one row, or a line of bars for each of several.

use countem_query::{Answer, Row, Value};

use crate::output::{grouped_signed, shown};

/// Heights of a point in a line of text.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Fillings of the last cell of a bar.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
/// A point whose value cannot be told.
const UNREADABLE: char = '?';
/// Name of a sum.
const TOTAL: &str = "total";
/// Width of a bar at least.
const MIN_BAR: usize = 10;

/// Draws the rows of an answer, `width` characters wide where that is enough.
pub(super) fn of(answer: &Answer, width: usize) -> String {
    match &answer.rows[..] {
        [] => String::new(),
        [row] => bars(row, width),
        rows => lines(rows, width),
    }
}

/// Draws one row from the top: a bar for each point, and the sum.
fn bars(row: &Row, width: usize) -> String {
    let text = |value: &Option<Value>| match value {
        Some(Ok(value)) => grouped_signed(*value),
        Some(Err(why)) => format!("error: {why}"),
        None => String::new(),
    };
    let points: Vec<_> = row.points.iter().map(|(at, value)| (at.to_string(), text(value), value)).collect();
    let total = match &row.value {
        Ok(value) => grouped_signed(*value),
        Err(why) => format!("error: {why}"),
    };
    let widest =
        |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
    let at_width = widest(&mut points.iter().map(|(at, ..)| at.as_str()).chain([TOTAL]));
    let value_width = widest(&mut points.iter().map(|(_, text, _)| text.as_str()).chain([total.as_str()]));
    let longest = width.saturating_sub(at_width + value_width + 4).max(MIN_BAR);
    let largest = values(row).map(i64::unsigned_abs).max().unwrap_or(0).max(1);
    let mut out = String::new();
    for (at, text, value) in &points {
        let bar = match value {
            Some(Ok(value)) => bar(value.unsigned_abs(), largest, longest),
            _ => String::new(),
        };
        let line = format!("{at:at_width$}  {text:>value_width$}  {bar}");
        out += line.trim_end();
        out.push('\n');
    }
    out += &format!("{:at_width$}  {total:>value_width$}\n", TOTAL);
    out
}

/// Returns a bar of `value` eighths of cells, where `largest` is `longest` cells long.
fn bar(value: u64, largest: u64, longest: usize) -> String {
    let eighths = u128::from(value) * (longest as u128 * 8) / u128::from(largest);
    let eighths = usize::try_from(eighths).unwrap_or(usize::MAX);
    let mut bar = "█".repeat(eighths / 8);
    bar.push(EIGHTHS[eighths % 8]);
    bar.trim_end().to_owned()
}

/// Draws each row as a line of its own height.
fn lines(rows: &[Row], width: usize) -> String {
    let name = |row: &Row| if row.name.is_empty() { TOTAL.to_owned() } else { shown(&row.name) };
    let total = |row: &Row| row.value.as_ref().map_or("?".to_owned(), |value| grouped_signed(*value));
    let name_width = rows.iter().map(|row| name(row).chars().count()).max().unwrap_or(0);
    let total_width = rows.iter().map(|row| total(row).chars().count()).max().unwrap_or(0);
    let room = width.saturating_sub(name_width + total_width + 4).max(MIN_BAR);
    let mut out = String::new();
    for row in rows {
        let line = line(row, room);
        out += &format!("{:name_width$}  {line}  {:>total_width$}\n", name(row), total(row));
    }
    out
}

/// Returns a character for each point; of more than `room` points, the last ones.
fn line(row: &Row, room: usize) -> String {
    let (lowest, highest) = values(row).fold((0, 0), |(low, high), value| (value.min(low), value.max(high)));
    let span = i128::from(highest) - i128::from(lowest);
    let height = |value: i64| {
        let steps = (i128::from(value) - i128::from(lowest)) * (HEIGHTS.len() as i128 - 1) / span.max(1);
        HEIGHTS[usize::try_from(steps).unwrap_or(0).min(HEIGHTS.len() - 1)]
    };
    let points = &row.points[row.points.len().saturating_sub(room)..];
    let draw = |(_, value): &(_, Option<Value>)| match value {
        Some(Ok(value)) => height(*value),
        Some(Err(_)) => UNREADABLE,
        None => ' ',
    };
    points.iter().map(draw).collect()
}

fn values(row: &Row) -> impl Iterator<Item = i64> {
    row.points.iter().filter_map(|(_, value)| value.as_ref()?.as_ref().ok().copied())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use countem_core::{Batch, BatchId, Period, Schedules, Table, Writer, jiff::tz::TimeZone};
    use countem_query::{Fill, Query, Reader};
    use countem_store::{MemoryStore, Store as _};

    use super::*;

    fn drawn(counted: &[(&str, &str, i64)], fill: Fill, width: usize) -> String {
        let mut table = Table::new();
        for (metric, day, n) in counted {
            table.fold("web", metric, day.parse().unwrap(), *n).unwrap();
        }
        let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 };
        let batch = Batch::new(id, table.drain());
        let store = Arc::new(MemoryStore::new());
        let schedules = Schedules::new(&TimeZone::UTC, &[Period::Day], &Default::default());
        let query = Query::new("web").range("2015-05-16..2015-05-19".parse().unwrap()).by_day().fill(fill);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            store.apply(&Arc::new(batch)).await.unwrap();
            let reader = Reader::of_store(store, Arc::new(schedules.unwrap()));
            of(&reader.query(&query, "2015-06-01T00:00:00Z".parse().unwrap()).await.unwrap(), width)
        })
    }

    #[test]
    fn one_row_is_a_bar_chart() {
        let counted = [("m", "2015-05-16", 500), ("m", "2015-05-17", 1000), ("m", "2015-05-19", 3)];
        let expected = "2015-05-16    500  ████████\n2015-05-17  1,000  ████████████████\n2015-05-18      0\n\
            2015-05-19      3\ntotal       1,503\n";
        assert_eq!(drawn(&counted, Fill::Zero, 35), expected);
        assert!(drawn(&counted, Fill::Gap, 35).contains("2015-05-18\n"));
    }

    #[test]
    fn several_rows_are_a_line_each() {
        let counted = [
            ("a\u{202e}b", "2015-05-16", 7),
            ("a\u{202e}b", "2015-05-19", 1),
            ("n", "2015-05-17", -5),
            ("n", "2015-05-18", i64::MAX),
        ];
        let expected =
            "a\\u{202e}b  █▁▁▂                          8\nn           ▁▁█▁  9,223,372,036,854,775,802\n";
        assert_eq!(drawn(&counted, Fill::Zero, 40), expected);
        assert_eq!(drawn(&[], Fill::Zero, 40), "");
    }
}
