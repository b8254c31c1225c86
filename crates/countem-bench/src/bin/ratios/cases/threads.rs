//! Increments from one, two and four threads.

use std::{cell::Cell, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use countem_bench::{
    counting::Counting,
    crew::Crew,
    peers::{self, FetchAdd},
    subject::{CallSite, Handle, Increments},
    workload::{KNOWN, WALK, names},
};

use super::rounds;
use crate::{
    row::{Meaning, Pair, Row, Target},
    samples::Samples,
};

const THREADS: [usize; 3] = [1, 2, 4];
const ROUNDS: usize = 60;
/// Length of one measurement: shorter than the slice of time that a busy machine gives away at once.
const SPAN: Duration = Duration::from_millis(3);
/// Lets the router see that several threads count, as it would in the first second of a service.
const WARM_UP: Duration = Duration::from_millis(1500);

/// Several ways of counting, measured in turns.
struct Contest {
    ways: Vec<Arc<dyn Counting>>,
    samples: Samples,
}

impl Contest {
    fn hold(ways: Vec<Arc<dyn Counting>>, quick: bool) -> Result<Self> {
        let max = THREADS.into_iter().max().unwrap_or(1);
        let crew = Crew::new(max, &names(KNOWN.into()));
        let entrants: Vec<_> = ways.into_iter().map(|way| Entrant::new(&crew, way)).collect();
        let times: Vec<_> = entrants.iter().map(Entrant::warm_up).collect();
        let samples = Samples::in_turns(rounds(ROUNDS, quick), THREADS.len() * entrants.len(), |thing| {
            let (threads, way) = (thing / entrants.len(), thing % entrants.len());
            let times = times[way][threads];
            let increments = times as f64 * WALK as f64;
            entrants[way].time(THREADS[threads], times).as_secs_f64() * 1e9 / increments
        });
        entrants.iter().try_for_each(Entrant::check)?;
        Ok(Self { ways: entrants.into_iter().map(|entrant| entrant.way).collect(), samples })
    }

    /// Returns the index of the samples of a way with `THREADS[threads]` threads.
    fn index(&self, way: usize, threads: usize) -> usize {
        threads * self.ways.len() + way
    }

    fn compare(&self, what: &str, ours: usize, other: usize, threads: usize, means: Meaning) -> Row {
        let pair = Pair {
            countem: self.index(ours, threads),
            baseline: self.index(other, threads),
            against: self.ways[other].label().to_owned(),
        };
        Row::compare(format!("{what}, {}", in_words(THREADS[threads])), "ns", &self.samples, pair, means)
    }

    fn scaling(&self, what: &str, ours: usize) -> Row {
        let pair = Pair {
            countem: self.index(ours, 1),
            baseline: self.index(ours, 0),
            against: "the same on one thread".to_owned(),
        };
        Row::scaling(format!("{what}, two threads"), &self.samples, pair, 2)
    }
}

/// One way of counting, and the number of increments made with it.
struct Entrant<'a> {
    crew: &'a Crew,
    way: Arc<dyn Counting>,
    before: Option<u64>,
    made: Cell<u64>,
}

impl<'a> Entrant<'a> {
    fn new(crew: &'a Crew, way: Arc<dyn Counting>) -> Self {
        Self { crew, before: way.counted(), way, made: Cell::new(0) }
    }

    fn time(&self, threads: usize, times: u64) -> Duration {
        self.made.set(self.made.get() + Crew::increments(threads, times));
        self.crew.time(&self.way, threads, times)
    }

    /// Gets everything into motion, and returns for each number of threads how many walks fit into one measurement.
    fn warm_up(&self) -> [u64; THREADS.len()] {
        let mut warm = Duration::ZERO;
        while warm < WARM_UP {
            warm += self.time(THREADS[THREADS.len() - 1], 8);
        }
        THREADS.map(|threads| {
            let shortest = (0..5).map(|_| self.time(threads, 2)).min().unwrap_or_default();
            let times = SPAN.as_nanos() * 2 / shortest.as_nanos().max(1);
            u64::try_from(times).unwrap_or(u64::MAX).clamp(1, 64)
        })
    }

    /// Checks that every timed increment was counted.
    fn check(&self) -> Result<()> {
        if let Some(before) = self.before {
            let (arrived, made) = (self.way.counted().unwrap_or(before) - before, self.made.get());
            ensure!(arrived == made, "{}: {made} increments made, {arrived} counted", self.way.label());
        }
        Ok(())
    }
}

fn in_words(threads: usize) -> &'static str {
    match threads {
        1 => "one thread",
        2 => "two threads",
        _ => "four threads",
    }
}

/// Increments of a known counter against every peer.
pub(crate) fn increments(quick: bool) -> Result<Vec<Row>> {
    let mut ways = peers::all(&names(KNOWN.into()))?;
    let ours = ways.len();
    ways.push(Arc::new(Increments::start()?));
    let contest = Contest::hold(ways, quick)?;
    let what = "increment of 1,000 known counters in random order";
    let mut rows = Vec::new();
    for (threads, count) in THREADS.into_iter().enumerate() {
        for other in 0..ours {
            let means = if other == 0 { Meaning::Time } else { Meaning::Speed };
            let row = contest.compare(what, ours, other, threads, means);
            // The promises are about one thread: two cores say little about the peers' locks.
            let target = match (threads, other) {
                (0, 0) => Some(Target::AtMost(3.2)),
                (0, 1) => Some(Target::AtLeast(2.0)),
                (0, 2) => Some(Target::AtLeast(7.0)),
                (0, 4) => Some(Target::AtLeast(15.0)),
                _ => None,
            };
            rows.push(match target {
                Some(target) => row.promised(target),
                None => row,
            });
        }
        if count == 2 {
            rows.push(contest.scaling(what, ours).promised(Target::AtLeast(1.8)));
        }
    }
    Ok(rows)
}

/// Increments through a handle and through `count!` against one atomic number.
pub(crate) fn handles(quick: bool) -> Result<Vec<Row>> {
    let ways: Vec<Arc<dyn Counting>> =
        vec![Arc::new(FetchAdd::default()), Arc::new(Handle::start()?), Arc::new(CallSite::install()?)];
    let contest = Contest::hold(ways, quick)?;
    let mut rows = Vec::new();
    for (threads, count) in THREADS.into_iter().enumerate() {
        for (ours, what) in [(1, "increment through a handle"), (2, "increment through `count!`")] {
            let row = contest.compare(what, ours, 0, threads, Meaning::Time);
            rows.push(if (threads, ours) == (0, 1) { row.promised(Target::AtMost(1.3)) } else { row });
        }
        if count == 2 {
            rows.push(contest.scaling("increment through a handle", 1));
        }
    }
    Ok(rows)
}
