//! `ingest --undo`: what `--once` has counted of a file is taken back, once.
//!
//! Shows G21.

use std::time::{Duration, Instant};

use crate::{
    generator::Log,
    harness::{BINARY, Counters, Ran, Sandbox},
    ingest::{args, assert_counted, gzip},
};

const PAGES: [&str; 5] = ["ingest", "-f", "combined", "-c", "pages:{path}"];

fn once(sandbox: &Sandbox, more: &[&str]) -> u64 {
    let ran = sandbox.run(&[args(more), vec!["--once", "-o", "json"]].concat()).expect(0);
    ran.json()["counted"].as_u64().unwrap()
}

fn undo(sandbox: &Sandbox, more: &[&str]) -> Ran {
    sandbox.run(&[args(more), vec!["--undo"]].concat())
}

/// Returns all counters by day.
fn counters(sandbox: &Sandbox, collection: &str, log: &Log) -> Vec<Counters> {
    log.by_status.keys().map(|day| sandbox.counters(collection, day)).collect()
}

fn marks(sandbox: &Sandbox) -> usize {
    sandbox.run(&["marks", "-o", "json"]).expect(0).json()["marks"].as_array().unwrap().len()
}

#[test]
fn undo_restores_the_counters_of_before() {
    let (log, other) = (Log::new(21, 3000, 10), Log::new(22, 500, 10));
    for content in ["plain", "gz"] {
        let sandbox = Sandbox::new();
        sandbox.run_on(&args(&["-"]), other.text.as_bytes()).expect(0);
        let before = counters(&sandbox, "web", &log);
        if content == "gz" {
            sandbox.write("log", gzip(log.text.as_bytes()));
            assert_eq!(once(&sandbox, &["log"]), 3000);
        } else {
            let (one, two) = log.text.split_at(log.text[..log.text.len() / 2].rfind('\n').unwrap() + 1);
            sandbox.write("log", one);
            once(&sandbox, &["log"]);
            sandbox.append("log", two.trim_end());
            once(&sandbox, &["log", "--last-line"]);
        }
        let counted = counters(&sandbox, "web", &log);
        assert_ne!(counted, before);
        sandbox.rename("log", "moved");
        let undone = undo(&sandbox, &["moved", "-o", "json"]).expect(0).json();
        assert_eq!(undone["undone"][0]["counts"], 3000, "{content}: {undone}");
        let history = sandbox.run(&["history", "-o", "json"]).expect(0).json();
        let entries = history["corrections"].as_array().unwrap();
        assert!(entries.iter().any(|entry| entry["kind"] == "undo"), "{history}");
        assert_eq!((counters(&sandbox, "web", &log), marks(&sandbox)), (before, 0));
        assert_eq!(once(&sandbox, &["moved", "--last-line"]), 3000);
        assert_eq!(counters(&sandbox, "web", &log), counted);
    }
}

#[test]
fn growing_file_is_undone_to_its_counted_end() {
    let log = Log::new(23, 2000, 10);
    let sandbox = Sandbox::new();
    let lines: Vec<_> = log.text.split_inclusive('\n').collect();
    for piece in lines.chunks(300) {
        sandbox.append("log", piece.concat());
        once(&sandbox, &["log"]);
    }
    assert_counted(&sandbox, &log, 1);
    sandbox.append("log", &log.text);
    undo(&sandbox, &["log"]).expect(0);
    assert_eq!((sandbox.total("web"), marks(&sandbox)), (0, 0));
    undo(&sandbox, &["log"]).expect(3);
    assert_eq!(once(&sandbox, &["log"]), 4000);
    assert_counted(&sandbox, &log, 2);
}

#[test]
fn one_of_two_templates_is_undone() {
    let log = Log::new(24, 1500, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    once(&sandbox, &["log", "-c", "web:{path}"]);
    let ran = sandbox.run(&["ingest", "log", "-f", "combined", "-c", "web:{path}", "--undo"]).expect(0);
    assert!(ran.out.contains("1,500") || ran.out.contains("1500"), "{}", ran.out);
    assert_eq!(counters(&sandbox, "web", &log), log.by_status.values().cloned().collect::<Vec<_>>());
    assert_eq!((once(&sandbox, &["log"]), marks(&sandbox)), (0, 1));
    sandbox.run(&["ingest", "log", "-f", "combined", "-c", "web:{path}", "--once"]).expect(0);
    undo(&sandbox, &["log", "-c", "web:{path}"]).expect(0);
    assert_eq!((sandbox.total("web"), marks(&sandbox)), (0, 0));
}

#[test]
fn lines_before_the_first_counted_one_stay() {
    let log = Log::new(25, 1000, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    assert_eq!(once(&sandbox, &["log", "--from-end"]), 0);
    sandbox.append("log", &log.text);
    assert_eq!(once(&sandbox, &["log"]), 1000);
    undo(&sandbox, &["log"]).expect(0);
    assert_eq!((sandbox.total("web"), marks(&sandbox)), (0, 0));
}

#[test]
fn other_content_or_flags_change_nothing() {
    let log = Log::new(26, 1000, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    once(&sandbox, &["log"]);
    let refused = |more: &[&str], code: i32, words: &str| {
        let ran = undo(&sandbox, more).expect(code);
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
        assert_counted(&sandbox, &log, 1);
        assert_eq!(marks(&sandbox), 1);
    };
    refused(&["log", "--where", "status=200"], 3, "was not counted by");
    refused(&["log", "--amount", "bytes"], 3, "was not counted by");
    refused(&["log", "--time-field", "time", "--time-format", "%d/%b/%Y:%H"], 1, "count otherwise");
    refused(&["other"], 3, "there is no file");
    // A byte in the middle, where no fingerprint sees it.
    let mut changed = log.text.clone().into_bytes();
    let at = log.text[70_000..].find(" 200 ").unwrap() + 70_001;
    changed[at] = b'3';
    sandbox.write("log", &changed);
    refused(&["log"], 1, "count otherwise");
    sandbox.write("log", &log.text[..log.text.len() / 2]);
    refused(&["log"], 1, "is not what was counted");
    sandbox.write("log", &Log::new(27, 10, 10).text);
    refused(&["log"], 1, "is not what was counted");
    sandbox.write("log.1", &log.text);
    undo(&sandbox, &["log.1"]).expect(0);
    assert_eq!(sandbox.total("web"), 0);
}

#[test]
fn quarantined_counts_are_settled_first() {
    let log = Log::new(28, 100, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    let (day, counted) = log.by_status.first_key_value().unwrap();
    let metric = counted.keys().next().unwrap();
    sandbox.run(&["inc", "web", metric, &i64::MAX.to_string(), "--time", day]).expect(0);
    sandbox.run(&[args(&["log"]), vec!["--once"]].concat()).expect(6);
    assert!(undo(&sandbox, &["log"]).expect(1).err.contains("in quarantine"));
    sandbox.run(&["inc", "web", metric, &(-i64::MAX).to_string(), "--time", day]).expect(0);
    sandbox.run(&["quarantine", "retry", "--all"]).expect(0);
    assert_counted(&sandbox, &log, 1);
    undo(&sandbox, &["log"]).expect(0);
    assert_eq!(sandbox.total("web"), 0);
}

#[test]
fn killed_undo_is_continued_and_holds_off_others() {
    let log = Log::new(29, 40_000, 40_000);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    let [once, undo] = ["--once", "--undo"].map(|flag| [&PAGES[..], &["log", flag]].concat());
    let mut interrupted = 0;
    for round in 0..4 {
        sandbox.run(&once).expect(0);
        assert_eq!(sandbox.total("pages"), 40_000, "round {round}");
        let mut child = sandbox.start(&undo);
        let began = Instant::now();
        let database = rusqlite::Connection::open(sandbox.path("countem.db")).unwrap();
        let mut steps = database.prepare("SELECT value LIKE '%\"undo\"%' FROM mark").unwrap();
        // No row: the mark is gone already.
        while steps.query_row([], |row| row.get(0)) == Ok(false) && began.elapsed() < Duration::from_secs(30)
        {
        }
        child.kill().unwrap();
        child.wait_at_most(Duration::from_secs(30)).unwrap();
        drop(steps);
        drop(database);
        let left = sandbox.total("pages");
        if marks(&sandbox) == 1 {
            interrupted += 1;
            assert!((1..=40_000).contains(&left), "{left}");
            if left < 40_000 {
                for other in [&once[..], &["forget", "log"]] {
                    assert!(sandbox.run(other).err.contains("being taken back"));
                }
                let other = sandbox.run(&[&undo[..], &["-c", "pages:{status}"]].concat()).expect(2);
                assert!(other.err.contains("finish that first"), "{}", other.err);
                assert_eq!(sandbox.total("pages"), left);
            }
            sandbox.run(&undo).expect(0);
        }
        assert_eq!((sandbox.total("pages"), marks(&sandbox)), (0, 0), "round {round}");
    }
    assert!(interrupted > 0, "no undo was killed before its end: {BINARY} is too fast");
}
