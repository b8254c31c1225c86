//! `--once`: every line of a file is counted once, however the file is moved and the process ends.

use crate::{
    generator::{Dice, Log},
    harness::{Sandbox, eventually, finish},
    ingest::{args, assert_counted, gzip},
};

fn counted(sandbox: &Sandbox, more: &[&str]) -> u64 {
    let ran = sandbox.run(&[args(more), vec!["--once", "-o", "json"]].concat()).expect(0);
    ran.json()["counted"].as_u64().unwrap()
}

/// Cuts a log after some of its lines.
fn cut(log: &Log, lines: usize) -> (&str, &str) {
    let at = log.text.match_indices('\n').nth(lines - 1).unwrap().0 + 1;
    log.text.split_at(at)
}

#[test]
fn file_given_twice_counts_once_with_once() {
    let log = Log::new(11, 2000, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    assert_eq!(counted(&sandbox, &["log"]), 2000);
    assert_eq!(counted(&sandbox, &["log"]), 0);
    assert_counted(&sandbox, &log, 1);
    assert_eq!(sandbox.writers(), 0);
    sandbox.run(&args(&["log"])).expect(0);
    assert_counted(&sandbox, &log, 2);
}

#[test]
fn file_counted_with_other_templates_is_reported_skipped() {
    let log = Log::new(10, 2000, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    sandbox.write("log.gz", gzip(log.text.as_bytes()));
    let first = sandbox.run(&args(&["log", "--once"])).expect(0);
    assert!(!first.err.contains("skipped"), "{}", first.err);
    let pages = ["ingest", "-f", "combined", "-c", "pages:{path}", "--once", "log", "log.gz"];
    let skipped = 2 * log.text.len();
    let report = sandbox.run(&[&pages[..], &["-o", "json"]].concat()).expect(0).json();
    assert_eq!((&report["lines"], &report["skipped_bytes"]), (&0.into(), &skipped.into()));
    let said = sandbox.run(&pages).expect(0).err;
    assert!(said.contains(" bytes that were counted before (--once knows a file by its content"), "{said}");
}

#[test]
fn grown_file_is_counted_from_its_old_end() {
    // From a few bytes to more than the fingerprint of a file covers.
    let log = Log::new(12, 2000, 10);
    let sandbox = Sandbox::new();
    let mut written = 0;
    for lines in [1, 2, 5, 40, 41, 300, 1200, 2000] {
        let (before, _) = cut(&log, lines);
        sandbox.append("log", &before[written..]);
        written = before.len();
        counted(&sandbox, &["log"]);
        assert_eq!(sandbox.total("web"), i64::try_from(lines).unwrap());
    }
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn renamed_copied_or_compressed_file_is_recognised() {
    let log = Log::new(13, 1500, 10);
    let sandbox = Sandbox::new();
    let (before, after) = cut(&log, 700);
    sandbox.write("log", before);
    assert_eq!(counted(&sandbox, &["log"]), 700);
    sandbox.rename("log", "log.1");
    sandbox.append("log.1", after);
    sandbox.write("log.2.gz", gzip(log.text.as_bytes()));
    sandbox.write("copy", &log.text);
    assert_eq!(counted(&sandbox, &["log.2.gz"]), 800);
    assert_eq!(counted(&sandbox, &["log.1", "copy", "log.2.gz"]), 0);
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn copies_given_at_once_are_counted_once() {
    let log = Log::new(14, 300, 10);
    let sandbox = Sandbox::new();
    sandbox.write("a", &log.text);
    sandbox.write("b", &log.text);
    assert_eq!(counted(&sandbox, &["a", "b", "a"]), 300);
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn files_that_begin_alike_are_different() {
    let sandbox = Sandbox::new();
    let header = format!("# {}\n", "x".repeat(100_000));
    let tsv = ["--format", "tsv", "--now", "--count", "words:{1}", "--once", "-o", "json"];
    for name in ["a", "b", "c"] {
        sandbox.write(name, format!("{header}{name}\n").repeat(2));
    }
    for (expected, round) in [(2 * 3, 1), (0, 2)] {
        let report = sandbox
            .run(&[&["ingest", "a", "b", "c"], &tsv[..]].concat())
            .expect(6 * i32::from(round == 1))
            .json();
        assert_eq!(report["counted"], expected, "round {round}: {report}");
    }
}

#[test]
fn truncated_or_replaced_file_is_new() {
    let (one, two) = (Log::new(15, 800, 10), Log::new(16, 900, 10));
    let sandbox = Sandbox::new();
    sandbox.write("log", &one.text);
    assert_eq!(counted(&sandbox, &["log"]), 800);
    sandbox.write("log", &two.text);
    assert_eq!(counted(&sandbox, &["log"]), 900);
    sandbox.write("log", cut(&one, 100).0);
    assert_eq!(counted(&sandbox, &["log"]), 100);
    assert_eq!(sandbox.total("web"), 1800);
}

#[test]
fn truncated_file_continues_at_an_earlier_mark() {
    let log = Log::new(24, 400, 10);
    let sandbox = Sandbox::new();
    // Each is more than twice as long as the one before, and has a mark of its own.
    for lines in [20, 80, 400] {
        sandbox.write("log", cut(&log, lines).0);
        counted(&sandbox, &["log"]);
    }
    assert_counted(&sandbox, &log, 1);
    for (left, anew) in [(300, 220), (60, 40), (10, 10)] {
        sandbox.write("log", cut(&log, left).0);
        assert_eq!(counted(&sandbox, &["log"]), anew, "{left} lines are left");
    }
}

#[test]
fn file_with_counted_beginning_continues_there() {
    let sandbox = Sandbox::new();
    let tsv = ["ingest", "--format", "tsv", "--now", "--count", "w:{1}", "--once"];
    for (name, text) in [("monday", "up\n"), ("tuesday", "up\n"), ("wednesday", "up\ndown\n")] {
        sandbox.write(name, text);
        sandbox.run(&[&tsv[..], &[name]].concat()).expect(0);
    }
    assert_eq!(sandbox.total("w"), 2, "contents that repeat are counted once, as the help says");
}

#[test]
fn unterminated_last_line_is_counted_once() {
    let log = Log::new(17, 10, 10);
    let sandbox = Sandbox::new();
    let text = log.text.trim_end();
    sandbox.write("log", text);
    assert_eq!(counted(&sandbox, &["log"]), 10);
    assert_eq!(counted(&sandbox, &["log"]), 0);
    sandbox.append("log", " and the rest of the agent");
    assert_eq!(counted(&sandbox, &["log"]), 0);
    sandbox.append("log", "\n");
    assert_eq!(counted(&sandbox, &["log"]), 0);
    sandbox.append("log", cut(&log, 4).0);
    assert_eq!(counted(&sandbox, &["log"]), 4);
}

#[test]
fn rejected_lines_are_not_read_again() {
    let sandbox = Sandbox::new();
    let log = Log::new(18, 20, 10);
    let (before, after) = cut(&log, 10);
    sandbox.write("log", format!("{before}garbage\n{}\n{after}", "x".repeat(3 << 20)));
    sandbox.run(&args(&["log", "--once"])).expect(6);
    let report = sandbox.run(&args(&["log", "--once", "-o", "json"])).expect(0).json();
    assert_eq!(report["lines"], 0, "{report}");
    sandbox.append("log", "garbage\n");
    let report = sandbox.run(&args(&["log", "--once", "-o", "json"])).expect(6).json();
    assert_eq!(report["reasons"][0]["examples"][0]["line"], 23, "lines are numbered through");
    sandbox.append("log", "garbage\n");
    let said = sandbox.run(&args(&["log", "--once"])).expect(6).err;
    assert!(said.contains("rejected 1 line\n"), "{said}");
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn a_header_is_known_after_resuming() {
    let sandbox = Sandbox::new();
    let tsv = ["ingest", "t", "--format", "tsv", "--header", "--now", "--count", "w:{word}", "--once"];
    sandbox.write("t", "day\tword\n1\ta\n");
    sandbox.run(&tsv).expect(0);
    sandbox.append("t", "2\tb\n");
    sandbox.run(&tsv).expect(0);
    sandbox.run(&tsv).expect(0);
    assert_eq!(sandbox.total("w"), 2);
}

#[test]
fn one_file_is_counted_by_one_process() {
    let sandbox = Sandbox::new();
    let log = Log::new(19, 100, 10);
    sandbox.write("log", &log.text);
    let follower = sandbox.start(&args(&["log", "--once", "--follow"]));
    eventually(&100, || sandbox.total("web"));
    let ran = sandbox.run(&args(&["log", "--once"])).expect(1);
    assert!(ran.err.contains("another `ingest --once`"), "{}", ran.err);
    drop(follower);
    assert_eq!(counted(&sandbox, &["log"]), 0);
}

#[test]
fn killed_run_continues_at_the_stored_position() {
    let log = Log::new(20, 1000, 10);
    let sandbox = Sandbox::new();
    let (before, after) = cut(&log, 600);
    sandbox.write("log", before);
    let mut follower = sandbox.start(&args(&["log", "--once", "--follow"]));
    eventually(&600, || sandbox.total("web"));
    sandbox.append("log", after);
    // The rest is read, and may be stored or not.
    follower.kill().unwrap();
    counted(&sandbox, &["log"]);
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn repeatedly_killed_run_counts_every_line_once() {
    // So many counters that every few blocks make a batch.
    let log = Log::new(21, 60_000, 100_000);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    sandbox.write("log.gz", gzip(log.text.as_bytes()));
    let pages =
        ["ingest", "-f", "combined", "-c", "pages:{path}", "--once", "--set", "flush.batch_counters=500"];
    let (mut kills, mut last) = (0, 0);
    for file in ["log", "log.gz"].iter().cycle() {
        let mut child = sandbox.start(&[&pages[..], &[file]].concat());
        let progressed = || sandbox.total("pages") > last || child.try_wait().unwrap().is_some();
        let mut progressed = progressed;
        eventually(&true, &mut progressed);
        if child.try_wait().unwrap().is_some() {
            finish(child).expect(0);
            break;
        }
        child.kill().unwrap();
        kills += 1;
        last = sandbox.total("pages");
    }
    assert!(kills > 0, "nothing was killed in the middle");
    for (day, counters) in &log.by_path {
        assert_eq!(sandbox.counters("pages", day), *counters, "after {kills} kills");
    }
}

#[test]
fn split_block_moves_the_mark_to_its_end() {
    let sandbox = Sandbox::new();
    let max = i64::MAX;
    sandbox.write("t", format!("a\t{max}\na\t-{max}\na\t{max}\na\t-{max}\nb\t1\n"));
    let tsv = ["ingest", "t", "--format", "tsv", "--now", "--count", "n:{1}", "--amount", "2", "--once"];
    sandbox.run(&tsv).expect(0);
    sandbox.run(&tsv).expect(0);
    assert_eq!(sandbox.total("n"), 1);
}

#[test]
fn growth_by_any_bytes_counts_each_line_once() {
    let sandbox = Sandbox::new();
    let mut dice = Dice::new(22);
    let mut text = String::new();
    let tsv = ["ingest", "t", "--format", "tsv", "--now", "--count", "n:lines", "--once", "-q"];
    for step in 0..40 {
        // From one byte to far more than the fingerprint covers, not ending with a line.
        let most = 1 << dice.roll(17);
        let growth = dice.roll(most) + 1;
        let from = text.len();
        while text.len() < from + growth {
            let is_end = dice.roll(20) == 0 && !text.is_empty() && !text.ends_with('\n');
            text.push(if is_end { '\n' } else { char::from(b'a' + u8::try_from(dice.roll(26)).unwrap()) });
        }
        sandbox.append("t", &text[from..]);
        sandbox.run(&tsv).expect(0);
        let begun = i64::try_from(text.lines().count()).unwrap();
        assert_eq!(sandbox.total("n"), begun, "after step {step}, {} bytes", text.len());
    }
}
