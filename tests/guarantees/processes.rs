//! Several processes on one file, and processes that are killed.
//!
//! Shows G7 and G8.

use std::{collections::BTreeSet, time::Duration};

use countem::store::Counters;
use rand::Rng;

use crate::support::{CounterFile, Program, counters};

const NODE: &str = env!("CARGO_BIN_EXE_node");

#[test]
fn processes_that_share_one_file_add_up() {
    const PROCESSES: i64 = 4;
    const THREADS: i64 = 2;
    const EACH: i64 = 5_000;
    let file = CounterFile::new();
    let (threads, each) = (THREADS.to_string(), EACH.to_string());
    // They also race for creating the file.
    let nodes: Vec<_> = (0..PROCESSES)
        .map(|node| Program::start(NODE, &["count", &file.uri(), &format!("node-{node}"), &threads, &each]))
        .collect();
    for node in nodes {
        let increments = 2 * THREADS * EACH;
        assert_eq!(node.finish(), [format!("accepted {increments} applied {increments}")]);
    }
    let mut expected = counters(&[("shared", PROCESSES * THREADS * EACH)]);
    expected.extend((0..PROCESSES).map(|node| (format!("node-{node}"), THREADS * EACH)));
    assert_eq!(file.counters("load"), expected);
    assert_eq!(file.writers(), 0, "writers that ended cleanly leave nothing behind");
}

const ROUNDS: usize = 8;
const THREADS: usize = 4;

/// Starts the node of each round and kills it at a random moment. Returns the operations that it had acknowledged.
fn kill_at_random(start: impl Fn(&str) -> Program) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut node = start(&format!("r{round}"));
        let most = rand::rng().random_range(1..120);
        println!("round {round}: killed after {most} acknowledgements");
        acknowledged.extend((0..most).map(|_| node.line().expect("the process goes on until it is killed")));
        node.child.kill().unwrap();
        // Lines that it had written before it died are acknowledgements, too.
        while let Some(line) = node.line() {
            acknowledged.insert(line);
        }
    }
    acknowledged
}

/// Checks that every acknowledged operation was counted once, any other at most once. Returns the shared count.
fn assert_exactly_once(mut stored: Counters, acknowledged: &BTreeSet<String>) -> i64 {
    let shared = stored.remove("shared").unwrap().unwrap();
    let twice: Vec<_> = stored.iter().filter(|(_, value)| *value != Ok(1)).collect();
    assert!(twice.is_empty(), "counted more than once: {twice:?}");
    let lost: Vec<_> = acknowledged.iter().filter(|own| stored.get(own) == Ok(None)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    // Every thread of a killed process had at most one operation that was not acknowledged yet.
    let least = i64::try_from(acknowledged.len()).unwrap();
    let most = least + i64::try_from(ROUNDS * THREADS).unwrap();
    let operations = i64::try_from(stored.len()).unwrap();
    assert!((least..=most).contains(&operations), "{operations} operations, {least} acknowledged");
    assert!((least..=most).contains(&shared), "counted {shared} times, {least} acknowledged");
    shared
}

#[test]
fn acknowledged_increment_survives_kill_9_exactly_once() {
    let file = CounterFile::new();
    let threads = THREADS.to_string();
    let acknowledged =
        kill_at_random(|round| Program::start(NODE, &["durable", &file.uri(), round, &threads]));
    let shared = assert_exactly_once(file.counters("operations"), &acknowledged);

    // The next process goes on where the killed ones ended.
    let collector = file.builder().start_blocking().unwrap();
    collector.increment("operations", "shared", 1);
    assert!(collector.blocking().shutdown().is_complete());
    assert_eq!(file.counters("operations")["shared"], shared + 1);
}

#[test]
fn journaled_increment_survives_kill_9_exactly_once() {
    let file = CounterFile::new();
    let journal = file.folder().join("journal");
    let (threads, folder) = (THREADS.to_string(), journal.to_str().unwrap());
    let acknowledged =
        kill_at_random(|round| Program::start(NODE, &["journaled", &file.uri(), round, &threads, folder]));
    // What the killed process had not stored is delivered by the next one.
    let collector = file.builder().journal(&journal).start_blocking().unwrap();
    assert!(collector.blocking().shutdown().is_complete());
    assert_exactly_once(file.counters("operations"), &acknowledged);
}

#[test]
fn killed_process_costs_the_others_nothing() {
    let file = CounterFile::new();
    let mut killed = Program::start(NODE, &["durable", &file.uri(), "killed", "2"]);
    assert!(killed.line().is_some());
    let survivors: Vec<_> = (0..2)
        .map(|node| Program::start(NODE, &["count", &file.uri(), &format!("node-{node}"), "2", "20000"]))
        .collect();
    for _ in 0..5 {
        assert!(killed.line().is_some());
    }
    killed.child.kill().unwrap();
    for survivor in survivors {
        assert_eq!(survivor.finish(), ["accepted 80000 applied 80000"]);
    }
    let expected = counters(&[("node-0", 40_000), ("node-1", 40_000), ("shared", 80_000)]);
    assert_eq!(file.counters("load"), expected);
}

#[test]
fn frozen_process_blocks_others_and_doubles_nothing() {
    let file = CounterFile::new();
    let mut frozen = Program::start(NODE, &["durable", &file.uri(), "frozen", "2"]);
    let mut acknowledged: BTreeSet<String> = (0..20).map(|_| frozen.line().unwrap()).collect();
    for _ in 0..10 {
        frozen.child.freeze().unwrap();
        // It may have stopped in the middle of a transaction, so others may have to wait. They do not get stuck.
        let other = Program::start(NODE, &["count", &file.uri(), "other", "1", "10"]);
        frozen.child.thaw().unwrap();
        assert_eq!(other.finish(), ["accepted 20 applied 20"]);
        acknowledged.extend((0..5).map(|_| frozen.line().unwrap()));
    }
    frozen.child.kill().unwrap();
    frozen.child.wait_at_most(Duration::from_secs(10)).unwrap();
    let stored = file.rows().into_iter().find(|((name, _), _)| name == "operations").unwrap().1;
    assert!(acknowledged.iter().all(|own| stored.get(own) == Ok(Some(1))));
    assert!(stored.iter().all(|(own, value)| own == "shared" || value == Ok(1)));
    assert_eq!(file.counters("load"), counters(&[("other", 100), ("shared", 100)]));
}
