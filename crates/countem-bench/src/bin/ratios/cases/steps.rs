//! Work on many counters at once: creating, draining, storing.

use anyhow::Result;
use countem_bench::{
    drain::{Drain, DrainMap},
    new_key::{NewKeys, NewKeysInMap},
    query::{InSql, Question},
    sqlite::{HandWritten, StoreFlush},
    step::Step,
};

use super::rounds;
use crate::{
    row::{Meaning, Pair, Row, Target},
    samples::Samples,
};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// Measures a step and its baseline in turns, as nanoseconds per counter.
fn compare(ours: &mut dyn Step, baseline: &mut dyn Step, counters: usize, rounds: usize) -> (Row, Samples) {
    let samples = Samples::in_turns(rounds, 2, |thing| {
        let took = if thing == 0 { ours.time() } else { baseline.time() };
        took.as_secs_f64() * 1e9 / counters as f64
    });
    let pair = Pair { countem: 0, baseline: 1, against: baseline.label() };
    let row = Row::compare(ours.label(), "ns per counter", &samples, pair, Meaning::Time);
    (row, samples)
}

/// Increments of counters that are new.
pub(crate) fn new_key(quick: bool) -> Result<Vec<Row>> {
    let counters = 10_000;
    let (mut ours, mut map) = (NewKeys::start(counters)?, NewKeysInMap::new(counters));
    Ok(vec![compare(&mut ours, &mut map, counters, rounds(60, quick)).0])
}

/// Draining the tables.
pub(crate) fn drain(quick: bool) -> Result<Vec<Row>> {
    let drain = |counters: usize| {
        let (mut ours, mut map) = (Drain::start(counters)?, DrainMap::new(counters));
        Ok(compare(&mut ours, &mut map, counters, rounds(often(counters), quick)).0)
    };
    SIZES.into_iter().map(drain).collect()
}

/// Storing in SQLite.
pub(crate) fn sqlite(quick: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for counters in SIZES {
        let (mut ours, mut written) = (StoreFlush::open(counters)?, HandWritten::open(counters)?);
        let (row, samples) = compare(&mut ours, &mut written, counters, rounds(often(counters), quick));
        let per_second = 1e9 / samples.median(0);
        let best = 1e9 / samples.best(0);
        let what = format!("flush of {counters} existing counters to SQLite, `synchronous = FULL`");
        let amount = Row::amount(what, "counters/s", per_second).noted(format!("best {best:.0}"));
        rows.push(if counters == 10_000 { amount.promised(Target::AtLeast(900_000.0)) } else { amount });
        rows.push(row);
    }
    Ok(rows)
}

/// Answering queries.
pub(crate) fn queries(quick: bool) -> Result<Vec<Row>> {
    let row = |(question, target): (&Question, f64)| {
        let mut in_sql = InSql(question);
        let samples = Samples::in_turns(rounds(60, quick), 2, |thing| {
            let took = if thing == 0 { question.time() } else { in_sql.time() };
            took.as_secs_f64() * 1e3
        });
        let pair = Pair { countem: 0, baseline: 1, against: in_sql.label() };
        let row = Row::compare(question.label(), "ms", &samples, pair, Meaning::Time);
        row.promised(Target::AtMost(target))
    };
    Ok(Question::all()?.iter().zip([3.0, 1.5, 2.0, 2.0]).map(row).collect())
}

fn often(counters: usize) -> usize {
    if counters < 100_000 { 60 } else { 15 }
}
