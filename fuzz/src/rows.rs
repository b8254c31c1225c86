//! Rows of files to import.

use std::str;

use countem_core::{CollectionName, Period};
use countem_transfer::{
    Counter, csv, goatcounter, graphite,
    ndjson::{self, Line},
    scala::Splitter,
};

fn web() -> CollectionName {
    CollectionName::new("web").expect("the name is valid")
}

/// Writes a counter in the formats of `countem export`, and reads it back.
fn check(counter: &Counter) {
    let mut line = String::new();
    ndjson::write(&mut line, &counter.record());
    assert_eq!(ndjson::read(&line), Ok(Line::Counter(counter.clone())));
    for is_safe in [false, true] {
        line.clear();
        csv::write(&mut line, &counter.record(), is_safe);
        let columns = csv::Columns::new(csv::HEADER.trim_end(), None, None).expect("the header is valid");
        assert_eq!(columns.safe(is_safe).read(line.trim_end_matches('\n')).as_ref(), Ok(counter));
    }
}

/// Reads the second line as a row of every format, where the first one is the header. A counter that is found survives an export.
///
/// # Panics
/// When it does not.
pub fn row(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (header, row) = text.split_once('\n').unwrap_or(("", text));
    if let Ok(columns) = csv::Columns::new(header, Some("web".into()), Some("2026-11-20".into()))
        && let Ok(counter) = columns.read(row)
    {
        check(&counter);
    }
    if let Ok(Line::Counter(counter)) = ndjson::read(row) {
        check(&counter);
    }
    if let Ok(counter) = graphite::read(row, &web()) {
        assert_eq!(counter.bucket.period(), Period::Second);
        assert_eq!(graphite::read(&format!(" {row} "), &web()).as_ref(), Ok(&counter));
        check(&counter);
    }
    if let Ok(hits) = goatcounter::Hits::new(header, web())
        && let Ok(Some(counter)) = hits.read(row)
    {
        assert_eq!((counter.bucket.period(), counter.value), (Period::Second, 1));
        check(&counter);
    }
}

/// Reads the counters of all documents in a text, in blocks of `size`. The error is its line.
fn documents(data: &[u8], size: usize) -> Result<Vec<Counter>, u64> {
    let (mut splitter, mut found) = (Splitter::default(), Vec::new());
    for mut block in data.chunks(size) {
        while !block.is_empty() {
            let (used, document) = splitter.push(block).map_err(|_| splitter.line())?;
            block = &block[used..];
            if let Some(document) = document {
                found.extend(document.read(&web()).map_err(|(line, _)| line)?.1);
            }
        }
    }
    splitter.finish().map_err(|_| splitter.line())?;
    Ok(found)
}

/// Reads documents of the Scala countem. They are the same in blocks of any size, and every counter survives an export.
///
/// # Panics
/// When they are not, or it does not.
pub fn document(data: &[u8]) {
    let found = documents(data, 3);
    assert_eq!(documents(data, usize::MAX), found);
    let lines = data.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
    match found {
        Ok(counters) => counters.iter().for_each(check),
        Err(line) => assert!((1..=lines).contains(&line), "line {line} of {lines}"),
    }
}
