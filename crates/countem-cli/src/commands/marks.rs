//! `countem marks`

use anyhow::Result;
use clap::Args;
use countem_engine::Retry;
use serde_json::{Value, json};

use crate::{
    exit::Exit,
    global::Global,
    ingest::marks::{self, StoredMark},
    output::Listing,
    store::{Effective, block_on},
};

/// List how far files were counted by `ingest --once`
#[derive(Debug, Args)]
pub(crate) struct Marks {}

impl Marks {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        effective.require_store()?;
        let mut marks = block_on(async {
            let store = effective.open_for_reading().await?;
            let retry = Retry::new(effective.engine.retry_first, effective.engine.retry_longest);
            Ok(marks::read(&store, &marks::all_prefixes(), retry, Some(effective.engine.shutdown_deadline))
                .await?)
        })?;
        marks.sort_by(|a, b| (&a.value.file.path, &a.key).cmp(&(&b.value.file.path, &b.key)));
        let mut listing = Listing::new(&["file", "bytes", "lines", "counter"]);
        for mark in &marks {
            for (counter, position) in positions(mark) {
                let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
                listing.push([
                    name(mark).as_str().into(),
                    number(position.offset).into(),
                    number(position.line).into(),
                    counter.into(),
                ]);
            }
        }
        listing.print(global.output, &json!({"marks": marks.iter().map(to_json).collect::<Vec<_>>()}))?;
        Ok(Exit::Ok)
    }
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
