//! Counters on the wire: lines of JSON, a bucket before its counters, and the number of counters at the end. So neither side holds the
//! text of a large answer, and one that was cut off is never taken for a whole one.
//!
//! ```text
//! {"bucket":"2026-11-20"}
//! {"counter":["GET 200",12]}
//! {"unreadable":["GET 404",{"no_integer":"12.5"}]}
//! {"end":2}
//! ```

use std::{
    borrow::Cow,
    fmt,
    io::{self, BufRead, Read},
    mem,
};

use countem_core::Bucket;
use countem_store::{Counters, Rows, Unreadable, Value};
use serde::{Deserialize, Serialize};

use super::Text;

/// Media type of rows.
pub const ROWS_TYPE: &str = "application/x-ndjson";
/// Maximum number of counters in an answer.
pub const MAX_COUNTERS: usize = 2_000_000;
/// Maximum length of a line in bytes. A name of 512 bytes has no more than 3 kB in JSON.
pub const MAX_LINE: usize = 8 << 10;

/// Length from which a chunk of lines is complete.
const CHUNK: usize = 64 << 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Bucket(Text<Bucket>),
    Counter(#[serde(borrow)] Cow<'a, str>, i64),
    Unreadable(String, Unreadable),
    End(usize),
}

/// The lines of some rows, in chunks of about 64 KiB.
#[derive(Debug)]
pub struct RowLines {
    rows: <Rows as IntoIterator>::IntoIter,
    /// The rest of the counters of a bucket.
    counters: <Counters as IntoIterator>::IntoIter,
    written: usize,
    has_ended: bool,
}

impl RowLines {
    /// Returns the lines of `rows`.
    pub fn new(rows: Rows) -> Self {
        Self { rows: rows.into_iter(), counters: Counters::new().into_iter(), written: 0, has_ended: false }
    }

    fn line(&mut self) -> Line<'static> {
        if let Some((metric, value)) = self.counters.next() {
            self.written += 1;
            return match value {
                Ok(n) => Line::Counter(metric.into(), n),
                Err(why) => Line::Unreadable(metric, why),
            };
        }
        match self.rows.next() {
            Some((bucket, counters)) => {
                self.counters = counters.into_iter();
                Line::Bucket(Text(bucket))
            }
            None => {
                self.has_ended = true;
                Line::End(self.written)
            }
        }
    }
}

impl Iterator for RowLines {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::new();
        while !self.has_ended && chunk.len() < CHUNK {
            serde_json::to_writer(&mut chunk, &self.line()).expect("a line is always JSON");
            chunk.push(b'\n');
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

/// An error: an answer with rows cannot be read.
#[derive(Debug)]
pub enum RowsError {
    /// The connection failed, or the answer ended before its last line.
    Io(io::Error),
    /// The answer is none of rows.
    Malformed(String),
}

impl fmt::Display for RowsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Malformed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for RowsError {}

/// Reads rows to their last line, at most [`MAX_COUNTERS`] counters.
///
/// # Errors
/// The answer is not whole, or none of rows, or too large.
pub fn read_rows(input: &mut impl BufRead) -> Result<Rows, RowsError> {
    let mut rows = Rows::new();
    let (mut bucket, mut counters) = (None, Vec::<(String, Value)>::new());
    let (mut read, mut line) = (0_usize, Vec::new());
    loop {
        line.clear();
        let length =
            input.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line).map_err(RowsError::Io)?;
        if length == MAX_LINE {
            return Err(RowsError::Malformed(format!("a line has more than {MAX_LINE} bytes")));
        }
        if line.pop() != Some(b'\n') {
            let cut = "the answer was cut off";
            return Err(RowsError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, cut)));
        }
        let line: Line<'_> =
            serde_json::from_slice(&line).map_err(|error| RowsError::Malformed(error.to_string()))?;
        match line {
            Line::Counter(metric, n) => counters.push((metric.into_owned(), Ok(n))),
            Line::Unreadable(metric, why) => counters.push((metric, Err(why))),
            Line::Bucket(_) | Line::End(_) => {
                read += counters.len();
                match (bucket.take(), mem::take(&mut counters)) {
                    (Some(bucket), counters) => {
                        rows.insert(bucket, counters.into_iter().collect::<Counters>());
                    }
                    (None, counters) if counters.is_empty() => {}
                    (None, _) => return Err(RowsError::Malformed("a counter has no bucket".to_owned())),
                }
                match line {
                    Line::Bucket(next) => bucket = Some(next.0),
                    Line::End(count) if count == read => return Ok(rows),
                    _ => return Err(RowsError::Malformed(format!("not all counters came, only {read}"))),
                }
            }
        }
        if read + counters.len() > MAX_COUNTERS {
            return Err(RowsError::Malformed(format!("the answer has more than {MAX_COUNTERS} counters")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let day = |id: &str| id.parse::<Bucket>().unwrap();
        let longest = "\"".repeat(512);
        let sum = [("over".to_owned(), Ok(i64::MAX)), ("over".to_owned(), Ok(1))];
        let mut bad = Counters::sum(sum);
        bad.merge("no", Err(Unreadable::no_integer("12.5")));
        Rows::from([
            (day("2026-11-19"), Counters::from([("a", i64::MIN), ("ß \\ \"", i64::MAX)])),
            (day("2026-11-20"), bad),
            (day("2026-11-21"), (0..9_000).map(|i| (format!("m{i}"), i)).chain([(longest, 1)]).collect()),
        ])
    }

    fn text(rows: Rows) -> Vec<u8> {
        RowLines::new(rows).flatten().collect()
    }

    #[test]
    fn rows_read_back_in_bounded_chunks() {
        assert!(RowLines::new(rows()).count() > 1);
        assert!(RowLines::new(rows()).all(|chunk| chunk.len() < CHUNK + MAX_LINE));
        assert_eq!(read_rows(&mut &text(rows())[..]).unwrap(), rows());
        assert_eq!(read_rows(&mut &text(Rows::new())[..]).unwrap(), Rows::new());
    }

    #[test]
    fn answer_that_was_cut_is_refused() {
        let whole = text(rows());
        for end in (0..whole.len()).step_by(9_001).chain([whole.len() - 1]) {
            assert!(read_rows(&mut &whole[..end]).is_err(), "{end} of {} bytes", whole.len());
        }
        let without_a_line = String::from_utf8(whole).unwrap().replacen("{\"counter\":[\"m7\",7]}\n", "", 1);
        let error = read_rows(&mut without_a_line.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("not all counters came"), "{error}");
    }

    #[test]
    fn foreign_answers_are_refused() {
        let long = [&b"{\"counter\":[\""[..], &[b'a'; MAX_LINE]].concat();
        for foreign in [&b"<html>\n"[..], b"{}\n", b"{\"counter\":[\"a\",1]}\n{\"end\":1}\n", &long] {
            assert!(matches!(read_rows(&mut &foreign[..]), Err(RowsError::Malformed(_))), "{foreign:?}");
        }
    }
}
