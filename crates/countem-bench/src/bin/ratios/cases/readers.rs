//! Increments while many tasks read.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use countem_bench::{
    counting::Counting,
    crew::Crew,
    readers::Readers,
    subject::Increments,
    workload::{KNOWN, WALK, names},
};

use super::rounds;
use crate::{
    row::{Meaning, Pair, Row, Target},
    samples::Samples,
};

const ROUNDS: usize = 20;
/// Length of one measurement: long enough for many reads.
const SPAN: Duration = Duration::from_millis(300);
const THREADS: usize = 2;
const TASKS: u32 = 500;

/// Increments of two threads beside reading tasks, against the same without them.
pub(crate) fn beside(quick: bool) -> Result<Vec<Row>> {
    let crew = Crew::new(THREADS, &names(KNOWN.into()));
    let increments = Increments::start()?;
    let collector = increments.collector().clone();
    let way: Arc<dyn Counting> = Arc::new(increments);
    let once = (0..5).map(|_| crew.time(&way, THREADS, 64)).min().unwrap_or_default() / 64;
    let times = u64::try_from(SPAN.as_nanos() / once.as_nanos().max(1))?;

    let mut rows = Vec::new();
    let cases = [("each once a second", Duration::from_secs(1)), ("each without a pause", Duration::ZERO)];
    for (how, pause) in cases {
        let readers = Readers::start(&collector, TASKS, pause);
        let samples = Samples::in_turns(rounds(ROUNDS, quick), 2, |thing| {
            if thing == 1 {
                readers.resume();
            }
            let took = crew.time(&way, THREADS, times);
            readers.pause();
            took.as_secs_f64() * 1e9 / (times as f64 * WALK as f64)
        });
        let pair = Pair { countem: 1, baseline: 0, against: "the same without readers".to_owned() };
        let what = format!("increment on two threads while {TASKS} tasks `get_counters`, {how}");
        let row = Row::compare(what, "ns", &samples, pair, Meaning::Speed);
        rows.push(row.noted(format!("{} reads", readers.reads())).promised(Target::AtLeast(0.9)));
    }
    Ok(rows)
}
