//! Comma-separated values.

use std::{borrow::Cow, fmt::Write as _, iter};

use crate::{Counter, Record, RowError};

/// The first line of an export.
pub const HEADER: &str = "collection,period,bucket,metric,value\n";

/// Characters with which a formula begins in a spreadsheet, and the one that hides a formula.
const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\''];

/// Appends a record as a line. If `is_safe`, text that a spreadsheet would take for a formula gets a `'` in front, and so does text that
/// has one already: [`Columns::safe`] takes it off again.
pub fn write(out: &mut String, record: &Record<'_>, is_safe: bool) {
    let Record { collection, bucket, metric, value } = record;
    // Names of collections, periods and buckets need no quotes.
    write!(out, "{collection},{},{bucket},", bucket.period()).ok();
    let metric: Cow<'_, str> =
        if is_safe && metric.starts_with(FORMULA) { format!("'{metric}").into() } else { (*metric).into() };
    push(out, &metric);
    out.push(',');
    match value {
        Ok(value) => drop(write!(out, "{value}")),
        Err(why) => push(out, &format!("{NO_VALUE}{why}")),
    }
    out.push('\n');
}

const NO_VALUE: &str = "error: ";

fn push(out: &mut String, text: &str) {
    if text.contains(['"', ',', '\n', '\r']) {
        write!(out, "\"{}\"", text.replace('"', "\"\"")).ok();
    } else {
        out.push_str(text);
    }
}

/// Columns of a file, and its separator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    columns: Vec<Column>,
    separator: char,
    collection: Option<String>,
    bucket: Option<String>,
    is_safe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Collection,
    Period,
    Bucket,
    Metric,
    Value,
}

/// An error: the columns do not make a counter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnsError {
    /// A column has an unknown name.
    #[error("`{name}` is no column (separator `{separator}`); expected {NAMES}")]
    Unknown {
        /// The name.
        name: String,
        /// The separator.
        separator: char,
    },
    /// A column is there twice.
    #[error("column `{0}` is there twice")]
    Twice(String),
    /// A column is there, and its value for every line was given as well.
    #[error("there is a column `{0}`, and `--{0}` is given as well: leave one of them out")]
    Given(&'static str),
    /// A column is missing.
    #[error("there is no column `{name}` (separator `{separator}`): add it{}", match *.name {
        "collection" => ", or name the collection with `--collection`",
        "bucket" => ", or name the bucket with `--bucket`",
        _ => "",
    })]
    Missing {
        /// The name.
        name: &'static str,
        /// The separator.
        separator: char,
    },
    /// The first column of an export of GoatCounter has no known version.
    #[error("`{0}` is no first column of an export of GoatCounter: expected `1Path` or `2Path`")]
    Version(String),
    /// The quotes of the header do not match.
    #[error(transparent)]
    Row(RowError),
}

const NAMES: &str = "collection, bucket (or date), metric, value, and perhaps period";

impl Columns {
    /// Returns the columns that `header` names, separated by `,`, `;` or a tab. `collection` and `bucket` are those of every line,
    /// where there is no such column.
    ///
    /// # Errors
    /// [`ColumnsError`]: a column is unknown or missing.
    pub fn new(
        header: &str,
        collection: Option<String>,
        bucket: Option<String>,
    ) -> Result<Self, ColumnsError> {
        let separator = [',', ';', '\t'].into_iter().find(|separator| header.contains(*separator));
        let separator = separator.unwrap_or(',');
        let mut columns = Vec::new();
        for name in split(header, separator).map_err(ColumnsError::Row)? {
            let name = name.trim();
            let column = match name.to_ascii_lowercase().as_str() {
                "collection" => Column::Collection,
                "period" => Column::Period,
                "bucket" | "date" => Column::Bucket,
                "metric" => Column::Metric,
                "value" => Column::Value,
                _ => return Err(ColumnsError::Unknown { name: name.to_owned(), separator }),
            };
            if columns.contains(&column) {
                return Err(ColumnsError::Twice(name.to_owned()));
            }
            columns.push(column);
        }
        let has = |column| columns.contains(&column);
        let needed = [
            ("collection", has(Column::Collection) || collection.is_some()),
            ("bucket", has(Column::Bucket) || bucket.is_some()),
            ("metric", has(Column::Metric)),
            ("value", has(Column::Value)),
        ];
        for (name, column, is_given) in [
            ("collection", Column::Collection, collection.is_some()),
            ("bucket", Column::Bucket, bucket.is_some()),
        ] {
            if has(column) && is_given {
                return Err(ColumnsError::Given(name));
            }
        }
        match needed.iter().find(|(_, is_there)| !is_there) {
            Some((name, _)) => Err(ColumnsError::Missing { name, separator }),
            None => Ok(Self { columns, separator, collection, bucket, is_safe: false }),
        }
    }

    /// Reads metrics that were [written](write()) for spreadsheets if `is_safe`.
    pub fn safe(self, is_safe: bool) -> Self {
        Self { is_safe, ..self }
    }

    /// Reads a line, without its end.
    ///
    /// # Errors
    /// [`RowError`]: the line is no counter.
    pub fn read(&self, line: &str) -> Result<Counter, RowError> {
        let fields = split(line, self.separator)?;
        if fields.len() != self.columns.len() {
            let (found, columns) = (fields.len(), self.columns.len());
            return Err(RowError::Fields { found, columns, separator: self.separator });
        }
        let find = |wanted| self.columns.iter().position(|column| *column == wanted).map(|at| &*fields[at]);
        let text = |wanted| find(wanted).unwrap_or_default();
        let (metric, value) = (text(Column::Metric), text(Column::Value));
        let hidden = metric.strip_prefix('\'').filter(|text| self.is_safe && text.starts_with(FORMULA));
        let metric = hidden.unwrap_or(metric);
        if let Some(why) = value.strip_prefix(NO_VALUE) {
            return Err(RowError::NoValue { metric: metric.to_owned(), why: why.to_owned() });
        }
        let value = value.parse().map_err(|_| RowError::Value(value.to_owned()))?;
        let collection = find(Column::Collection).or(self.collection.as_deref()).unwrap_or_default();
        let bucket = find(Column::Bucket).or(self.bucket.as_deref()).unwrap_or_default();
        Counter::new(collection, find(Column::Period), bucket, metric, value)
    }
}

/// Splits a line into its fields. No name has a line break, so a field ends on its line.
pub(crate) fn split(line: &str, separator: char) -> Result<Vec<Cow<'_, str>>, RowError> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let Some(quoted) = text.strip_prefix('"') else {
            let (field, after) =
                text.split_once(separator).map_or((text, None), |(field, after)| (field, Some(after)));
            fields.push(field.into());
            rest = after;
            continue;
        };
        let mut quotes = quoted.match_indices('"').map(|(at, _)| at);
        let end = iter::from_fn(|| quotes.next()).collect::<Vec<_>>();
        let mut at = 0;
        // A quote that another one follows is a character of the field.
        while at + 1 < end.len() && end[at + 1] == end[at] + 1 {
            at += 2;
        }
        let end = *end.get(at).ok_or(RowError::Quote(separator))?;
        fields.push(quoted[..end].replace("\"\"", "\"").into());
        let after = &quoted[end + 1..];
        rest = match after.strip_prefix(separator) {
            Some(after) => Some(after),
            None if after.is_empty() => None,
            None => return Err(RowError::Quote(separator)),
        };
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use countem_core::Bucket;
    use proptest::prelude::*;

    use super::*;

    fn read(header: &str, line: &str) -> Result<String, String> {
        let header_has = |names: &[&str]| names.iter().any(|name| header.to_lowercase().contains(name));
        let collection = (!header_has(&["collection"])).then(|| "web".to_owned());
        let bucket = (!header_has(&["bucket", "date"])).then(|| "2026-11-20".to_owned());
        let columns = Columns::new(header, collection, bucket);
        let counter = columns.map_err(|error| error.to_string())?.read(line);
        let counter = counter.map_err(|error| error.to_string())?;
        Ok(format!("{}|{}|{}|{}", counter.collection, counter.bucket, counter.metric, counter.value))
    }

    #[test]
    fn columns_are_found_by_name() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(read("metric;value", "GET 200;5"), ok("web|2026-11-20|GET 200|5"));
        assert_eq!(read("Value\tDate\tMetric", "-5\t2026-W47\ta\"b"), ok("web|2026-W47|a\"b|-5"));
        assert_eq!(
            read("collection,value,metric", "x,5,\"a \"\"b\"\", c\"\"\""),
            ok("x|2026-11-20|a \"b\", c\"|5")
        );
        assert_eq!(read("metric,value", "\"\"\"\",1"), ok("web|2026-11-20|\"|1"));
    }

    #[test]
    fn column_beside_its_flag_is_refused() {
        let given = Some("x".to_owned());
        let columns = Columns::new("collection,date,metric,value", given.clone(), None);
        assert_eq!(columns, Err(ColumnsError::Given("collection")));
        let columns = Columns::new("collection,date,metric,value", None, given);
        assert_eq!(columns, Err(ColumnsError::Given("bucket")));
    }

    #[test]
    fn unclear_lines_are_refused() {
        for (header, line, why) in [
            ("metric,n", "", "`n` is no column (separator `,`)"),
            ("metric|value", "", "`metric|value` is no column"),
            ("metric,metric", "", "twice"),
            ("metric", "", "no column `value`"),
            ("metric,value", "a,b,1", "3 fields where there are 2 columns"),
            ("metric,value", "a", "1 fields"),
            ("metric,value", "a,1.0", "`1.0` is no whole number"),
            ("metric,value", "a,", "`` is no whole number"),
            ("metric,value", "a,9223372036854775808", "no whole number"),
            ("metric,value", "a,error: too large", "without a value (too large)"),
            ("metric,value", "\"a,1", "quoted field"),
            ("metric,value", "\"a\"b,1", "quoted field"),
            ("metric,value", ",1", "metric name is empty"),
            ("metric,value,date", "a,1,2026-02-30", "2026-02-30"),
            ("metric,value,bucket,period", "a,1,2026-02,day", "2026-02 is a month, not a day"),
        ] {
            let error = read(header, line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn written_line_reads_back(
            start in "[-=+@']{0,2}", metric in "[^\\p{Cc}]{1,20}", value in any::<i64>(), is_safe in any::<bool>(),
        ) {
            let metric = format!("{start}{metric}");
            let counter = Counter::new("a.b", None, "2026-11", &metric, value).unwrap();
            let mut line = String::new();
            write(&mut line, &counter.record(), is_safe);
            let columns = Columns::new(HEADER.trim_end(), None, None).unwrap().safe(is_safe);
            prop_assert_eq!(columns.read(line.trim_end_matches('\n')), Ok(counter));
        }

        #[test]
        fn arbitrary_line_never_panics(line in "[\",;a1\\t]{0,12}") {
            let columns = Columns::new("metric,value", Some("web".into()), Some(Bucket::ALL.to_string()));
            if let Ok(counter) = columns.unwrap().read(&line) {
                prop_assert!(line.contains(&counter.value.to_string()) || line.contains('0') || counter.value == 1);
            }
        }
    }
}
