//! `--follow`: a file that grows, through rotation.

use countem_testkit::{Server, in_own_database, require_server};

use crate::{
    generator::Log,
    harness::{Sandbox, eventually, finish, interrupt},
    ingest::{args, assert_counted, gzip},
};

/// Cuts a log into three parts between lines.
fn thirds(log: &Log) -> [&str; 3] {
    let at = |part: usize| log.text[..log.text.len() * part / 3].rfind('\n').unwrap() + 1;
    [&log.text[..at(1)], &log.text[at(1)..at(2)], &log.text[at(2)..]]
}

fn lines(text: &str) -> i64 {
    text.lines().count().try_into().unwrap()
}

#[test]
fn growth_is_counted_through_rename_and_truncation() {
    for once in [&[][..], &["--once"]] {
        let log = Log::new(31, 900, 10);
        let [one, two, three] = thirds(&log);
        let sandbox = Sandbox::new();
        sandbox.write("log", one);
        let follower = sandbox.start(&[args(&["log", "--follow"]), once.to_vec()].concat());
        eventually(&lines(one), || sandbox.total("web"));

        // The writer still holds the moved file for a moment, and its last line has no newline yet.
        let (most, last) = two.split_at(two.len() - 30);
        sandbox.append("log", most);
        sandbox.rename("log", "log.1");
        sandbox.append("log.1", last.trim_end());
        sandbox.write("log", "");
        eventually(&(lines(one) + lines(two)), || sandbox.total("web"));

        let (some, rest) = three.split_at(three[..three.len() / 2].rfind('\n').unwrap() + 1);
        sandbox.append("log", rest);
        eventually(&(log.lines - lines(some)), || sandbox.total("web"));
        // As `copytruncate` does.
        sandbox.write("log", "");
        sandbox.append("log", some);
        eventually(&log.lines, || sandbox.total("web"));

        let ran = interrupt(follower).expect(0);
        assert!(ran.err.contains("counted 900 of 900 lines"), "{}", ran.err);
        assert_counted(&sandbox, &log, 1);
        assert_eq!(sandbox.writers(), 0);
    }
}

#[test]
fn followed_line_waits_for_its_newline() {
    let log = Log::new(32, 2, 10);
    let sandbox = Sandbox::new();
    let (text, end) = log.text.split_at(log.text.len() - 20);
    sandbox.write("log", text);
    let follower = sandbox.start(&args(&["log", "--follow", "--once"]));
    eventually(&1, || sandbox.total("web"));
    sandbox.append("log", end);
    eventually(&2, || sandbox.total("web"));
    interrupt(follower).expect(0);
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn unfinished_line_is_counted_by_the_next_run() {
    let log = Log::new(33, 200, 10);
    let sandbox = Sandbox::new();
    let (text, end) = log.text.split_at(log.text.len() - 20);
    sandbox.write("log", text);
    let follow = args(&["log", "--follow", "--once"]);
    let follower = sandbox.start(&follow);
    eventually(&199, || sandbox.total("web"));
    interrupt(follower).expect(0);
    sandbox.append("log", end);
    let follower = sandbox.start(&follow);
    eventually(&200, || sandbox.total("web"));
    interrupt(follower).expect(0);
    assert_counted(&sandbox, &log, 1);
}

#[test]
fn several_files_are_followed_together() {
    let log = Log::new(34, 600, 10);
    let sandbox = Sandbox::new();
    let [one, two, three] = thirds(&log);
    sandbox.write("a", one);
    sandbox.write("b", "");
    let follower = sandbox.start(&args(&["a", "b", "--follow", "--once"]));
    eventually(&lines(one), || sandbox.total("web"));
    sandbox.append("b", two);
    sandbox.append("a", three);
    eventually(&log.lines, || sandbox.total("web"));
    interrupt(follower).expect(0);
    assert_counted(&sandbox, &log, 1);
    let report = sandbox.run(&args(&["a", "b", "--once", "-o", "json"])).expect(0).json();
    assert_eq!(report["lines"], 0);
}

#[test]
fn replaced_file_of_equal_length_is_noticed() {
    let (one, two) = (Log::new(35, 50, 10), Log::new(36, 200, 10));
    let sandbox = Sandbox::new();
    sandbox.write("log", &one.text);
    let follower = sandbox.start(&args(&["log", "--follow"]));
    eventually(&50, || sandbox.total("web"));
    // Truncated and longer than before within one poll.
    sandbox.write("log", &two.text);
    eventually(&250, || sandbox.total("web"));
    interrupt(follower).expect(0);
}

#[test]
fn inaccessible_path_does_not_recount_its_file() {
    let log = Log::new(37, 90, 10);
    let sandbox = Sandbox::new();
    let [one, two, three] = thirds(&log);
    sandbox.write("log", one);
    let follower = sandbox.start(&args(&["log", "--follow"]));
    eventually(&lines(one), || sandbox.total("web"));
    // A link to itself cannot be opened; the second part is read after the first, so the path was polled in between.
    sandbox.rename("log", "aside");
    std::os::unix::fs::symlink("log", sandbox.path("log")).unwrap();
    let mut expected = lines(one);
    for part in [two, three] {
        sandbox.append("aside", part);
        expected += lines(part);
        eventually(&expected, || sandbox.total("web"));
    }
    sandbox.rename("aside", "log");
    sandbox.append("log", one);
    eventually(&(expected + lines(one)), || sandbox.total("web"));
    let ran = interrupt(follower).expect(6);
    assert_eq!(ran.err.matches("symbolic links").count(), 1, "{}", ran.err);
    assert_eq!(sandbox.total("web"), expected + lines(one));
}

#[test]
fn archive_cannot_be_followed() {
    let sandbox = Sandbox::new();
    sandbox.write("log.gz", crate::ingest::gzip(b"x\n"));
    let ran = sandbox.run(&args(&["log.gz", "--follow"])).expect(2);
    assert!(ran.err.contains("does not grow"), "{}", ran.err);
}

#[test]
fn missing_file_is_waited_for() {
    for once in [&[][..], &["--once"]] {
        let log = Log::new(38, 60, 10);
        let sandbox = Sandbox::new();
        let follower = sandbox.start(&[args(&["there", "log", "--follow"]), once.to_vec()].concat());
        sandbox.write("there", &log.text);
        eventually(&60, || sandbox.total("web"));
        sandbox.write("log", Log::new(39, 40, 10).text);
        eventually(&100, || sandbox.total("web"));
        interrupt(follower).expect(0);
    }
}

#[test]
fn late_writer_to_a_moved_file_is_counted() {
    for once in [&[][..], &["--once"]] {
        let log = Log::new(60, 90, 10);
        let [one, two, three] = thirds(&log);
        let sandbox = Sandbox::new();
        sandbox.write("log", one);
        let follower = sandbox.start(&[args(&["log", "--follow"]), once.to_vec()].concat());
        eventually(&lines(one), || sandbox.total("web"));
        sandbox.rename("log", "log.1");
        sandbox.write("log", two);
        eventually(&(lines(one) + lines(two)), || sandbox.total("web"));
        // Longer than a writer needs to notice, and shorter than the minutes for which the file is read on.
        std::thread::sleep(std::time::Duration::from_secs(3));
        sandbox.append("log.1", three);
        eventually(&90, || sandbox.total("web"));
        interrupt(follower).expect(0);
        assert_counted(&sandbox, &log, 1);
    }
}

#[test]
fn half_line_of_emptied_file_is_not_counted() {
    for once in [&[][..], &["--once"]] {
        let sandbox = Sandbox::new();
        let follow = ["ingest", "log", "--follow", "-f", "tsv", "--now", "-c", "t:{1}"];
        sandbox.write("log", "whole\nhal");
        let follower = sandbox.start(&[&follow[..], once].concat());
        eventually(&1, || sandbox.total("t"));
        sandbox.write("log", "new\n");
        eventually(&2, || sandbox.total("t"));
        let ran = interrupt(follower).expect(0);
        assert!(ran.err.contains("half a line was cut off"), "{}", ran.err);
        let all = sandbox.run(&["get", "t", "-o", "json"]).expect(0).json();
        assert_eq!(all["counters"], serde_json::json!({ "new": 1, "whole": 1 }));
    }
}

#[test]
fn files_rotated_between_two_looks_are_counted() {
    for once in [&[][..], &["--once"]] {
        let logs: Vec<Log> = (70..74).map(|seed| Log::new(seed, 50, 10)).collect();
        let sandbox = Sandbox::new();
        sandbox.write("log", &logs[0].text);
        let follower = sandbox.start(&[args(&["log", "--follow"]), once.to_vec()].concat());
        eventually(&50, || sandbox.total("web"));
        for log in &logs[1..] {
            for (from, to) in [("log.2", "log.3"), ("log.1", "log.2"), ("log", "log.1")] {
                if sandbox.path(from).exists() {
                    sandbox.rename(from, to);
                }
            }
            sandbox.write("log", &log.text);
        }
        eventually(&200, || sandbox.total("web"));
        interrupt(follower).expect(0);
        assert_eq!(sandbox.total("web"), 200);
    }
}

#[test]
fn followed_file_replaced_by_its_content_continues() {
    let (log, other) = (Log::new(80, 600, 10), Log::new(81, 20, 10));
    let [one, two, three] = thirds(&log);
    let sandbox = Sandbox::new();
    sandbox.write("log", one);
    sandbox.write("other", &other.text);
    let follower = sandbox.start(&args(&["log", "other", "--follow", "--once"]));
    eventually(&(lines(one) + 20), || sandbox.total("web"));
    // As rsync and some editors do.
    for content in [[one, two].concat(), log.text.clone()] {
        sandbox.write("new", &content);
        sandbox.rename("new", "log");
        eventually(&(lines(&content) + 20), || sandbox.total("web"));
    }
    sandbox.append("log", three);
    eventually(&(600 + lines(three) + 20), || sandbox.total("web"));
    interrupt(follower).expect(0);
}

#[test]
fn unread_lines_of_emptied_file_are_counted() {
    for copy in ["log.1", "log.1.gz", "log-20261120"] {
        let log = Log::new(82, 600, 10);
        let [one, two, three] = thirds(&log);
        let sandbox = Sandbox::new();
        // It was never followed.
        sandbox.write("log.2", Log::new(83, 10, 10).text);
        sandbox.write("log", one);
        let follower = sandbox.start(&args(&["log", "--follow", "--once"]));
        eventually(&lines(one), || sandbox.total("web"));
        while_stopped(&follower, || {
            let content = [one, two].concat();
            let is_compressed = std::path::Path::new(copy).extension().is_some_and(|end| end == "gz");
            sandbox.write(copy, if is_compressed { gzip(content.as_bytes()) } else { content.into() });
            sandbox.write("log", three);
        });
        eventually(&600, || sandbox.total("web"));
        interrupt(follower).expect(0);
        assert_counted(&sandbox, &log, 1);
    }
}

/// Does something while no thread of a process runs.
fn while_stopped(child: &countem_testkit::Child, something: impl FnOnce()) {
    use rustix::process::{Pid, Signal, kill_process};
    let id = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::STOP).unwrap();
    let is_stopped = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        threads.flatten().all(|thread| {
            // `1234 (name) T …`; a thread that has just ended has no file.
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    };
    eventually(&true, is_stopped);
    something();
    kill_process(id, Signal::CONT).unwrap();
}

#[test]
fn follower_without_its_mark_ends_with_a_word() {
    let sandbox = Sandbox::new();
    let log = Log::new(75, 50, 10);
    sandbox.write("log", &log.text);
    let follower = sandbox.start(&args(&["log", "--follow", "--once"]));
    eventually(&50, || sandbox.total("web"));
    sandbox.run(&["forget", "log"]).expect(0);
    sandbox.append("log", &log.text);
    let ran = finish(follower).expect(1);
    assert!(ran.err.contains("log"), "{}", ran.err);
    assert_eq!(sandbox.total("web"), 50);
}

#[test]
fn follower_finds_files_rotated_while_it_was_down() {
    for archive in [false, true] {
        let logs: Vec<Log> = (61..66).map(|seed| Log::new(seed, 50, 10)).collect();
        let sandbox = Sandbox::new();
        // Older than everything that was ever followed.
        sandbox.write("log.4.gz", crate::ingest::gzip(logs[4].text.as_bytes()));
        let [begin, rest, _] = thirds(&logs[0]);
        sandbox.write("log", begin);
        let follow = args(&["log", "--follow", "--once"]);
        let follower = sandbox.start(&follow);
        eventually(&lines(begin), || sandbox.total("web"));
        interrupt(follower).expect(0);

        sandbox.append("log", rest);
        sandbox.rename("log", "log.2");
        if archive {
            sandbox.write("log.2.gz", crate::ingest::gzip([begin, rest].concat().as_bytes()));
            std::fs::remove_file(sandbox.path("log.2")).unwrap();
        }
        sandbox.write("log.1", &logs[1].text);
        sandbox.write("log", &logs[2].text);
        let expected = lines(begin) + lines(rest) + 100;
        let follower = sandbox.start(&follow);
        eventually(&expected, || sandbox.total("web"));
        // What was rotated last may have a late writer, too.
        sandbox.append("log.1", &logs[3].text);
        eventually(&(expected + 50), || sandbox.total("web"));
        interrupt(follower).expect(0);
        assert_eq!(sandbox.total("web"), expected + 50);
    }
}

#[test]
fn rotated_files_after_a_lost_one_are_counted() {
    let logs: Vec<Log> = (84..89).map(|seed| Log::new(seed, 30, 10)).collect();
    let sandbox = Sandbox::new();
    // Older than everything that was ever followed.
    sandbox.write("log.4", &logs[4].text);
    sandbox.write("log", &logs[0].text);
    let follow = args(&["log", "--follow", "--once"]);
    let follower = sandbox.start(&follow);
    eventually(&30, || sandbox.total("web"));
    interrupt(follower).expect(0);
    // More rotations than files are kept.
    std::fs::remove_file(sandbox.path("log")).unwrap();
    sandbox.write("log.2", &logs[1].text);
    sandbox.write("log.1", &logs[2].text);
    sandbox.write("log", &logs[3].text);
    let follower = sandbox.start(&follow);
    eventually(&120, || sandbox.total("web"));
    let ran = interrupt(follower).expect(0);
    assert!(ran.err.contains("the file that was followed is gone"), "{}", ran.err);
    assert_eq!(sandbox.total("web"), 120);
}

/// Kills a follower that has begun and counted nothing, rotates its file, and starts the next one.
fn kill_before_the_first_count(store: &str, is_compressed: bool) {
    let (log, next) = (Log::new(76, 60, 10), Log::new(77, 40, 10));
    let sandbox = Sandbox::new();
    let all = |args: &[&str]| sandbox.run(&[args, &["--store", store, "-o", "json"]].concat());
    let total = || match all(&["get", "web", "--bucket", "all"]) {
        ran if ran.code == 3 => 0,
        ran => {
            let counters: crate::harness::Counters =
                serde_json::from_value(ran.expect(0).json()["counters"].clone()).unwrap();
            counters.values().sum::<i64>()
        }
    };
    let marks = || match all(&["marks"]) {
        // There is no store yet.
        ran if ran.code != 0 => 0,
        ran => ran.json()["marks"].as_array().unwrap().len(),
    };
    // Nothing of it is counted, so nothing is flushed.
    sandbox.write("log", "garbage\n");
    let follow = [args(&["log", "--follow", "--once"]), vec!["--store", store]].concat();
    let mut follower = sandbox.start(&follow);
    eventually(&1, marks);
    follower.kill().unwrap();
    assert_eq!(total(), 0);

    sandbox.append("log", &log.text);
    sandbox.rename("log", "log.1");
    if is_compressed {
        sandbox.write("log.1.gz", gzip(&std::fs::read(sandbox.path("log.1")).unwrap()));
        std::fs::remove_file(sandbox.path("log.1")).unwrap();
    }
    // The next one begins alike.
    sandbox.write("log", ["garbage\n", &next.text].concat());
    let follower = sandbox.start(&follow);
    eventually(&100, total);
    interrupt(follower).expect(6);
    assert_eq!(total(), 100);
}

#[test]
fn file_of_killed_follower_is_found() {
    for is_compressed in [false, true] {
        kill_before_the_first_count("sqlite://countem.db", is_compressed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_of_killed_follower_is_found_on_mongodb() {
    if !require_server() {
        return;
    }
    let server = Server::any().await.unwrap();
    let uri = server.uri();
    tokio::task::spawn_blocking(move || kill_before_the_first_count(&in_own_database(&uri), false))
        .await
        .unwrap();
}

#[test]
fn followed_copy_that_lags_behind_waits() {
    let log = Log::new(78, 300, 10);
    let [one, two, three] = thirds(&log);
    for end in [200, 300] {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.path("copy")).unwrap();
        sandbox.write("log", [one, two].concat());
        sandbox.run(&args(&["log", "--once"])).expect(0);
        let counted = lines(one) + lines(two);
        assert_eq!(sandbox.total("web"), counted);
        sandbox.write("copy/log", one);
        // A file that is counted shows that the copy was looked at.
        let other = Log::new(79, 10, 10);
        sandbox.write("other", &other.text);
        let follower = sandbox.start(&args(&["copy/log", "other", "--follow", "--once"]));
        eventually(&(counted + 10), || sandbox.total("web"));
        if end == 300 {
            sandbox.append("copy/log", [two, three].concat());
            eventually(&310, || sandbox.total("web"));
        }
        let ran = interrupt(follower).expect(if end == 300 { 0 } else { 6 });
        assert!(ran.err.contains("not counted until it is longer"), "{}", ran.err);
        assert_eq!(ran.err.contains("left out copy/log"), end != 300, "{}", ran.err);
        assert_eq!(sandbox.total("web"), if end == 300 { 310 } else { counted + 10 });
    }
}

#[test]
fn regrowth_behind_an_equal_banner_is_noticed() {
    for once in [&[][..], &["--once"]] {
        let (banner, one, two) = (Log::new(66, 20, 10), Log::new(67, 50, 10), Log::new(68, 200, 10));
        let sandbox = Sandbox::new();
        sandbox.write("log", [&*banner.text, &one.text].concat());
        let follower = sandbox.start(&[args(&["log", "--follow"]), once.to_vec()].concat());
        eventually(&70, || sandbox.total("web"));
        // Truncated and longer than before within one poll.
        sandbox.write("log", [&*banner.text, &two.text].concat());
        eventually(&290, || sandbox.total("web"));
        interrupt(follower).expect(0);
    }
}

#[test]
fn hole_of_a_truncation_is_skipped() {
    let (one, two) = (Log::new(69, 50, 10), Log::new(70, 60, 10));
    let sandbox = Sandbox::new();
    sandbox.write("log", &one.text);
    let follower = sandbox.start(&args(&["log", "--follow", "--once"]));
    eventually(&50, || sandbox.total("web"));
    // The writer does not notice, and goes on where it was.
    let file = std::fs::File::options().write(true).open(sandbox.path("log")).unwrap();
    file.set_len(0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, two.text.as_bytes(), one.text.len() as u64).unwrap();
    eventually(&110, || sandbox.total("web"));
    let ran = interrupt(follower).expect(0);
    assert!(ran.err.contains("NUL bytes before lines"), "{}", ran.err);
}
