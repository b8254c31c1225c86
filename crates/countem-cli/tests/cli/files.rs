//! The rule of `--once` for which file is which.

use crate::{
    generator::Log,
    harness::Sandbox,
    ingest::{BY_STATUS, args, assert_counted, gzip},
};

/// Counts files once, and returns the number of lines that were counted.
fn once(sandbox: &Sandbox, files: &[&str]) -> u64 {
    let ran = sandbox.run(&[args(files), vec!["--once", "-o", "json"]].concat()).expect(0);
    ran.json()["counted"].as_u64().unwrap()
}

/// Returns the first `lines` lines.
fn head(log: &Log, lines: usize) -> &str {
    let at = log.text.match_indices('\n').nth(lines - 1).unwrap().0 + 1;
    &log.text[..at]
}

#[test]
fn renamed_or_compressed_file_continues() {
    let log = Log::new(13, 1500, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", head(&log, 700));
    assert_eq!(once(&sandbox, &["log"]), 700);
    sandbox.rename("log", "log.1");
    sandbox.append("log.1", &log.text[head(&log, 700).len()..]);
    sandbox.write("log.2.gz", gzip(log.text.as_bytes()));
    assert_eq!(once(&sandbox, &["log.2.gz"]), 800);
    assert_eq!(once(&sandbox, &["log.1", "log.2.gz"]), 0);
    std::fs::remove_file(sandbox.path("log.1")).unwrap();
    assert_eq!(once(&sandbox, &["log.2.gz"]), 0);
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn replacement_of_equal_content_continues() {
    let log = Log::new(40, 300, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", head(&log, 100));
    assert_eq!(once(&sandbox, &["log"]), 100);
    // As rsync does: a new file takes the name.
    sandbox.write(".log.new", head(&log, 200));
    sandbox.rename(".log.new", "log");
    assert_eq!(once(&sandbox, &["log"]), 100);
    // A link that leads to the next place of the content.
    sandbox.write("elsewhere", &log.text);
    std::fs::remove_file(sandbox.path("log")).unwrap();
    std::os::unix::fs::symlink("elsewhere", sandbox.path("log")).unwrap();
    assert_eq!(once(&sandbox, &["log"]), 100);
    assert_eq!(once(&sandbox, &["elsewhere", "log"]), 0);
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn replacement_of_other_content_is_new() {
    let (one, two) = (Log::new(15, 800, 10), Log::new(16, 900, 10));
    let sandbox = Sandbox::new();
    sandbox.write("log", &one.text);
    assert_eq!(once(&sandbox, &["log"]), 800);
    sandbox.write("log", &two.text);
    assert_eq!(once(&sandbox, &["log"]), 900);
    // Emptied and written anew behind an equal first line.
    sandbox.write("log", [head(&two, 1), &one.text].concat());
    assert_eq!(once(&sandbox, &["log"]), 801);
}

#[test]
fn copytruncate_at_any_moment_counts_once() {
    for copied in [0, 1, 40, 100] {
        for order in [["log", "log.1"], ["log.1", "log"]] {
            let (log, next) = (Log::new(41, 100, 10), Log::new(42, 50, 10));
            let sandbox = Sandbox::new();
            sandbox.write("log", head(&log, 60));
            assert_eq!(once(&sandbox, &["log"]), 60);
            sandbox.write("log", &log.text);
            if copied > 0 {
                // The copy is in the making.
                sandbox.write("log.1", head(&log, copied));
                assert_eq!(once(&sandbox, &order), 40, "{copied} lines are copied");
            }
            sandbox.write("log.1", &log.text);
            sandbox.write("log", &next.text);
            once(&sandbox, &order);
            once(&sandbox, &order);
            assert_eq!(sandbox.total("web"), 150, "{copied} lines were copied, {order:?}");
        }
    }
}

#[test]
fn files_that_begin_alike_are_told_apart() {
    // As long as they are equal, when they differ, and in every order.
    for order in [["r0", "r1", "r2"], ["r2", "r0", "r1"]] {
        let logs = [43, 44, 45].map(|seed| Log::new(seed, 20, 10));
        let banner = Log::new(46, 1, 10).text;
        let sandbox = Sandbox::new();
        for (name, lines) in ["r0", "r1", "r2"].into_iter().zip([1, 2, 3]) {
            sandbox.write(name, &banner);
            assert_eq!(once(&sandbox, &[name]), 1);
            assert_eq!(sandbox.total("web"), lines);
        }
        assert_eq!(once(&sandbox, &order), 0);
        for lines in [1, 3, 20] {
            for (name, log) in order.iter().zip(&logs) {
                sandbox.write(name, [&banner, head(log, lines)].concat());
            }
            once(&sandbox, &order);
            assert_eq!(sandbox.total("web"), 3 + 3 * i64::try_from(lines).unwrap());
        }
        // Each is rotated, and the next one begins alike.
        sandbox.rename("r1", "r1.1");
        sandbox.write("r1", &banner);
        assert_eq!(once(&sandbox, &["r1", "r1.1"]), 1);
        assert_eq!(once(&sandbox, &["r0", "r1", "r1.1", "r2"]), 0);
    }
}

#[test]
fn archive_beginning_like_another_file_is_new() {
    let (banner, log, other) = (Log::new(71, 1, 10).text, Log::new(72, 20, 10), Log::new(73, 20, 10));
    let sandbox = Sandbox::new();
    // Only the first line was counted.
    sandbox.write("r0", [&banner, &log.text[..10]].concat());
    assert_eq!(once(&sandbox, &["r0"]), 1);
    sandbox.write("r1.1.gz", gzip([&*banner, &other.text].concat().as_bytes()));
    assert_eq!(once(&sandbox, &["r1.1.gz", "r0"]), 21);
    sandbox.append("r0", &log.text[10..]);
    sandbox.write("r0.gz", gzip([&*banner, &log.text].concat().as_bytes()));
    assert_eq!(once(&sandbox, &["r0.gz", "r0", "r1.1.gz"]), 20);
    assert_eq!(sandbox.total("web"), 42);
    // The present file is the beginning of an archive.
    let next = Log::new(74, 30, 10);
    sandbox.write("r2", head(&next, 3));
    sandbox.write("r2.1.gz", gzip(next.text.as_bytes()));
    assert_eq!(once(&sandbox, &["r2", "r2.1.gz"]), 33);
    assert_eq!(once(&sandbox, &["r2.1.gz", "r2"]), 0);
}

#[test]
fn equal_files_in_one_run_are_counted_each() {
    let log = Log::new(14, 300, 10);
    let sandbox = Sandbox::new();
    sandbox.write("a", &log.text);
    sandbox.write("b", &log.text);
    std::fs::hard_link(sandbox.path("a"), sandbox.path("c")).unwrap();
    std::os::unix::fs::symlink("a", sandbox.path("d")).unwrap();
    assert_eq!(once(&sandbox, &["a", "b", "a", "c", "d"]), 600);
    assert_eq!(once(&sandbox, &["d", "c", "b", "a"]), 0);
    assert_counted(&sandbox, &log, 2);
}

#[test]
fn copy_in_another_folder_continues() {
    // As on a second machine, which has the same file.
    let log = Log::new(54, 300, 10);
    let sandbox = Sandbox::new();
    let folders = ["one", "two"];
    folders.iter().for_each(|folder| std::fs::create_dir(sandbox.path(folder)).unwrap());
    for lines in [1, 100, 300] {
        for folder in folders {
            sandbox.write(&format!("{folder}/log"), head(&log, lines));
        }
        once(&sandbox, &["two/log"]);
        assert_eq!(once(&sandbox, &["one/log"]), 0);
        assert_eq!(sandbox.total("web"), i64::try_from(lines).unwrap());
    }
    // Two services that begin alike.
    let logs = [55, 56].map(|seed| Log::new(seed, 20, 10));
    let banner = Log::new(57, 1, 10).text;
    let files = ["one/app", "two/app"];
    for file in files {
        sandbox.write(file, &banner);
        once(&sandbox, &[file]);
    }
    for lines in [1, 5, 20] {
        for (file, log) in files.iter().zip(&logs) {
            sandbox.write(file, [&banner, head(log, lines)].concat());
            // A line is little to tell them apart.
            assert!(!lags(&sandbox, file) || lines == 1, "{lines} lines of {file}");
        }
    }
    assert_eq!(sandbox.total("web"), 300 + 2 * 21);
}

/// Counts a file once, and returns whether it was left out because it lags behind.
fn lags(sandbox: &Sandbox, file: &str) -> bool {
    let ran = sandbox.run(&args(&[file, "--once"]));
    let lags = ran.err.contains(&format!("left out {file}: it is the beginning of a longer file"));
    ran.expect(if lags { 6 } else { 0 });
    lags
}

#[test]
fn copy_that_lags_behind_is_left_out() {
    let log = Log::new(90, 1200, 10);
    for pack in [|text: &str| text.as_bytes().to_vec(), |text: &str| gzip(text.as_bytes())] {
        let sandbox = Sandbox::new();
        for folder in ["one", "two"] {
            std::fs::create_dir(sandbox.path(folder)).unwrap();
        }
        sandbox.write("one/log", head(&log, 1000));
        assert_eq!(once(&sandbox, &["one/log"]), 1000);
        for lines in [1, 2, 3, 5, 8, 100, 600, 601, 602, 603, 950, 999] {
            // As rsync does, also in the middle of a line.
            for further in [0, 30] {
                let text = &log.text.as_bytes()[..head(&log, lines).len() + further];
                sandbox.write("two/new", pack(&String::from_utf8_lossy(text)));
                sandbox.rename("two/new", "two/log");
                assert!(lags(&sandbox, "two/log"), "{lines} lines and {further} bytes");
                assert_eq!(sandbox.total("web"), 1000);
            }
        }
        sandbox.write("two/log", pack(&log.text));
        assert_eq!(once(&sandbox, &["two/log"]), 200);
        sandbox.write("one/log", &log.text);
        assert_eq!(once(&sandbox, &["one/log"]), 0);
        assert_counted(&sandbox, &log, 1);
    }
}

#[test]
fn equal_beginning_of_lost_file_is_left_out() {
    // Nothing tells a new file from a copy.
    let sandbox = Sandbox::new();
    let line = Log::new(95, 1, 10).text;
    sandbox.write("log", line.repeat(1000));
    assert_eq!(once(&sandbox, &["log"]), 1000);
    sandbox.write("new", line.repeat(10));
    std::fs::remove_file(sandbox.path("log")).unwrap();
    sandbox.rename("new", "log");
    assert!(lags(&sandbox, "log"));
    assert_eq!(sandbox.total("web"), 1000);
    let ran = sandbox.run(&[args(&["log", "--once"]), vec!["-o", "json"]].concat()).expect(6);
    assert_eq!(ran.json()["lagging"], serde_json::json!(["log"]));
    sandbox.run(&["forget", "log"]).expect(0);
    assert_eq!(once(&sandbox, &["log"]), 10);
}

#[test]
fn archive_of_a_beginning_is_left_out() {
    let log = Log::new(96, 300, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    assert_eq!(once(&sandbox, &["log"]), 300);
    sandbox.write("log.gz", gzip(head(&log, 200).as_bytes()));
    assert!(lags(&sandbox, "log.gz"));
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn new_file_behind_a_long_banner_is_counted() {
    let (banner, one, two) = (Log::new(91, 40, 10), Log::new(92, 200, 10), Log::new(93, 60, 10));
    for forget in [false, true] {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.path("two")).unwrap();
        sandbox.write("log", [&*banner.text, &one.text].concat());
        assert_eq!(once(&sandbox, &["log"]), 240);
        let mut left_out = 0;
        for lines in 1..=60 {
            sandbox.write("two/log", [&banner.text, head(&two, lines)].concat());
            if lags(&sandbox, "two/log") {
                left_out += 1;
                assert_eq!(left_out, lines, "left out after it was counted");
                assert_eq!(sandbox.total("web"), 240);
                if forget {
                    sandbox.run(&["forget", "two/log"]).expect(0);
                    assert!(!lags(&sandbox, "two/log"));
                }
            }
            if forget || left_out < lines {
                assert_eq!(sandbox.total("web"), 280 + i64::try_from(lines).unwrap(), "{lines} lines");
            }
        }
        assert!(
            if forget { left_out == 1 } else { (1..60).contains(&left_out) },
            "left out {left_out} times"
        );
    }
}

#[test]
fn shorter_file_beside_the_counted_one_is_another() {
    // Where the counted file was moved, compressed or not, and the next one begins alike.
    let log = Log::new(94, 300, 10);
    for archive in [false, true] {
        for files in [["log", "log.1"], ["log.1", "log"]] {
            let files = files.map(|file| if archive && file == "log.1" { "log.1.gz" } else { file });
            let sandbox = Sandbox::new();
            sandbox.write("log", &log.text);
            assert_eq!(once(&sandbox, &["log"]), 300);
            sandbox.rename("log", "log.1");
            if archive {
                sandbox.write("log.1.gz", gzip(log.text.as_bytes()));
                std::fs::remove_file(sandbox.path("log.1")).unwrap();
            }
            for (lines, new) in [(1, 1), (150, 149), (151, 1)] {
                sandbox.write("log", head(&log, lines));
                let named = if lines == 150 { &files[..] } else { &["log"] };
                assert_eq!(once(&sandbox, named), new, "{lines} lines, {files:?}");
            }
        }
    }
}

#[test]
fn file_and_its_prefix_keep_their_total() {
    let log = Log::new(47, 300, 10);
    for order in [["whole", "part"], ["part", "whole"]] {
        let sandbox = Sandbox::new();
        sandbox.write("whole", &log.text);
        sandbox.write("part", head(&log, 100));
        for _ in 0..3 {
            once(&sandbox, &order);
            assert_eq!(sandbox.total("web"), 400);
        }
    }
}

#[test]
fn each_counter_counts_a_file_from_its_beginning() {
    let log = Log::new(10, 200, 10);
    let sandbox = Sandbox::new();
    let pages = ["ingest", "-f", "combined", "-c", "pages:{path}", "--once", "-o", "json", "log"];
    let traffic = ["ingest", "-f", "combined", "-c", "web:bytes", "--amount", "bytes", "--once", "log"];
    sandbox.write("log", head(&log, 100));
    assert_eq!(once(&sandbox, &["log"]), 100);
    assert_eq!(sandbox.run(&pages).expect(0).json()["counted"], 100);
    sandbox.write("log", &log.text);
    // One of the two is 100 lines ahead.
    assert_eq!(once(&sandbox, &["log"]), 100);
    let report = sandbox.run(&[&pages[..], &BY_STATUS[3..]].concat()).expect(0).json();
    assert_eq!((&report["lines"], &report["increments"]["stored"]), (&100.into(), &100.into()));
    assert_eq!(sandbox.total("pages"), 200);
    assert_counted(&sandbox, &log, 1);
    sandbox.run(&traffic).expect(0);
    let sum: i64 = log.bytes.values().sum();
    assert_eq!(sandbox.total("web"), 200 + sum);
}

#[test]
fn run_that_counts_no_line_moves_nothing() {
    let log = Log::new(48, 50, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", &log.text);
    let wrong =
        ["ingest", "log", "--format", "ndjson", "--now", "--count", "web:{method} {status}", "--once"];
    sandbox.run(&wrong).expect(6);
    let late = [args(&["log"]), vec!["--once", "--time-format", "rfc3339"]].concat();
    sandbox.run(&late).expect(6);
    assert_eq!(sandbox.run(&["marks", "-o", "json"]).expect(0).json()["marks"], serde_json::json!([]));
    assert_eq!(once(&sandbox, &["log"]), 50);
}

#[test]
fn marks_are_listed_and_forgotten() {
    let log = Log::new(49, 50, 10);
    let sandbox = Sandbox::new();
    sandbox.run(&["marks"]).expect(3);
    for name in ["a", "b"] {
        sandbox.write(name, [&log.text, name, "\n"].concat());
        sandbox.run(&args(&[name, "--once"])).expect(6);
    }
    let marks = || sandbox.run(&["marks", "-o", "json"]).expect(0).json()["marks"].clone();
    let first = &marks()[0];
    assert!(first["file"].as_str().unwrap().ends_with("/a"), "{first}");
    assert_eq!(first["counters"][0]["counter"], "-f combined -c web:{method} {status}");
    assert_eq!(first["counters"][0]["lines"], 51);
    assert_eq!(first["counters"][0]["bytes"], log.text.len() + 2);

    sandbox.run(&["forget", "nothing"]).expect(3);
    sandbox.run(&["forget", "a"]).expect(0);
    assert_eq!(marks().as_array().unwrap().len(), 1);
    sandbox.run(&args(&["a", "b", "--once"])).expect(6);
    assert_eq!(sandbox.total("web"), 150);
    // By its last known path, and by content.
    std::fs::remove_file(sandbox.path("a")).unwrap();
    sandbox.run(&["forget", "a"]).expect(0);
    sandbox.rename("b", "c");
    sandbox.run(&["forget", "c"]).expect(0);
    assert_eq!(marks(), serde_json::json!([]));
    sandbox.run(&args(&["c", "--once"])).expect(6);
    sandbox.run(&["forget", "--all"]).expect(0);
    assert_eq!(marks(), serde_json::json!([]));
}

#[test]
fn from_end_counts_what_comes() {
    let log = Log::new(50, 100, 10);
    let sandbox = Sandbox::new();
    let (before, after) = log.text.split_at(head(&log, 60).len());
    sandbox.write("log", [before, &after[..10]].concat());
    assert_eq!(once(&sandbox, &["log", "--from-end"]), 0);
    sandbox.append("log", &after[10..]);
    assert_eq!(once(&sandbox, &["log", "--from-end"]), 40);
    assert_eq!(once(&sandbox, &["log"]), 0);
    assert_eq!(sandbox.total("web"), 40);
}

#[test]
fn mark_of_an_earlier_countem_is_kept() {
    let log = Log::new(51, 100, 10);
    let sandbox = Sandbox::new();
    sandbox.write("log", head(&log, 60));
    assert_eq!(once(&sandbox, &["log"]), 60);
    // As it was before marks knew counters.
    let database = rusqlite::Connection::open(sandbox.path("countem.db")).unwrap();
    let value: String = database.query_row("SELECT value FROM mark", [], |row| row.get(0)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&value).unwrap();
    let old = serde_json::json!({"offset": value["offset"], "line": 60, "is_open": false,
        "head": value["head"], "tail": value["tail"]});
    database.execute("UPDATE mark SET key = 'ingest/64/00/0', value = ?1", [old.to_string()]).unwrap();
    drop(database);
    sandbox.write("log", &log.text);
    for (counter, lines) in [("pages:{path}", 40), ("web:{method} {status}", 40), ("pages:{path}", 0)] {
        let run = ["ingest", "-f", "combined", "-c", counter, "--once", "-o", "json", "log"];
        assert_eq!(sandbox.run(&run).expect(0).json()["counted"], lines, "{counter}");
    }
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn nul_bytes_before_lines_are_skipped() {
    let log = Log::new(52, 30, 10);
    let sandbox = Sandbox::new();
    for (name, hole) in [("small", 100), ("large", 3 << 20)] {
        let mut content = vec![0; hole];
        content.extend_from_slice(log.text.as_bytes());
        sandbox.write(name, content);
        let report = sandbox.run(&args(&[name, "--once", "-o", "json"])).expect(0).json();
        assert_eq!((&report["counted"], &report["nul_bytes"]), (&30.into(), &hole.into()), "{name}");
    }
    assert!(sandbox.run(&args(&["small"])).expect(0).err.contains("skipped 100 NUL bytes"));
    assert_counted(&sandbox, &log, 3);
    // A file that was made longer in advance.
    let log = Log::new(58, 40, 10);
    for lines in [10, 20, 40] {
        let mut content = head(&log, lines).as_bytes().to_vec();
        content.resize(3 << 20, 0);
        sandbox.write("ahead", content);
        once(&sandbox, &["ahead"]);
        assert_eq!(sandbox.total("web"), 90 + i64::try_from(lines).unwrap());
    }
}

#[test]
fn runs_at_the_same_moment_count_once() {
    let rounds = std::env::var("COUNTEM_ROUNDS").ok().map_or(5, |rounds| rounds.parse().unwrap());
    let log = Log::new(53, 2000, 10);
    let mut refused = 0;
    for round in 0..rounds {
        let sandbox = Sandbox::new();
        sandbox.write("log", head(&log, 500));
        sandbox.run(&args(&["log", "--once", "-q"])).expect(0);
        sandbox.write("log", &log.text);
        let runs: Vec<_> = (0..5).map(|_| sandbox.start(&args(&["log", "--once"]))).collect();
        for ran in runs.into_iter().map(crate::harness::finish) {
            match ran.code {
                0 => {}
                1 => {
                    assert!(ran.err.contains("another `ingest --once`"), "{}", ran.err);
                    refused += 1;
                }
                code => panic!("exit {code}: {}", ran.err),
            }
        }
        assert_eq!(once(&sandbox, &["log"]), 0, "round {round}: one of them counted all");
        assert_eq!(sandbox.total("web"), 2000, "round {round}");
    }
    assert!(rounds < 5 || refused > 0, "no two runs met");
}
