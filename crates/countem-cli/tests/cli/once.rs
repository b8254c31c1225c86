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
fn files_that_begin_alike_are_different() {
    let sandbox = Sandbox::new();
    let header = format!("# {}\n", "x".repeat(100_000));
    let tsv = ["--format", "tsv", "--now", "--count", "words:{1}", "--once", "-o", "json"];
    for name in ["a", "b", "c"] {
        sandbox.write(name, format!("{header}{name}\n").repeat(2));
    }
    for (expected, round) in [(4 * 3, 1), (0, 2)] {
        let report = sandbox.run(&[&["ingest", "a", "b", "c"], &tsv[..]].concat()).expect(0).json();
        assert_eq!(report["counted"], expected, "round {round}: {report}");
    }
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
    assert_counted(&sandbox, &log, 1);
    sandbox.append("log", format!("garbage\n{}", cut(&log, 1).0));
    let report = sandbox.run(&args(&["log", "--once", "-o", "json"])).expect(6).json();
    assert_eq!(report["reasons"][0]["examples"][0]["line"], 23, "lines are numbered through");
    assert_eq!(counted(&sandbox, &["log"]), 0);
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
        let whole = i64::try_from(text.matches('\n').count()).unwrap();
        assert_eq!(sandbox.total("n"), whole, "after step {step}, {} bytes", text.len());
    }
    sandbox.run(&[&tsv[..], &["--last-line"]].concat()).expect(0);
    assert_eq!(sandbox.total("n"), i64::try_from(text.lines().count()).unwrap());
}

#[test]
fn half_a_line_waits_for_its_end() {
    let log = Log::new(17, 10, 10);
    let sandbox = Sandbox::new();
    let (text, end) = log.text.split_at(log.text.len() - 20);
    sandbox.write("log", text);
    assert_eq!(counted(&sandbox, &["log"]), 9);
    sandbox.append("log", end);
    assert_eq!(counted(&sandbox, &["log"]), 1);
    assert_counted(&sandbox, &log, 1);
    // Of a file that is finished, the last line counts.
    let unended = |seed| Log::new(seed, 10, 10).text.trim_end().to_owned();
    sandbox.write("archive.gz", gzip(unended(25).as_bytes()));
    sandbox.write("finished", unended(26));
    assert_eq!(counted(&sandbox, &["archive.gz"]), 10);
    assert_eq!(counted(&sandbox, &["finished", "--last-line"]), 10);
    assert_eq!(counted(&sandbox, &["archive.gz", "finished", "--last-line"]), 0);
    sandbox.append("finished", format!(" and the rest of the agent\n{}", cut(&log, 4).0));
    assert_eq!(counted(&sandbox, &["finished"]), 4, "a line that was counted is not counted again");
}

#[test]
fn idle_rotated_file_is_finished() {
    let log = Log::new(27, 10, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", "");
    sandbox.write("log.1", log.text.trim_end());
    assert_eq!(counted(&sandbox, &["log.1"]), 9);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(301);
    std::fs::File::options().append(true).open(sandbox.path("log.1")).unwrap().set_modified(old).unwrap();
    assert_eq!(counted(&sandbox, &["log.1"]), 1);
    assert_counted(&sandbox, &log, 1);
}
