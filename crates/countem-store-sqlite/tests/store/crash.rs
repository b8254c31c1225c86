//! Processes that end in the middle of their work, and a disk that does not take any more.

use std::sync::Arc;

use std::path::Path;

use countem_core::{Batch, Writer};
use countem_store::{ErrorKind, Store as _};

use crate::{
    process::{Process, Task, command, start},
    support::{batch, block_on, counters, file, open},
};

const METRICS: i64 = 300;

/// Adds one to each of many counters: a torn batch would be seen.
fn ones(round: u64, seq: u64) -> Arc<Batch> {
    let deltas: Vec<_> = (0..METRICS).map(|i| (format!("round {round} metric {i}"), 1)).collect();
    batch(&Writer::new(1, round), seq, &deltas)
}

/// Returns how many of the batches of `round` are in the file, having checked that they are whole.
fn whole_batches(folder: &Path, round: u64) -> u64 {
    let store = open(folder);
    let counters = block_on(counters(&store));
    let of_round: Vec<i64> = (0..METRICS)
        .map(|i| counters.get(&format!("round {round} metric {i}")).copied().unwrap_or_default())
        .collect();
    assert!(of_round.iter().all(|value| *value == of_round[0]), "a torn batch: {of_round:?}");
    let connection = rusqlite::Connection::open(file(folder)).unwrap();
    let applied = "SELECT coalesce(max(seq), 0) FROM applied WHERE writer = ?1";
    let seq: i64 = connection.query_row(applied, [Writer::new(1, round).as_str()], |row| row.get(0)).unwrap();
    assert_eq!(seq, of_round[0], "what is known of the batches differs from what was counted");
    u64::try_from(seq).unwrap()
}

#[test]
fn a_killed_process_leaves_every_batch_it_was_told_of_and_no_torn_one() {
    if let Some(Task { folder, number }) = Task::given() {
        let store = open(&folder);
        for seq in 1.. {
            block_on(store.apply(&ones(number, seq))).unwrap();
            Task::tell(&seq.to_string());
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let this = "crash::a_killed_process_leaves_every_batch_it_was_told_of_and_no_torn_one";
    for round in 0..8 {
        // Without another connection the next one to open the file has to recover the log.
        let other = (round % 2 == 0).then(|| open(folder.path()));
        let mut process = start(this, folder.path(), round);
        let mut told = 0;
        while told < 3 + 7 * round {
            told = process.next_told().expect("the process goes on for ever").parse().unwrap();
        }
        process.kill();
        while let Some(last) = process.next_told() {
            told = last.parse().unwrap();
        }
        let applied = whole_batches(folder.path(), round);
        assert!(applied == told || applied == told + 1, "told of {told}, found {applied}");
        drop(other);

        // A new process does not know how far the old one came, and sends everything once more.
        let store = open(folder.path());
        for seq in 1..=applied + 2 {
            block_on(store.apply(&ones(round, seq))).unwrap();
        }
        drop(store);
        assert_eq!(whole_batches(folder.path(), round), applied + 2);
    }
}

#[cfg(unix)]
#[test]
fn a_disk_that_takes_no_more_costs_no_count_and_doubles_none() {
    if let Some(Task { folder, .. }) = Task::given() {
        let store = open(&folder);
        let (mut failures, mut in_a_row) = (0, 0);
        let mut seq = 1;
        while in_a_row < 3 {
            // Every batch needs room for new counters.
            match block_on(store.apply(&ones(seq, 1))) {
                Ok(_) => {
                    Task::tell(&format!("{failures} {seq}"));
                    (seq, in_a_row) = (seq + 1, 0);
                }
                Err(error) => {
                    let kind = error.kind();
                    assert!(matches!(kind, ErrorKind::NotApplied | ErrorKind::InDoubt), "{kind:?}: {error}");
                    (failures, in_a_row) = (failures + 1, in_a_row + 1);
                }
            }
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let this = "crash::a_disk_that_takes_no_more_costs_no_count_and_doubles_none";
    let program = std::env::current_exe().unwrap();
    let limited = command(&program, this, folder.path(), 0);
    let mut shell = std::process::Command::new("sh");
    // No file may grow beyond 600 blocks of 512 bytes: writing further is an error.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""]).arg(limited.get_program());
    shell.args(limited.get_args());
    shell.envs(limited.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let last = Process::start(&mut shell).finish().expect("some batches fit");
    let (failures, told) = last.split_once(' ').unwrap();
    let (failures, told): (u64, u64) = (failures.parse().unwrap(), told.parse().unwrap());
    assert!(failures > 0, "a failure was got over, because emptying the log makes room");

    for seq in 1..=told {
        assert_eq!(whole_batches(folder.path(), seq), 1, "batch {seq} of {told}");
    }
    let store = open(folder.path());
    for seq in 1..=told + 2 {
        block_on(store.apply(&ones(seq, 1))).unwrap();
    }
    drop(store);
    for seq in 1..=told + 2 {
        assert_eq!(whole_batches(folder.path(), seq), 1, "batch {seq} of {told} and two more");
    }
}
