//! Random histories of writers, rotations and runs with `--once`: every line is counted exactly once.
//!
//! Left out, because content alone cannot decide them: a line cut by `copytruncate`, and a file that is replaced while it holds
//! nothing but lines that its successor begins with.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use countem_testkit::{Server, in_own_database, require_server};

use crate::{
    generator::Dice,
    harness::{Counters, Ran, Sandbox, finish, interrupt},
    ingest::gzip,
};

/// The first line of every file.
const BANNER: &str = "1789000000\tbanner\n";

/// The logs, each with its rotated files.
const LOGS: [&str; 2] = ["r0", "r1"];

/// A folder of logs, and every line that was written.
struct History {
    dice: Dice,
    sandbox: Sandbox,
    store: String,
    /// Content of each file.
    files: BTreeMap<String, String>,
    lines: usize,
    banners: i64,
    /// The counters that a run uses; the second one is added later.
    counters: usize,
    steps: Vec<String>,
}

impl History {
    fn new(seed: u64, store: &str) -> Self {
        let sandbox = Sandbox::new();
        let (files, steps) = (BTreeMap::new(), vec![format!("COUNTEM_SEED={seed}")]);
        let store = store.to_owned();
        Self { dice: Dice::new(seed), sandbox, store, files, lines: 0, banners: 0, counters: 1, steps }
    }

    /// Takes random steps, then counts all that is there.
    fn run(mut self) {
        for _ in 0..self.dice.roll(14) + 4 {
            match self.dice.roll(22) {
                0..8 => self.write(),
                8 | 9 => self.rename(),
                10 | 11 => self.copy_and_truncate(true),
                12 => self.compress(),
                13 => self.replace(),
                14 => self.follow(),
                15 => self.counters = 2,
                16 => self.run_killed(),
                17 => self.run_twice(),
                18 => self.run_on_late_copy(),
                _ => self.run_whole(),
            }
        }
        self.counters = 2;
        LOGS.iter().for_each(|log| self.end_line(log));
        self.run_whole();
        self.run_whole();
    }

    fn note(&mut self, step: impl Into<String>) {
        self.steps.push(step.into());
    }

    fn log(&mut self) -> &'static str {
        LOGS[self.dice.roll(LOGS.len())]
    }

    fn set(&mut self, name: &str, content: String) {
        self.sandbox.write(name, &content);
        self.files.insert(name.to_owned(), content);
    }

    fn append(&mut self, name: &str, text: &str) {
        self.sandbox.append(name, text);
        self.files.entry(name.to_owned()).or_default().push_str(text);
    }

    fn line(&mut self) -> String {
        self.lines += 1;
        let pad = "x".repeat(self.dice.roll(4) * self.dice.roll(150));
        format!("1789000000\tm{}-{pad}\n", self.lines)
    }

    /// Ends a line that was cut.
    fn end_line(&mut self, name: &str) {
        if self.files.get(name).is_some_and(|content| !content.is_empty() && !content.ends_with('\n')) {
            self.append(name, "-end\n");
        }
    }

    /// Appends lines to a log, or late to the file that it was renamed to, and perhaps cuts the last one.
    fn write(&mut self) {
        let log = self.log();
        let is_late = self.dice.roll(5) == 0 && self.files.contains_key(&format!("{log}.1"));
        let name = if is_late { format!("{log}.1") } else { log.to_owned() };
        self.note(format!("write to {name}"));
        self.end_line(&name);
        let mut text = String::new();
        if self.files.get(&name).is_none_or(String::is_empty) {
            text.push_str(BANNER);
            self.banners += 1;
        }
        for _ in 0..1 + self.dice.roll(3) * self.dice.roll(30) {
            text.push_str(&self.line());
        }
        if self.dice.roll(4) == 0 && !is_late {
            // Behind the name of the line, which stays unique.
            text.truncate(text.rfind('-').unwrap_or(text.len()) + 1);
        }
        self.append(&name, &text);
    }

    /// Moves the rotated files of a log out of the way of the next one.
    fn shift(&mut self, log: &str) {
        self.end_line(&format!("{log}.1"));
        for number in (1..20).rev() {
            for end in ["", ".gz"] {
                let (from, to) = (format!("{log}.{number}{end}"), format!("{log}.{}{end}", number + 1));
                if let Some(content) = self.files.remove(&from) {
                    self.sandbox.rename(&from, &to);
                    self.files.insert(to, content);
                }
            }
        }
    }

    fn rename(&mut self) {
        let log = self.log();
        if self.files.get(log).is_none_or(String::is_empty) {
            return;
        }
        self.note(format!("rename {log}"));
        self.shift(log);
        let to = format!("{log}.1");
        self.sandbox.rename(log, &to);
        let content = self.files.remove(log).unwrap_or_default();
        self.files.insert(to.clone(), content);
        // A line that was cut is ended by the writer, which still has the file.
        self.end_line(&to);
        if self.dice.roll(2) == 0 {
            self.set(log, String::new());
        }
    }

    fn copy_and_truncate(&mut self, may_be_met: bool) {
        let log = self.log();
        if self.files.get(log).is_none_or(String::is_empty) {
            return;
        }
        self.note(format!("copytruncate {log}"));
        self.end_line(log);
        self.shift(log);
        let (to, content) = (format!("{log}.1"), self.files[log].clone());
        if may_be_met && self.dice.roll(3) == 0 {
            // A run meets the copy in the making. The lines in it are those of the log.
            let made = self.dice.roll(content.len()) + 1;
            self.sandbox.write(&to, &content[..made]);
            self.note(format!("with {made} bytes copied"));
            self.run_with(&[to.as_str()]);
            self.check();
        }
        self.set(&to, content);
        self.set(log, String::new());
    }

    fn compress(&mut self) {
        let rotated: Vec<_> = self.files.keys().filter(|name| name.contains('.')).cloned().collect();
        let plain: Vec<_> = rotated.into_iter().filter(|name| !name.ends_with(".gz")).collect();
        if plain.is_empty() {
            return;
        }
        let name = plain[self.dice.roll(plain.len())].clone();
        self.note(format!("gzip {name}"));
        self.end_line(&name);
        let archive = format!("{name}.gz");
        self.sandbox.write(&archive, gzip(self.files[&name].as_bytes()));
        if self.dice.roll(2) == 0 {
            // Both are there for a moment.
            self.run_with(&[archive.as_str()]);
            self.check();
        }
        let content = self.files.remove(&name).unwrap_or_default();
        fs::remove_file(self.sandbox.path(&name)).unwrap();
        self.files.insert(archive, content);
    }

    /// A new file with the content of the log takes its place, as `rsync` does.
    fn replace(&mut self) {
        let log = self.log();
        let Some(content) = self.files.get(log).cloned() else { return };
        self.note(format!("replace {log}"));
        self.sandbox.write(".new", content);
        self.sandbox.rename(".new", log);
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let mut args = vec!["ingest", "-f", "tsv", "--time-field", "1", "--once", "--store", &self.store];
        args.extend(["-c", "n:{2}"]);
        if self.counters > 1 {
            args.extend(["-c", "k:{2}"]);
        }
        // Many batches.
        args.extend(["--set", "flush.batch_counters=7"]);
        args.extend(more);
        args.into_iter().map(str::to_owned).collect()
    }

    /// Returns the arguments for a run on all files and `more`, in random order.
    fn all(&mut self, more: &[&str]) -> Vec<String> {
        let mut names: Vec<String> =
            self.files.keys().cloned().chain(more.iter().map(ToString::to_string)).collect();
        for at in (1..names.len()).rev() {
            names.swap(at, self.dice.roll(at + 1));
        }
        self.note(format!("run on {}", names.join(" ")));
        self.args(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn run_with(&mut self, more: &[&str]) {
        let args = self.all(more);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let ran = self.sandbox.run(&args);
        assert_eq!(ran.code, 0, "{}\n{}", ran.err, self.steps.join("\n"));
    }

    fn run_whole(&mut self) {
        if !self.files.is_empty() {
            self.run_with(&[]);
            self.check();
        }
    }

    fn run_killed(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let args = self.all(&[]);
        let mut child = self.sandbox.start(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let after = Duration::from_millis(self.dice.roll(60).try_into().unwrap());
        self.note(format!("killed after {after:?}"));
        std::thread::sleep(after);
        child.kill().unwrap();
    }

    /// A second machine with the same store has a copy of what was counted, whole or shorter.
    fn run_on_late_copy(&mut self) {
        let names: Vec<_> = self.files.keys().filter(|name| !self.files[*name].is_empty()).cloned().collect();
        if names.is_empty() {
            return;
        }
        self.run_whole();
        let name = names[self.dice.roll(names.len())].clone();
        let content = &self.files[&name];
        let len = self.dice.roll(content.len()) + 1;
        let copy = content[..len].to_owned();
        self.note(format!("{len} bytes of {name} on a second machine"));
        fs::create_dir_all(self.sandbox.path("second")).unwrap();
        let to = format!("second/{}", LOGS[usize::from(name.starts_with(LOGS[1]))]);
        self.sandbox.write("second/new", copy);
        self.sandbox.rename("second/new", &to);
        let args = self.args(&[&to]);
        let ran = self.sandbox.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        self.assert_complete(&ran);
        self.check();
    }

    /// Checks that a run counted all, or said that a file may be a copy that lags behind.
    fn assert_complete(&self, ran: &Ran) {
        let lags = ran.code == 6 && ran.err.contains("waits until it is longer");
        assert!(ran.code == 0 || lags, "exit {}: {}\n{}", ran.code, ran.err, self.steps.join("\n"));
    }

    fn run_twice(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let both = [self.all(&[]), self.all(&[])];
        self.note("at the same time");
        let start =
            |args: &Vec<String>| self.sandbox.start(&args.iter().map(String::as_str).collect::<Vec<_>>());
        for child in both.iter().map(start).collect::<Vec<_>>() {
            let ran = finish(child);
            let is_refused = ran.err.contains("another `ingest --once`");
            assert!(ran.code == 0 || is_refused, "exit {}: {}\n{}", ran.code, ran.err, self.steps.join("\n"));
        }
    }

    fn follow(&mut self) {
        let args = self.args(&[LOGS[0], LOGS[1], "--follow"]);
        self.note("follow");
        let follower = self.sandbox.start(&args.iter().map(String::as_str).collect::<Vec<_>>());
        for _ in 0..self.dice.roll(4) {
            std::thread::sleep(Duration::from_millis(self.dice.roll(400).try_into().unwrap()));
            match self.dice.roll(6) {
                0 => self.rename(),
                1 => self.replace(),
                2 => self.copy_and_truncate(false),
                _ => self.write(),
            }
        }
        match self.dice.roll(3) {
            0 => drop(follower),
            _ => {
                // The signal may come before the process listens to it.
                let ran = interrupt(follower);
                if ran.code != -1 {
                    self.assert_complete(&ran);
                }
            }
        }
        self.note("end of following");
    }

    /// Checks that every whole line was counted once, by every counter that is in use.
    fn check(&self) {
        let mut expected = Counters::new();
        for content in self.files.values() {
            for line in content.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let metric = line.trim_end().split_once('\t').unwrap().1;
                *expected.entry(metric.to_owned()).or_default() += 1;
            }
        }
        for collection in ["n", "k"].iter().take(self.counters) {
            let found = self.counted(collection);
            if found != expected {
                let wrong: Vec<_> = expected
                    .iter()
                    .filter(|(metric, n)| found.get(*metric) != Some(n))
                    .map(|(metric, n)| format!("{metric:.12} {n} {:?}", found.get(metric)))
                    .chain(found.keys().filter(|metric| !expected.contains_key(*metric)).cloned())
                    .collect();
                panic!("{collection}: {}\n{}", wrong.join("\n"), self.steps.join("\n"));
            }
        }
    }

    fn counted(&self, collection: &str) -> Counters {
        let get = ["get", collection, "--bucket", "all", "-o", "json", "--store", &self.store];
        let ran = self.sandbox.run(&get);
        if ran.code == 3 {
            return Counters::new();
        }
        serde_json::from_value(ran.expect(0).json()["counters"].clone()).unwrap()
    }
}

/// Runs as many histories as the environment says, `few` without it. `COUNTEM_SEED` repeats one.
fn histories(few: u64, mut store: impl FnMut() -> String) {
    let number = |name| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    if let Some(seed) = number("COUNTEM_SEED") {
        return History::new(seed, &store()).run();
    }
    let from = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() << 20;
    for seed in from..from + number("COUNTEM_HISTORIES").unwrap_or(few) {
        History::new(seed, &store()).run();
    }
}

#[test]
fn random_histories_count_every_line_once() {
    histories(10, || "sqlite://countem.db".to_owned());
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_on_mongodb_count_every_line_once() {
    if !require_server() {
        return;
    }
    let server = Server::any().await.unwrap();
    let uri = server.uri();
    tokio::task::spawn_blocking(move || histories(2, || in_own_database(&uri))).await.unwrap();
}
