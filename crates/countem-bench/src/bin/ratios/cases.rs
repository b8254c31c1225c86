//! The cases, and the targets of each.

mod journal;
mod memory;
mod readers;
mod steps;
mod threads;

use anyhow::Result;

use crate::row::Row;

/// Measures all cases of one kind; with `true` in fewer rounds.
pub(crate) type Measure = fn(quick: bool) -> Result<Vec<Row>>;

/// The kinds of cases, in the order of the table.
pub(crate) const KINDS: &[(&str, Measure)] = &[
    ("increment", threads::increments),
    ("handle", threads::handles),
    ("journal", journal::levels),
    ("readers", readers::beside),
    ("new-key", steps::new_key),
    ("drain", steps::drain),
    ("sqlite", steps::sqlite),
    ("query", steps::queries),
    ("memory", memory::pending),
];

fn rounds(rounds: usize, quick: bool) -> usize {
    if quick { rounds.div_ceil(5) } else { rounds }
}
