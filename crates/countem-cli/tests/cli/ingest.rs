//! Counting whole inputs.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use crate::{
    generator::Log,
    harness::{Sandbox, eventually, finish, interrupt},
};

pub(crate) const BY_STATUS: [&str; 5] =
    ["ingest", "--format", "combined", "--count", "web:{method} {status}"];

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&BY_STATUS[..], more].concat()
}

/// Checks that the store has the counters of the log, `times` over.
#[track_caller]
pub(crate) fn assert_counted(sandbox: &Sandbox, log: &Log, times: i64) {
    for (day, counters) in &log.by_status {
        let mut expected = counters.clone();
        expected.values_mut().for_each(|value| *value *= times);
        assert_eq!(sandbox.counters("web", day), expected, "on {day}");
    }
}

#[test]
fn every_counter_of_a_log_is_right() {
    let log = Log::new(1, 5000, 10);
    let (one, two) = log.text.split_at(log.text.len() / 2);
    let members = [gzip(one.as_bytes()), gzip(two.as_bytes())].concat();
    let padded = [&gzip(one.as_bytes())[..], &[0; 511], &gzip(two.as_bytes()), &[0; 100_000]].concat();
    for (name, content) in [
        ("plain", log.text.clone().into_bytes()),
        ("gzip", gzip(log.text.as_bytes())),
        ("members", members),
        ("padded", padded),
    ] {
        let sandbox = Sandbox::new();
        let ran = sandbox.run_on(&args(&["-"]), &content).expect(0);
        assert!(ran.err.contains("counted 5,000 of 5,000 lines"), "{name}: {}", ran.err);
        assert_counted(&sandbox, &log, 1);
        sandbox.write("log", &content);
        sandbox.run(&args(&["log"])).expect(0);
        assert_counted(&sandbox, &log, 2);
        assert_eq!(sandbox.writers(), 0, "a clean end leaves no bookkeeping");
    }
}

#[test]
fn several_templates_and_amounts_are_counted_together() {
    let log = Log::new(2, 3000, 40);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    sandbox.run(&args(&["log", "--count", "pages:{path}"])).expect(0);
    sandbox.run(&["ingest", "log", "-f", "combined", "-c", "traffic:bytes", "--amount", "bytes"]).expect(0);
    assert_counted(&sandbox, &log, 1);
    for (day, counters) in &log.by_path {
        assert_eq!(sandbox.counters("pages", day), *counters);
        assert_eq!(sandbox.counters("traffic", day)["bytes"], log.bytes[day]);
    }
}

#[test]
fn more_counters_than_a_batch_are_stored() {
    let log = Log::new(3, 20_000, 5000);
    let sandbox = Sandbox::new();
    let counts = ["ingest", "-f", "combined", "-c", "pages:{path}", "--set", "flush.batch_counters=100"];
    sandbox.run_on(&counts, log.text.as_bytes()).expect(0);
    for (day, counters) in &log.by_path {
        assert_eq!(sandbox.counters("pages", day), *counters);
    }
}

#[test]
fn bad_lines_are_reported_by_reason() {
    let log = Log::new(4, 1000, 10);
    let mut text = log.text.into_bytes();
    let at = text.iter().position(|&b| b == b'\n').unwrap() + 1;
    let garbage = b"garbage \xff\x00\n\n1.2.3.4 - - [99/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"x\"\n";
    text.splice(at..at, garbage.iter().copied());
    let sandbox = Sandbox::new();
    let report = sandbox.run_on(&args(&["-o", "json"]), &text).expect(6).json();
    assert_eq!(report["lines"], 1003);
    assert_eq!(
        (&report["counted"], &report["blank"], &report["rejected"]),
        (&1000.into(), &1.into(), &2.into())
    );
    let shape = &report["reasons"][0];
    assert_eq!((&shape["reason"], &shape["lines"]), (&"not in combined log format".into(), &1.into()));
    assert_eq!(shape["examples"][0]["line"], 2);
    assert_eq!(shape["examples"][0]["text"], "garbage \u{fffd}\\u{0}");
    assert_eq!(report["reasons"][1]["examples"][0]["line"], 4);
    assert_eq!(sandbox.total("web"), 1000);
}

#[test]
fn overlong_line_is_rejected_between_counted_lines() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(3 << 20);
    let text = format!("a\n{long}\nb\n{long}");
    let tsv = ["ingest", "--format", "tsv", "--now", "--count", "words:{1}", "-o", "json"];
    let report = sandbox.run_on(&tsv, text.as_bytes()).expect(6).json();
    assert_eq!(
        (&report["lines"], &report["counted"], &report["rejected"]),
        (&4.into(), &2.into(), &2.into())
    );
    assert_eq!(report["reasons"][0]["reason"], "line is longer than 1 MiB");
    assert_eq!(report["reasons"][0]["examples"][1]["line"], 4);
}

#[test]
fn damaged_archive_is_counted_up_to_the_damage() {
    let log = Log::new(5, 20_000, 10);
    let archive = gzip(log.text.as_bytes());
    let sandbox = Sandbox::new();
    let ran = sandbox.run_on(&args(&["-"]), &archive[..archive.len() / 2]).expect(6);
    assert!(ran.err.contains("could not read all of `standard input`"), "{}", ran.err);
    assert!(sandbox.total("web") > 0);
    assert!(!ran.err.contains("rejected"), "the line that was cut is not blamed: {}", ran.err);
    let ran = sandbox.run_on(&args(&["-"]), b"\x28\xb5\x2f\xfd....").expect(1);
    assert!(ran.err.contains("zstd"), "{}", ran.err);
}

#[test]
fn other_content_is_refused_with_advice() {
    let sandbox = Sandbox::new();
    let mut tar = vec![0; 1024];
    tar[..3].copy_from_slice(b"log");
    tar[257..262].copy_from_slice(b"ustar");
    tar.extend(b"2015-05-17T00:00:00Z\tb\n");
    let wide = |from: fn(u32) -> [u8; 4]| "\u{feff}a\n".chars().flat_map(|c| from(c.into())).collect();
    let cases: [(Vec<u8>, &str, &str); 7] = [
        (b"\xff\xfea\0\n\0".to_vec(), "UTF-16", "iconv -f UTF-16"),
        (wide(u32::to_le_bytes), "UTF-32", "iconv -f UTF-32"),
        (wide(u32::to_be_bytes), "UTF-32", "iconv -f UTF-32"),
        (gzip(&tar), "a tar archive", "tar -xOf"),
        (tar, "a tar archive", "tar -xOf"),
        (b"PK\x03\x04\x14\0log\n".to_vec(), "a zip archive", "unzip -p"),
        (b"\xfd7zXZ\0log\n".to_vec(), "compressed with xz", "xzcat"),
    ];
    let tsv = ["-f", "tsv", "--now", "-c", "c:{1}"];
    for (content, name, advice) in cases {
        sandbox.write("log", &content);
        let from_file = sandbox.run(&[&["ingest", "log"], &tsv[..]].concat());
        for ran in [from_file, sandbox.run_on(&[&["ingest"], &tsv[..]].concat(), &content)] {
            let ran = ran.expect(1);
            assert!(ran.err.contains(name) && ran.err.contains(advice), "{name}: {}", ran.err);
        }
    }
    assert_eq!(sandbox.total("c"), 0);
}

#[test]
fn missing_input_fails_before_counting() {
    let sandbox = Sandbox::new();
    sandbox.write("log", Log::new(6, 10, 1).text);
    let ran = sandbox.run(&args(&["log", "missing.log"])).expect(3);
    assert!(ran.err.contains("`missing.log`"), "{}", ran.err);
    assert!(!sandbox.path("countem.db").exists());
    sandbox.run(&args(&["."])).expect(2);
}

#[test]
fn unwritable_report_does_not_suggest_unstored_counts() {
    let log = Log::new(9, 1000, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    for (times, format) in [(1, "json"), (2, "csv")] {
        let ran = sandbox.run_on_full_disk(&args(&["log", "-o", format])).expect(1);
        let said = "countem: stored 1,000 of 1,000 increments in sqlite://countem.db, \
            but the report cannot be written: No space left on device";
        assert!(ran.err.starts_with(said), "{}", ran.err);
        assert_counted(&sandbox, &log, times);
    }
}

#[test]
fn interrupted_run_is_stored_and_partly_done() {
    let log = Log::new(7, 2000, 10);
    let sandbox = Sandbox::new();
    let (child, mut stdin) = sandbox.start_on_pipe(&args(&["-"]));
    stdin.write_all(log.text.as_bytes()).unwrap();
    // The pipe stays open: without a signal the run would not end.
    eventually(&log.lines, || sandbox.total("web"));
    let ran = interrupt(child).expect(6);
    assert!(ran.err.contains("interrupted"), "{}", ran.err);
    assert_counted(&sandbox, &log, 1);
    assert_eq!(sandbox.writers(), 0);
    drop(stdin);
}

#[test]
fn slow_pipe_is_stored_while_read() {
    let log = Log::new(8, 100, 10);
    let sandbox = Sandbox::new();
    let (child, mut stdin) = sandbox.start_on_pipe(&args(&["-"]));
    let half = log.text.len() / 2;
    stdin.write_all(&log.text.as_bytes()[..half]).unwrap();
    let whole_lines = i64::try_from(log.text[..half].lines().count()).unwrap() - 1;
    eventually(&whole_lines, || sandbox.total("web"));
    stdin.write_all(&log.text.as_bytes()[half..]).unwrap();
    drop(stdin);
    finish(child).expect(0);
    assert_counted(&sandbox, &log, 1);
}
