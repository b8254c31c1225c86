//! Processes that are killed, and a full disk.

use std::{path::Path, sync::Arc};

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
        .map(|i| counters.get(&format!("round {round} metric {i}")).unwrap().unwrap_or_default())
        .collect();
    assert!(of_round.iter().all(|value| *value == of_round[0]), "a torn batch: {of_round:?}");
    let connection = rusqlite::Connection::open(file(folder)).unwrap();
    let applied = "SELECT coalesce(max(seq), 0) FROM applied WHERE writer = ?1";
    let seq: i64 = connection.query_row(applied, [Writer::new(1, round).as_str()], |row| row.get(0)).unwrap();
    assert_eq!(seq, of_round[0], "the bookkeeping of the batches differs from the counts");
    u64::try_from(seq).unwrap()
}

#[test]
fn killed_process_leaves_acknowledged_and_whole_batches() {
    if let Some(Task { folder, number }) = Task::of_this_process() {
        let store = open(&folder);
        for seq in 1.. {
            block_on(store.apply(&ones(number, seq))).unwrap();
            Task::report(&seq.to_string());
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let this = "crash::killed_process_leaves_acknowledged_and_whole_batches";
    for round in 0..8 {
        // Without another connection, the next process to open the file has to recover the log.
        let other = (round % 2 == 0).then(|| open(folder.path()));
        let mut process = start(this, folder.path(), round);
        let mut acknowledged = 0;
        while acknowledged < 3 + 7 * round {
            acknowledged =
                process.next_report().expect("the process runs until it is killed").parse().unwrap();
        }
        process.kill();
        while let Some(line) = process.next_report() {
            acknowledged = line.parse().unwrap();
        }
        let applied = whole_batches(folder.path(), round);
        assert!(
            applied == acknowledged || applied == acknowledged + 1,
            "acknowledged {acknowledged}, found {applied}"
        );
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
fn full_disk_loses_and_doubles_no_count() {
    if let Some(Task { folder, .. }) = Task::of_this_process() {
        let store = open(&folder);
        let (mut failures, mut in_a_row) = (0, 0);
        let mut seq = 1;
        while in_a_row < 3 {
            // Every batch needs room for new counters.
            match block_on(store.apply(&ones(seq, 1))) {
                Ok(_) => {
                    Task::report(&format!("{failures} {seq}"));
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
    let this = "crash::full_disk_loses_and_doubles_no_count";
    let program = std::env::current_exe().unwrap();
    let limited = command(&program, this, folder.path(), 0);
    let mut shell = std::process::Command::new("sh");
    // No file may grow beyond 600 blocks of 512 bytes: writing further is an error.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""]).arg(limited.get_program());
    shell.args(limited.get_args());
    shell.envs(limited.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let last = Process::start(&mut shell).finish().expect("some batches fit");
    let (failures, acknowledged) = last.split_once(' ').unwrap();
    let (failures, acknowledged): (u64, u64) = (failures.parse().unwrap(), acknowledged.parse().unwrap());
    assert!(failures > 0, "at least one failure was temporary, because emptying the log makes room");

    for seq in 1..=acknowledged {
        assert_eq!(whole_batches(folder.path(), seq), 1, "batch {seq} of {acknowledged}");
    }
    let store = open(folder.path());
    for seq in 1..=acknowledged + 2 {
        block_on(store.apply(&ones(seq, 1))).unwrap();
    }
    drop(store);
    for seq in 1..=acknowledged + 2 {
        assert_eq!(whole_batches(folder.path(), seq), 1, "batch {seq} of {acknowledged} and two more");
    }
}
