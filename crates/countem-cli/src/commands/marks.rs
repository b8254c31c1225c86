//! `countem marks`

use anyhow::Result;
use clap::Args;
use countem_engine::Retry;
use serde_json::{Value, json};

use crate::{
    exit::Exit,
    global::Global,
    ingest::marks::{self, StoredMark},
    output::{Cell, Listing},
    store::{Effective, block_on},
    transfer::marks::{CopyMark, StoredImport, copies},
};

/// List what `ingest --once`, imports and copies have done
#[derive(Debug, Args)]
pub(crate) struct Marks {}

impl Marks {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        effective.require_store()?;
        let (mut marks, imports, copies) = block_on(async {
            let store = effective.open_for_reading().await?;
            let retry = Retry::new(effective.engine.retry_first, effective.engine.retry_longest);
            let timeout = Some(effective.engine.shutdown_deadline);
            let marks = marks::read(&store, &marks::all_prefixes(), retry, timeout).await?;
            Ok((marks, StoredImport::read_all(&*store).await?, copies(&*store).await?))
        })?;
        marks.sort_by(|a, b| (&a.value.file.path, &a.key).cmp(&(&b.value.file.path, &b.key)));
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut listing = Listing::new(&["file", "bytes", "lines", "counter", "kind", "state"]);
        for mark in &marks {
            for (counter, position) in positions(mark) {
                listing.push([
                    name(mark).as_str().into(),
                    number(position.offset).into(),
                    number(position.line).into(),
                    counter.into(),
                    "ingest".into(),
                    Cell::Empty,
                ]);
            }
        }
        for import in &imports {
            let (name, rows) = (import.name().into(), number(import.value.rows).into());
            let state = state(import.value.rows == import.value.of);
            listing.push([name, Cell::Empty, rows, Cell::Empty, "import".into(), state.into()]);
        }
        for (key, copy) in &copies {
            let (name, state) = (source(key, copy).into(), state(copy.done).into());
            listing.push([name, Cell::Empty, Cell::Empty, Cell::Empty, "copy".into(), state]);
        }
        let json = json!({
            "marks": marks.iter().map(to_json).collect::<Vec<_>>(),
            "imports": imports.iter().map(|import| json!({
                "file": import.name(), "rows": import.value.rows, "of": import.value.of, "key": import.key,
            })).collect::<Vec<_>>(),
            "copies": copies.iter().map(|(key, copy)| json!({
                "from": source(key, copy), "complete": copy.done, "lacks_counters": copy.lacks,
            })).collect::<Vec<_>>(),
        });
        listing.print(global.output, &json)?;
        Ok(Exit::Ok)
    }
}

fn state(is_complete: bool) -> &'static str {
    if is_complete { "complete" } else { "unfinished" }
}

/// Returns the source of a copy, or the key of one whose source is not known.
fn source<'a>(key: &'a str, copy: &'a CopyMark) -> &'a str {
    if copy.from.is_empty() { key } else { &copy.from }
}

/// Returns the path under which the content of a mark was last seen.
pub(super) fn name(mark: &StoredMark) -> String {
    match mark.value.file.path.to_string_lossy() {
        path if path.is_empty() => "(unknown: set by an earlier countem)".to_owned(),
        path => path.into_owned(),
    }
}

fn positions(mark: &StoredMark) -> impl Iterator<Item = (&str, crate::ingest::fingerprint::Position)> {
    let others = mark.value.others.map(|position| ("(all)", position));
    mark.value.counted.iter().map(|(counter, position)| (counter.as_str(), *position)).chain(others)
}

fn to_json(mark: &StoredMark) -> Value {
    let counters: Vec<_> = positions(mark)
        .map(|(counter, position)| json!({"counter": counter, "bytes": position.offset, "lines": position.line}))
        .collect();
    match &mark.value.undo {
        None => json!({"file": name(mark), "counters": counters}),
        Some(undo) => json!({"file": name(mark), "counters": counters, "undo": undo.counters}),
    }
}
