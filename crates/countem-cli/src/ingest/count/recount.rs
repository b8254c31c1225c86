//! Counts a part of a content once more.

use std::io::Read as _;

use anyhow::{Result, anyhow};
use countem_core::{Deltas, Table};
use jiff::Timestamp;

use super::{InputState, LineCounter, Part};
use crate::{
    ingest::{feed::Start, lines::Lines, plan::Plan, report::Tally},
    input::Source,
};

/// Counts of a part of a content that was read again.
pub(crate) struct Recount {
    /// Deltas by counting bucket.
    pub(crate) table: Table,
    /// [Sum](crate::ingest::added::Added::sum) over them.
    pub(crate) sum: u64,
}

impl Recount {
    /// Counts the lines from `start`, where `source` is, to before `end` for the only template of `plan`.
    ///
    /// # Errors
    /// The content cannot be read, its header lacks a wanted column, or a sum leaves the range of 64 bits.
    pub(crate) fn read(plan: &Plan, start: &Start, source: &mut Source, end: u64) -> Result<Self> {
        let (mut tally, now) = (Tally::new(plan.wanted.clone()), Timestamp::now());
        let mut state = InputState::at(start, plan, &mut tally);
        let (mut counter, mut table, mut spare) = (LineCounter::new(plan), Table::new(), Vec::new());
        counter.keep_sums();
        let mut lines = Lines::new(start.position.offset).joining(plan.format.joins_lines());
        let mut part = source.by_ref().take(end.saturating_sub(start.position.offset));
        while let Some(block) = lines.next(&mut part, spare)?.or_else(|| lines.finish()) {
            let mut rest = block.bytes();
            while let Part::Full = state.count(&mut rest, now, plan, &mut counter, &mut tally) {
                merge(&mut table, &counter.drain())?;
            }
            spare = block.memory;
        }
        if let Some(error) = tally.take_failure() {
            return Err(error);
        }
        merge(&mut table, &counter.drain())?;
        let sum = counter.take_sums().into_iter().fold(0, u64::wrapping_add);
        Ok(Self { table, sum })
    }
}

fn merge(table: &mut Table, deltas: &Deltas) -> Result<()> {
    for delta in deltas.iter() {
        table.merge(delta).map_err(|error| anyhow!("cannot add up `{}`: {error}", delta.metric))?;
    }
    Ok(())
}
