//! The first lines of an input, each with that which it would count.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use countem_lines::{Format as LineFormat, Span};
use jiff::Timestamp;
use memchr::memchr;
use serde::Serialize;

use super::{InputState, LineCounter};
use crate::{
    exit::Exit,
    ingest::{
        lines::Lines,
        plan::Plan,
        report::{Tally, excerpt},
    },
    input::Input,
    output::{Format, Listing},
};

/// Number of lines that are shown.
const LINES: usize = 10;

/// The first lines of an input.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Preview {
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    line: u64,
    text: String,
    /// The fields that templates, filters, time and amount need.
    fields: BTreeMap<String, String>,
    counts: Vec<Count>,
    /// Reason for which the line counts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<String>,
}

#[derive(Debug, Serialize)]
struct Count {
    collection: String,
    metric: String,
    bucket: String,
    n: i64,
}

impl Preview {
    /// Reads the first lines of `input` as `plan` says.
    ///
    /// # Errors
    /// The input cannot be read, or its header lacks a wanted column.
    pub(crate) fn read(plan: &Plan, input: &Input) -> Result<Self> {
        let mut source = input.open(&Arc::default())?;
        let mut lines = Lines::new(0).joining(plan.format.joins_lines());
        let (mut state, mut counter) = (InputState::new(input.name(), plan), LineCounter::new(plan));
        let mut preview = Self::default();
        while preview.lines.len() < LINES {
            let Some(block) = lines.next(&mut source, Vec::new())?.or_else(|| lines.finish()) else { break };
            let mut rest = block.bytes();
            while !rest.is_empty() && preview.lines.len() < LINES {
                let len = match state.format.joins_lines() {
                    true => LineFormat::record_len(rest),
                    false => memchr(b'\n', rest).map(|end| end + 1),
                };
                let (line, after) = rest.split_at(len.unwrap_or(rest.len()));
                rest = after;
                preview.lines.extend(Line::read(line, plan, &mut state, &mut counter)?);
            }
        }
        Ok(preview)
    }

    /// Prints the lines, and returns whether each of them counts.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn print(&self, format: Format) -> Result<Exit> {
        let mut listing = Listing::new(&["line", "collection", "metric", "bucket", "n", "fields"]);
        for line in &self.lines {
            let number = || i64::try_from(line.line).unwrap_or(i64::MAX).into();
            let fields: Vec<_> = line.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let fields = fields.join(" ");
            if let Some(why) = &line.rejected {
                let text = if fields.is_empty() { line.text.as_str() } else { fields.as_str() };
                listing.push([number(), "-".into(), why.as_str().into(), "-".into(), 0.into(), text.into()]);
            }
            for Count { collection, metric, bucket, n } in &line.counts {
                let [collection, metric, bucket] =
                    [collection, metric, bucket].map(|text| text.as_str().into());
                listing.push([number(), collection, metric, bucket, (*n).into(), fields.as_str().into()]);
            }
        }
        listing.print(format, self)?;
        let is_whole = self.lines.iter().all(|line| line.rejected.is_none());
        Ok(if is_whole { Exit::Ok } else { Exit::Partly })
    }
}

impl Line {
    /// Counts one line for itself, `None` for a header, a directive and a blank line.
    fn read(
        line: &[u8],
        plan: &Plan,
        state: &mut InputState,
        counter: &mut LineCounter,
    ) -> Result<Option<Self>> {
        let mut tally = Tally::new(plan.wanted.clone());
        state.count(&mut &*line, Timestamp::now(), plan, counter, &mut tally);
        if let Some(error) = tally.take_failure() {
            return Err(error);
        }
        if tally.lines == tally.blank {
            return Ok(None);
        }
        let deltas = counter.drain();
        let stored = deltas.iter().flat_map(|delta| delta.fan_out(plan.schedules.of(delta.collection)));
        let counts = stored.map(|delta| Count {
            collection: delta.collection.to_owned(),
            metric: delta.metric.to_owned(),
            bucket: delta.bucket.to_string(),
            n: delta.n,
        });
        let filtered = || (tally.filtered > 0).then(|| "left out by --where".to_owned());
        let mut spans = vec![Span::MISSING; plan.wanted.names().len()];
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let found = state.format.read(text, &mut spans).unwrap_or_default();
        let fields = plan.wanted.names().iter().zip(&spans).filter_map(|(name, span)| {
            Some((name.clone(), String::from_utf8_lossy(span.of(found)?).into_owned()))
        });
        Ok(Some(Self {
            line: state.position.line,
            text: excerpt(text),
            fields: fields.collect(),
            counts: counts.collect(),
            rejected: tally.reason().or_else(filtered),
        }))
    }
}
