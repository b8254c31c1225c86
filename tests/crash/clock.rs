//! A wall clock that is set: a year back, a day forward. No wall clock takes part in an identity, so none is used twice.
//!
//! Shows G3.

use std::collections::BTreeSet;

use countem::{
    Timestamp,
    engine::{Clock, ManualClock},
    journal::JournalReader,
};
use rusqlite::Connection;

use super::{
    books::Books,
    fail_points::{FailPoint, die_at},
    node::Start,
};
use crate::support::CounterFile;

/// When the process counts that is started first, second, and so on.
const TIMES: [&str; 5] = [
    "2026-11-20T12:00:00Z",
    "2025-11-20T12:00:00Z",
    "2026-11-21T12:00:00Z",
    "2026-11-20T12:00:00Z",
    "1971-01-01T00:00:00Z",
];

/// Returns all identities under which the file has something.
fn identities(file: &CounterFile) -> BTreeSet<(String, i64)> {
    let connection = Connection::open(file.path()).unwrap();
    let mut select = connection.prepare("SELECT writer, max(seq) FROM applied GROUP BY writer").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Processes that are killed with batches in doubt, each at another time than the one before.
#[test]
fn clock_set_between_two_processes_costs_nothing() {
    const TASKS: usize = 3;
    let (file, mut books) = (CounterFile::new(), Books::default());
    let journal = file.folder().join("journal");
    let mut epochs = Vec::new();
    for (round, time) in TIMES.into_iter().enumerate() {
        let start = Start::new(&file.uri(), &journal).with("now", time).with("tasks", TASKS).with("flush", 5);
        let start = start.with("prefix", format!("r{round}")).with("die", "after@3");
        books.enter(start.start().wait_for_death("after"), TASKS);
        let summary = JournalReader::open(&journal).unwrap().summary().unwrap();
        epochs.push(summary.writer.epoch());
    }
    assert!(epochs.is_sorted_by(|one, next| one < next), "an epoch was used twice: {epochs:?}");
    die_at(FailPoint::Journal("freeze.after"), 1, &file.uri(), &journal, "end", &mut books);
    super::books::deliver(&super::books::last(&file, &journal));
    assert!(identities(&file).len() >= TIMES.len(), "every process has an identity of its own");
    // Each operation once, each on the day that its own process believed in.
    let mut all = countem::store::Counters::new();
    for (round, time) in TIMES.into_iter().enumerate() {
        let prefix = format!("r{round}.");
        let own = file.rows().into_iter().filter(|((_, bucket), _)| *bucket == time[..10]);
        let own = own.flat_map(|(_, counters)| counters).filter(|(name, _)| name.starts_with(&prefix));
        let before = all.len();
        all.extend(own);
        assert!(all.len() > before, "nothing was counted at {time}");
    }
    books.check_own(&all, "end");
}

/// The clock of a running process is set while batches wait.
#[test]
fn clock_set_under_running_process_costs_nothing() {
    let file = CounterFile::new();
    let journal = file.folder().join("journal");
    let at = |text: &str| -> Timestamp { text.parse().unwrap() };
    let clock = ManualClock::new(at(TIMES[0]));
    let builder = || file.builder().journal(&journal).clock(Clock::Manual(clock.clone()));
    let mut expected = std::collections::BTreeMap::new();
    let mut collector = builder().start_blocking().unwrap();
    for (round, time) in TIMES.into_iter().chain(TIMES).enumerate() {
        clock.set(at(time));
        collector.increment("c", "m", 1);
        collector.blocking().increment_durable("c", "m", 10).unwrap();
        *expected.entry(time[..10].to_owned()).or_insert(0) += 11;
        match round % 3 {
            0 => collector.blocking().flush().unwrap(),
            1 => {
                super::books::deliver(&collector);
                collector = builder().start_blocking().unwrap();
            }
            _ => {}
        }
    }
    super::books::deliver(&collector);
    let stored = file.rows().into_iter().map(|((_, day), counters)| (day, counters["m"]));
    assert_eq!(stored.collect::<std::collections::BTreeMap<_, _>>(), expected);
}
