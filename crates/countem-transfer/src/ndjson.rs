//! One JSON object per line.

use std::{borrow::Cow, fmt::Write as _};

use serde::{Deserialize, Serialize};
use serde_json::{Value, error::Category};

use crate::{Counter, Digest, Record, RowError};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    #[serde(borrow)]
    collection: Cow<'a, str>,
    #[serde(borrow)]
    period: Option<Cow<'a, str>>,
    #[serde(borrow)]
    bucket: Cow<'a, str>,
    #[serde(borrow)]
    metric: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
}

/// The last line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The digest of all counters that have a value.
    pub digest: String,
    /// The number of counters that have a value.
    pub counters: u64,
    /// The zone of days and coarser buckets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A counter.
    Counter(Counter),
    /// The last line.
    End(End),
}

impl End {
    /// Returns the last line after counters of `digest`, whose days are those of `zone`.
    pub fn new(digest: &Digest, zone: Option<&str>) -> Self {
        Self { digest: digest.to_string(), counters: digest.counters(), zone: zone.map(str::to_owned) }
    }
}

/// Appends a record as a line.
pub fn write(out: &mut String, record: &Record<'_>) {
    let bucket = record.bucket.to_string();
    let object = Object {
        collection: record.collection.into(),
        period: Some(record.bucket.period().name().into()),
        bucket: bucket.into(),
        metric: record.metric.into(),
        value: record.value.ok().map(Value::from),
        error: record.value.err().map(Cow::from),
    };
    push(out, &object);
}

/// Appends the last line.
pub fn write_end(out: &mut String, end: &End) {
    push(out, end);
}

fn push(out: &mut String, line: &impl Serialize) {
    let line = serde_json::to_string(line).expect("numbers and texts are always JSON");
    writeln!(out, "{line}").ok();
}

/// Reads a line.
///
/// # Errors
/// [`RowError`]: the line is neither a counter nor the last one.
pub fn read(line: &str) -> Result<Line, RowError> {
    if let Ok(end) = serde_json::from_str::<End>(line) {
        return Ok(Line::End(end));
    }
    if !line.trim_start().starts_with('{') {
        return Err(RowError::Json("the line is no JSON object".to_owned()));
    }
    let Object { collection, period, bucket, metric, value, error } =
        serde_json::from_str(line).map_err(|error| failed(&error))?;
    let value = match (value, error) {
        (Some(value), None) => value.as_i64().ok_or_else(|| RowError::Value(value.to_string()))?,
        (_, Some(why)) => {
            return Err(RowError::NoValue { metric: metric.into_owned(), why: why.into_owned() });
        }
        (None, None) => return Err(RowError::Json("missing field `value`".to_owned())),
    };
    Counter::new(&collection, period.as_deref(), &bucket, &metric, value).map(Line::Counter)
}

/// Returns the error of a line in the words of its reader.
fn failed(error: &serde_json::Error) -> RowError {
    RowError::Json(match error.classify() {
        Category::Eof => "the line is cut off".to_owned(),
        Category::Data => {
            // The number of the line is that of the file.
            let text = error.to_string();
            text.rsplit_once(" at line ").map_or(&*text, |(why, _)| why).to_owned()
        }
        _ => format!("the line is not JSON (column {})", error.column()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unclear_lines_are_refused() {
        for (line, why) in [
            ("", "the line is no JSON object; expected"),
            (r#"["web",null,"all","a",1,null]"#, "the line is no JSON object; expected"),
            (r#"{"collection":"web""#, "the line is cut off; expected"),
            (r#"{"collection":web}"#, "the line is not JSON (column 15)"),
            (r#"{"collection":"web","bucket":"all","metric":"a"}"#, "`value`"),
            (
                r#"{"collection":"web","bucket":"all","metric":"a","value":1.0}"#,
                "value `1.0` is no whole number",
            ),
            (
                r#"{"collection":"web","bucket":"all","metric":"a","value":9223372036854775808}"#,
                "value `9223372036854775808` is no whole number",
            ),
            (
                r#"{"collection":"web","bucket":"all","metric":5,"value":1}"#,
                "integer `5`, expected a string;",
            ),
            (r#"{"collection":"web","bucket":"all","metric":"a","value":1,"n":2}"#, "unknown field"),
            (r#"{"collection":"web","bucket":"all","metric":"a","error":"x"}"#, "without a value (x)"),
            (r#"{"collection":"web","period":"day","bucket":"all","metric":"a","value":1}"#, "not a day"),
        ] {
            let error = read(line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn written_line_reads_back(metric in "[^\\p{Cc}]{1,20}", value in any::<i64>()) {
            let counter = Counter::new("a.b", None, "2026-11-20T14", &metric, value).unwrap();
            let mut line = String::new();
            write(&mut line, &counter.record());
            prop_assert_eq!(read(&line), Ok(Line::Counter(counter)));
            let end = End::new(&Digest::default(), Some("UTC"));
            line.clear();
            write_end(&mut line, &end);
            prop_assert_eq!(read(&line), Ok(Line::End(end)));
        }
    }
}
