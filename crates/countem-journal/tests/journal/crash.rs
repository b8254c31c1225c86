//! Processes killed at random and at every fail point, and a store that checks what arrives.
//!
//! Shows G10.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{self, Command, Stdio},
};

use countem_core::{Batch, BatchId, Deltas, Table};
use countem_journal::{Journal, Record, fail_points::arm};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::support::*;

const DIR: &str = "COUNTEM_JOURNAL_TEST_CRASH";
const POINTS: &str = "COUNTEM_JOURNAL_TEST_FAIL_POINTS";

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
pub(crate) fn spawn(dir: &Path, points: &str, stdout: Stdio) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["crash::counting_process_delivers_everything", "--exact", "--nocapture"])
        .env(DIR, dir)
        .env(POINTS, points)
        .stdout(stdout)
        .stderr(Stdio::null());
    Child::spawn(&mut command)
}

/// Runs as an ordinary test, and as the process that other tests kill.
#[test]
fn counting_process_delivers_everything() {
    if let Some(dir) = env::var_os(DIR) {
        let (dir, points) = (Path::new(&dir), env::var(POINTS).unwrap());
        if !points.is_empty() {
            arm(dir, &points);
        }
        return count(dir, u64::MAX);
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
    let (journal, recovered) = Journal::open(config(dir)).unwrap();
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

/// The store: a log of the batches that arrive, each with its length. It survives a kill.
fn send(dir: &Path, batch: &Batch) {
    let body = batch.encode();
    let mut message = u64::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    message.extend(body);
    let mut store = File::options().append(true).create(true).open(dir.join("store")).unwrap();
    store.write_all(&message).unwrap();
}

/// Opens what the dead have left, delivers it, and returns what the store has then, each identity counted once.
fn deliver(dir: &Path) -> BTreeMap<String, i64> {
    let (journal, recovered) = Journal::open(config(dir)).unwrap();
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

/// The lines that a process printed before it died.
#[derive(Default)]
struct Said {
    tried: Vec<String>,
    acknowledged: Vec<String>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        // The test harness prints on the same line before the first one.
        if let Some((_, name)) = line.split_once("try ") {
            self.tried.push(name.to_owned());
        } else if let Some((_, name)) = line.split_once("ack ") {
            self.acknowledged.push(name.to_owned());
        }
    }
}

/// Runs a process until it has acknowledged `operations` or dies by itself, and kills it.
fn run(dir: &Path, points: &str, operations: usize, said: &mut Said) {
    let goal = said.acknowledged.len() + operations;
    let mut child = spawn(dir, points, Stdio::piped());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    while said.acknowledged.len() < goal {
        match lines.next() {
            Some(Ok(line)) => said.hear(&line),
            _ => break,
        }
    }
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    // Lines printed before the kill arrived count as well.
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
fn random_kills_store_every_acknowledged_operation_once() {
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
fn kills_at_commits_store_every_acknowledged_operation_once() {
    for point in [
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
        for passes in [0, 1, 4] {
            run(dir.path(), &format!("{point}={passes}*off->1*return(abort)"), 40, &mut said);
            // And again while it recovers from that.
            run(dir.path(), "open.before=return(abort)", 1, &mut said);
            run(dir.path(), "open.after=return(abort)", 1, &mut said);
        }
        run(dir.path(), "", 10, &mut said);
        check(dir.path(), &said);
    }
}

#[test]
fn kill_during_checkpoint_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    // With commits of a few pages each, the log is moved after some hundred operations.
    run(dir.path(), "checkpoint=return(abort)", 1000, &mut said);
    assert!(said.acknowledged.len() < 1000, "the log was never moved");
    fs::metadata(file(dir.path())).unwrap();
    check(dir.path(), &said);
}
