//! Cost of level `journal`, and its acknowledged increments a second.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use countem_bench::{
    counting::Counting,
    crew::Crew,
    subject::{Increments, Journaled},
    workload::{KNOWN, WALK, names},
};

use super::rounds;
use crate::{
    row::{Meaning, Pair, Row, Target},
    samples::Samples,
};

const ROUNDS: usize = 30;
/// Length of one measurement: ten ticks of the journal, so that their share is in each.
const SPAN: Duration = Duration::from_millis(200);
/// Durable increments of one task in one measurement.
const PER_TASK: u64 = 100;

/// Increments at level `journal` against the same at level `memory`, and acknowledgements.
pub(crate) fn levels(quick: bool) -> Result<Vec<Row>> {
    let crew = Crew::new(2, &names(KNOWN.into()));
    let ways: [Arc<dyn Counting>; 2] = [Arc::new(Increments::start()?), Arc::new(Journaled::start()?)];
    let mut rows = Vec::new();
    for (threads, on) in [(1, "one thread"), (2, "two threads")] {
        let once = ways.iter().map(|way| crew.time(way, threads, 64)).min().unwrap_or_default() / 64;
        let times = u64::try_from(SPAN.as_nanos() / once.as_nanos().max(1))?;
        let samples = Samples::in_turns(rounds(ROUNDS, quick), ways.len(), |way| {
            let took = crew.time(&ways[way], threads, times);
            took.as_secs_f64() * 1e9 / (times as f64 * WALK as f64)
        });
        let pair = Pair { countem: 1, baseline: 0, against: "the same at level `memory`".to_owned() };
        let what = format!("increment of 1,000 known counters at level `journal`, {on}");
        let row = Row::compare(what, "ns", &samples, pair, Meaning::Time);
        // Where every core counts, the journal's thread takes its time from them.
        rows.push(if threads == 1 { row.promised(Target::AtMost(1.1)) } else { row });
    }
    drop(ways);
    let journaled = Journaled::start()?;
    for (tasks, target) in [(1, None), (64, Some(Target::AtLeast(20_000.0))), (1_000, None)] {
        let samples = Samples::in_turns(rounds(ROUNDS, quick), 1, |_| {
            journaled.acknowledge(tasks, PER_TASK).as_secs_f64() / (tasks as f64 * PER_TASK as f64)
        });
        let from = if tasks == 1 { "one task".to_owned() } else { format!("{tasks} tasks") };
        let what = format!("`increment_durable` from {from}, acknowledged after an `fsync`");
        let row = Row::amount(what, "/s", 1.0 / samples.median(0));
        rows.push(match target {
            Some(target) => row.promised(target),
            None => row,
        });
    }
    Ok(rows)
}
