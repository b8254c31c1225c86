//! Processes that are killed, at random and at every interesting moment, and a store that keeps the books.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{self, Command, Stdio},
};

use countem_core::{Batch, BatchId, Deltas, Table};
use countem_journal::{Journal, Record};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::support::*;

const DIR: &str = "COUNTEM_JOURNAL_TEST_CRASH";

/// A process that is killed when the guard is dropped.
pub(crate) struct Child(pub(crate) process::Child);

impl Child {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts a process that counts, freezes, sends and resolves in `dir` until it is killed or dies at a fail point.
pub(crate) fn spawn(dir: &Path, fail: &str, stdout: Stdio) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["crash::a_counting_process_delivers_everything", "--exact", "--nocapture"])
        .env(DIR, dir)
        .env("COUNTEM_JOURNAL_FAIL", fail)
        .stdout(stdout)
        .stderr(Stdio::null());
    Child::spawn(&mut command)
}

/// Runs as an ordinary test of a process that nobody kills, and as the process that others kill.
#[test]
fn a_counting_process_delivers_everything() {
    if let Some(dir) = env::var_os(DIR) {
        return count(Path::new(&dir), u64::MAX);
    }
    let dir = tempfile::tempdir().unwrap();
    count(dir.path(), 300);
    let stored = deliver(dir.path());
    assert_eq!(stored.len(), 301);
    assert_eq!(stored["shared"], 300);
    assert!(stored.iter().all(|(metric, n)| metric == "shared" || *n == 1));
}

/// Counts `operations`, each on a counter of its own and on a shared one, and prints the acknowledged ones.
fn count(dir: &Path, operations: u64) {
    let mut random = StdRng::seed_from_u64(process::id().into());
    let (journal, recovered) = Journal::open(options(dir)).unwrap();
    let writer = journal.writer();
    let mut pending = Table::new();
    for batch in recovered.frozen {
        send(dir, &batch);
        journal.resolve(batch.id(), Vec::new(), drop);
    }
    let merge = |pending: &mut Table, deltas: &Deltas| {
        deltas.iter().for_each(|delta| pending.merge(delta).unwrap());
    };
    recovered.pending.iter().for_each(|(_, deltas)| merge(&mut pending, deltas));
    let mut seq = 0;
    for operation in 0..operations {
        let name = format!("{writer}-{operation}");
        let fresh = deltas([(name.as_str(), 1), ("shared", 1)]);
        merge(&mut pending, &fresh);
        println!("try {name}");
        journal.record_blocking(Record { lanes: vec![(0, fresh)], ..Record::default() }).unwrap();
        println!("ack {name}");
        if random.random_ratio(1, 5) {
            seq += 1;
            let id = BatchId { writer: writer.clone(), lane: 0, seq };
            let batch = Batch::new(id, pending.drain());
            journal.freeze_blocking(0, std::slice::from_ref(&batch)).unwrap();
            send(dir, &batch);
            journal.resolve(batch.id(), Vec::new(), drop);
        }
    }
}

/// The store: every batch that arrives is written down, whole, with its length. What is written survives a kill.
fn send(dir: &Path, batch: &Batch) {
    let body = batch.encode();
    let mut message = u64::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    message.extend(body);
    let mut store = File::options().append(true).create(true).open(dir.join("store")).unwrap();
    store.write_all(&message).unwrap();
}

/// Opens what the dead have left, delivers it, and returns what the store has then, each identity counted once.
fn deliver(dir: &Path) -> BTreeMap<String, i64> {
    let (journal, recovered) = Journal::open(options(dir)).unwrap();
    recovered.frozen.iter().for_each(|batch| send(dir, batch));
    for (lane, deltas) in recovered.pending {
        let id = BatchId { writer: journal.writer(), lane, seq: 1 };
        let batch = Batch::new(id, deltas);
        journal.freeze_blocking(lane, std::slice::from_ref(&batch)).unwrap();
        send(dir, &batch);
        journal.resolve_blocking(batch.id(), Vec::new()).unwrap();
    }
    recovered.frozen.iter().for_each(|batch| journal.resolve_blocking(batch.id(), Vec::new()).unwrap());
    journal.reader().unwrap().verify().unwrap();

    let mut applied: BTreeMap<BatchId, Vec<u8>> = BTreeMap::new();
    let mut stored = BTreeMap::new();
    let mut log = Vec::new();
    File::open(dir.join("store")).and_then(|mut store| store.read_to_end(&mut log)).ok();
    let mut rest = log.as_slice();
    while let Some((length, tail)) = rest.split_at_checked(8) {
        let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
        // A process that dies while it sends has not sent.
        let Some((body, tail)) = tail.split_at_checked(length) else { break };
        rest = tail;
        let batch = Batch::decode(body).unwrap();
        match applied.get(batch.id()) {
            Some(before) => assert_eq!(before, body, "one identity, two contents: {}", batch.id()),
            None => {
                for delta in batch.deltas() {
                    *stored.entry(delta.metric.to_owned()).or_default() += delta.n;
                }
                applied.insert(batch.id().clone(), body.to_vec());
            }
        }
    }
    stored
}

/// What a process said before it died.
#[derive(Default)]
struct Said {
    tried: Vec<String>,
    acknowledged: Vec<String>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        // Before the first line, the test harness says a word of its own on the same line.
        if let Some((_, name)) = line.split_once("try ") {
            self.tried.push(name.to_owned());
        } else if let Some((_, name)) = line.split_once("ack ") {
            self.acknowledged.push(name.to_owned());
        }
    }
}

/// Lets a process run until it has acknowledged `operations`, or until it dies by itself, and kills it then.
fn run(dir: &Path, fail: &str, operations: usize, said: &mut Said) {
    let goal = said.acknowledged.len() + operations;
    let mut child = spawn(dir, fail, Stdio::piped());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    while said.acknowledged.len() < goal {
        match lines.next() {
            Some(Ok(line)) => said.hear(&line),
            _ => break,
        }
    }
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    // What it said before the kill reached it counts as well.
    lines.map_while(Result::ok).for_each(|line| said.hear(&line));
}

fn check(dir: &Path, said: &Said) {
    let stored = deliver(dir);
    for name in &said.acknowledged {
        assert_eq!(stored.get(name), Some(&1), "acknowledged `{name}`");
    }
    for name in &said.tried {
        assert!(stored.get(name).is_none_or(|n| *n == 1), "`{name}` is stored {:?} times", stored[name]);
    }
    let each: i64 = stored.iter().filter(|(metric, _)| *metric != "shared").map(|(_, n)| *n).sum();
    assert_eq!(stored.get("shared").copied().unwrap_or_default(), each);
}

#[test]
fn killed_at_random_moments_every_acknowledged_operation_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let seed = env::var("COUNTEM_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("COUNTEM_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut said = Said::default();
    let rounds = env::var("COUNTEM_ROUNDS").map_or(40, |rounds| rounds.parse().unwrap());
    for _ in 0..rounds {
        let operations = random.random_range(0..60);
        run(dir.path(), "", operations, &mut said);
    }
    assert!(said.acknowledged.len() > 100);
    check(dir.path(), &said);
}

#[test]
fn killed_at_every_commit_every_acknowledged_operation_is_stored_once() {
    for place in [
        "open.before",
        "open.after",
        "record.before",
        "record.after",
        "freeze.before",
        "freeze.after",
        "resolve.before",
        "resolve.after",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut said = Said::default();
        run(dir.path(), "", 10, &mut said);
        for nth in [1, 2, 5] {
            run(dir.path(), &format!("{place}=abort@{nth}"), 40, &mut said);
            // And again while it recovers from that.
            run(dir.path(), "open.before=abort@1", 1, &mut said);
            run(dir.path(), "open.after=abort@1", 1, &mut said);
        }
        run(dir.path(), "", 10, &mut said);
        check(dir.path(), &said);
    }
}

#[test]
fn killed_while_the_log_is_moved_into_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    // With commits of a few pages each, the log is moved after some hundred operations.
    run(dir.path(), "checkpoint=abort@1", 1000, &mut said);
    assert!(said.acknowledged.len() < 1000, "the log was never moved");
    fs::metadata(file(dir.path())).unwrap();
    check(dir.path(), &said);
}
