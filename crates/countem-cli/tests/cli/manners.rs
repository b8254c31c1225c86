//! Paths, messages and what is shown of names.

use std::fs;

use crate::harness::Sandbox;

#[test]
fn paths_in_a_file_begin_in_its_folder() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("etc")).unwrap();
    fs::create_dir_all(sandbox.path("work")).unwrap();
    sandbox.write("etc/c.toml", "[store]\nuri = \"sqlite://data.db\"\n[durability]\ndir = \"pending\"\n");
    let file = ["--config", "../etc/c.toml"];
    let run = |variable, args: &[&str]| sandbox.run_in("work", variable, &[args, &file].concat()).expect(0);
    run(None, &["inc", "web", "a"]);
    assert!(sandbox.path("etc/data.db").exists());
    let shown = run(None, &["config"]).out;
    assert!(shown.contains("../etc/pending") && shown.contains("sqlite://../etc/data.db"), "{shown}");
    run(None, &["inc", "web", "a", "--store", "sqlite://flag.db"]);
    run(None, &["inc", "web", "a", "--set", "store.uri=sqlite://set.db"]);
    run(Some(("COUNTEM_STORE", "sqlite://short.db")), &["inc", "web", "a"]);
    run(Some(("COUNTEM__STORE__URI", "sqlite://variable.db")), &["inc", "web", "a"]);
    for name in ["flag.db", "set.db", "short.db", "variable.db"] {
        assert!(sandbox.path("work").join(name).exists(), "{name}");
    }
    // A file found in the working directory has that folder.
    sandbox.write("etc/countem.toml", "[store]\nuri = \"sqlite://data.db\"\n");
    assert!(sandbox.run_in("etc", None, &["get", "web", "a"]).expect(0).out.starts_with('1'));
    let absolute = sandbox.path("absolute.db");
    sandbox.write("etc/c.toml", format!("[store]\nuri = \"sqlite://{}\"\n", absolute.display()));
    run(None, &["inc", "web", "a"]);
    assert!(absolute.exists());
}

#[test]
fn key_without_effect_is_named() {
    let sandbox = Sandbox::new();
    for (args, is_said) in [
        (&["inc", "web", "a", "--set", "durability.level=journal"][..], true),
        (&["get", "web", "--set", "limits.pending_counters=5"], true),
        (&["get", "web", "--set", "flush.interval=1s"], false),
        (&["get", "web", "-q", "--set", "limits.pending_counters=5"], false),
        (&["doctor", "--set", "durability.level=memory"], false),
        (&["config", "--set", "limits.pending_counters=5"], false),
    ] {
        let ran = sandbox.run(args).expect(0);
        assert_eq!(ran.err.contains("has no effect here"), is_said, "{args:?}: {}", ran.err);
    }
}

#[test]
fn count_in_memory_is_warned_of() {
    let ran = Sandbox::new().run(&["inc", "web", "a", "--store", "memory://"]).expect(0);
    assert!(ran.err.contains("`memory://` ends with this command, and the count with it"), "{}", ran.err);
}

#[test]
fn names_are_escaped_for_people_only() {
    let sandbox = Sandbox::new();
    let (bad, shown) = ("a\u{202e}b\u{2066}", r"a\u{202e}b\u{2066}");
    sandbox.run(&["inc", "web", bad]).expect(0);
    for command in [&["get", "web"][..], &["all"], &["top", "web"]] {
        let ran = sandbox.run(command).expect(0);
        assert!(ran.out.contains(shown) && !ran.out.contains('\u{202e}'), "{command:?}: {}", ran.out);
        let json = sandbox.run(&[command, &["-o", "json"]].concat()).expect(0).json();
        assert!(json.to_string().contains(bad), "{command:?}: {json}");
        assert!(sandbox.run(&[command, &["-o", "csv"]].concat()).expect(0).out.contains(bad), "{command:?}");
    }
    let ran = sandbox.run(&["get", "web", "a\u{202e}c"]).expect(3);
    assert!(ran.err.contains(r"a\u{202e}c") && !ran.err.contains('\u{202e}'), "{}", ran.err);

    let file = "log\u{1b}[31m\u{202e}\nx";
    sandbox.write(file, "no time\n2015-05-17T00:00:00Z\tb\n");
    let args = ["-f", "tsv", "--time-field", "1", "-c", "files:{2}", "--once"];
    let ran = sandbox.run(&[&["ingest", file][..], &args].concat()).expect(6);
    let all = format!("{}{}", ran.out, ran.err);
    assert!(all.contains(r"log\u{1b}[31m\u{202e}\nx:1: "), "{all}");
    assert!(!all.contains('\u{1b}') && !all.contains('\u{202e}'), "{all}");
    let ran = sandbox.run(&["marks"]).expect(0);
    assert!(ran.out.contains(r"\u{202e}\nx") && !ran.out.contains('\u{1b}'), "{}", ran.out);
    let ran = sandbox.run(&["ingest", "missing\u{1b}[2J", "-f", "tsv", "--now", "-c", "x:{1}"]).expect(3);
    assert!(ran.err.contains(r"missing\u{1b}[2J") && !ran.err.contains('\u{1b}'), "{}", ran.err);
    let ran = sandbox.run(&["doctor", "--journal", "j\u{1b}[2J"]).expect(1);
    assert!(ran.out.contains(r"j\u{1b}[2J") && !ran.out.contains('\u{1b}'), "{}", ran.out);
}

#[test]
fn csv_for_spreadsheets_has_no_formula() {
    let sandbox = Sandbox::new();
    for metric in ["=1+1", "@x", "plain"] {
        sandbox.run(&["inc", "web", metric, "-5"]).expect(0);
    }
    let safe = sandbox.run(&["get", "web", "-o", "csv", "--csv-safe"]).expect(0).out;
    assert!(
        safe.contains(",'=1+1,-5\n") && safe.contains(",'@x,-5\n") && safe.contains(",plain,-5\n"),
        "{safe}"
    );
    assert!(sandbox.run(&["get", "web", "-o", "csv"]).expect(0).out.contains(",=1+1,-5\n"));
    assert!(sandbox.run(&["get", "web", "--csv-safe"]).expect(2).err.contains("add `-o csv`"));
    assert!(sandbox.run(&["get", "--help"]).expect(0).out.contains("--csv-safe"));
}

#[test]
fn help_and_version_are_commands() {
    let sandbox = Sandbox::new();
    let said = |args: &[&str]| sandbox.run(args).expect(0).out;
    assert_eq!(said(&["version"]), said(&["--version"]));
    assert_eq!(said(&["help"]), said(&["--help"]));
    assert_eq!(said(&["help", "ingest"]), said(&["ingest", "--help"]));
}

#[test]
fn srv_address_is_looked_up() {
    let ran = Sandbox::new().run(&["get", "web", "--store", "mongodb+srv://nothing.invalid/x"]).expect(4);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    // Without a network, the answer of the DNS may be waited for until the end.
    let is_known =
        ran.err.contains("`mongodb+srv://nothing.invalid/x`: the host name of the URI cannot be resolved");
    assert!(is_known || ran.err.contains("did not answer within"), "{}", ran.err);
}

#[test]
fn only_near_names_are_suggested() {
    let sandbox = Sandbox::new();
    for (setting, near) in [
        ("nosuch=1", None),
        ("flush.intervall=1s", Some("`flush.interval`")),
        ("time.zone=Mars/X", None),
        ("time.zone=Berlni", Some("`Europe/Berlin`")),
        ("time.periods=xyz", None),
        ("time.periods=dai", Some("`day`")),
    ] {
        let ran = sandbox.run(&["all", "--set", setting]).expect(2);
        let hint = ran.err.split_once("did you mean ").map(|(_, hint)| hint);
        assert!(near.is_none() == hint.is_none(), "{setting}: {}", ran.err);
        assert!(near.is_none_or(|near| hint.unwrap().contains(near)), "{setting}: {}", ran.err);
    }
}

#[test]
fn every_error_names_value_and_remedy() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "web", "a"]).expect(0);
    fs::create_dir(sandbox.path("dir")).unwrap();
    sandbox.write("noise.db", [0xa5; 5000]);
    sandbox.write("log", "2015-05-17T00:00:00Z\tb\n".repeat(1000));
    sandbox.write("cut.gz", [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b]);
    // A frame of one raw block with two of its five bytes.
    sandbox.write("cut.zst", b"\x28\xb5\x2f\xfd\x20\x05\x29\0\0ab");
    #[cfg(unix)]
    std::os::unix::fs::symlink(sandbox.path("countem.db"), sandbox.path("link.db")).unwrap();
    // A port that was free a moment ago has no listener.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = format!("mongodb://127.0.0.1:{port}/x");
    let ingest = |file: &'static str, rest: &[&'static str]| -> Vec<&'static str> {
        [&["ingest", file, "-f", "tsv"], rest].concat()
    };
    let store = |uri| vec!["get", "web", "--store", uri];
    let cases: Vec<(Vec<&str>, i32, &[&str])> = vec![
        (vec!["get", "web", "--date", "2015-13-01"], 2, &["2015-13-01", "--date"]),
        (vec!["get", "web", "--bucket", "x"], 2, &["`x`", "2026-11-20"]),
        (vec!["get", "wbe"], 3, &["`wbe`", "`web`"]),
        (vec!["get", "web", "b"], 3, &["`b`", "`a`"]),
        (vec!["top", "web", "-n", "x"], 2, &["'x'", "from 1 to"]),
        (vec!["top", "web", "-n", "0"], 2, &["'0'", "from 1 to"]),
        (vec!["inc", "web", "a", "x"], 2, &["'x'", "whole number from -9223372036854775808"]),
        (vec!["inc", "web", "a", "99999999999999999999"], 2, &["to 9223372036854775807"]),
        (vec!["inc", "web", "a", "--time", "nope"], 2, &["nope", "2015-05-17T10:05:03Z"]),
        (vec!["inc", "a/b", "x"], 2, &["`a/b`", "allowed: letters"]),
        (vec!["get", "web", "-o", "xml"], 2, &["xml", "ndjson"]),
        (vec!["get", "web", "--timeout", "0"], 2, &["'0'", "`10s`"]),
        (vec!["get", "web", "--set", "time.zone=Mars/X"], 2, &["`Mars/X`", "IANA"]),
        (vec!["get", "web", "--set", "flush.interval=soon"], 2, &["`soon`", "10s"]),
        (vec!["get", "web", "--set", "nokey"], 2, &["`nokey`", "section.key=value"]),
        (vec!["get", "web", "--config", "missing"], 2, &["`missing`"]),
        (vec!["get", "web", "--config", "dir"], 2, &["`dir`"]),
        (ingest("log", &["-c", "web:{2"]), 2, &["web:{2", "without its `}`"]),
        (ingest("log", &["-c", "web"]), 2, &["--count web", "`web:{status}`"]),
        (ingest("log", &["--now", "-c", "w:x", "--where", "1~("]), 2, &["--where 1~(", "unclosed group"]),
        (vec!["ingest", "log", "--regex", "(", "--now", "-c", "w:{1}"], 2, &["--regex (", "unclosed group"]),
        (ingest("log", &["--now", "-c", "w:x", "--input-zone", "Mars/X"]), 2, &["Mars/X", "IANA"]),
        (ingest("missing", &["--now", "-c", "w:x"]), 3, &["`missing`"]),
        (ingest("dir", &["--now", "-c", "w:x"]), 2, &["`dir`", "folder"]),
        (ingest("cut.gz", &["--now", "-c", "w:x"]), 1, &["`cut.gz`", "could not read all of"]),
        (store("sqlite://dir"), 1, &["dir`", "folder"]),
        (store("sqlite://noise.db"), 1, &["noise.db`", "no SQLite database"]),
        #[cfg(unix)]
        (store("sqlite://link.db"), 1, &["link.db`", "point the store at `", "countem.db`"]),
        (store("sqlite://missing.db"), 3, &["missing.db`", "--store"]),
        (store("countem.db"), 2, &["did you mean `sqlite://countem.db`"]),
        (store("foo://x"), 2, &["`foo://`", "sqlite://PATH"]),
        (store("mongodb://"), 2, &["`mongodb://`", "mongodb://HOST/DATABASE"]),
        (store("mongodb://h:99999/x"), 2, &["port 99999", "1 to 65535"]),
        (store("sqlite:bad.db"), 2, &["did you mean `sqlite://bad.db`"]),
        (vec!["get", "web", "--date", "-99999999d"], 2, &["`-99999999d`", "0001 to 9999"]),
        (vec!["inc", "web", "a", "--date", "-99999999d"], 2, &["`-99999999d`", "0001 to 9999"]),
        (vec!["get", "web", "--bucket", "2018-W53"], 2, &["no week `2018-W53`", "2018 has 52 weeks"]),
        (vec!["inc", "web", "a", "9223372036854775808"], 2, &["too large", "to 9223372036854775807"]),
        (vec!["get", "web", "--set", "nosuch=1"], 2, &["unknown key `nosuch`", "config --default"]),
        (vec!["get", "web", "a\u{9b}b"], 2, &[r"a\u{9b}b"]),
        (vec!["inc", "web", "a\nb"], 2, &[r"a\nb"]),
        (vec!["get", "web", "--bucket", "a\u{9b}\nb"], 2, &[r"`a\u{9b}\nb` is not a bucket"]),
        (vec!["get", "web", "--date", "a\u{9b}\nb"], 2, &[r"`a\u{9b}\nb` is not a day"]),
        (ingest("log", &["-c", "x:{2}", "--now", "--year", "abc"]), 2, &["'abc'", "from 1970 to 9999"]),
        (ingest("log", &["-c", "x:{2}", "--now", "--year", "18"]), 2, &["'18'", "from 1970 to 9999"]),
        (vec!["ingest", "log", "-c", "x:y"], 2, &["--regex", "--log-format", "--format auto"]),
        (vec!["ingest", "log", "-c", "x:y", "--regex", "("], 2, &["unclosed group"]),
        (vec!["ingest", "log", "-c", "x:y", "--log-format", ""], 2, &["`--log-format `", "has no variable"]),
        (ingest("cut.zst", &["-c", "x:{1}", "--now"]), 1, &["cut.zst", "zstd", "cut off"]),
        (ingest("missing", &["-c", "x:{1}", "--now"]), 3, &["`missing`", "No such file"]),
        (store(&closed), 4, &["does not answer"]),
        (vec!["quarantine", "retry", "99"], 3, &["99"]),
        (vec!["replay"], 3, &["--journal"]),
        (vec!["inc", "web"], 2, &["<METRIC>", "usage: countem inc"]),
        (vec!["get", "web", "--peroid", "day"], 2, &["'--peroid'", "'--period'"]),
        (vec!["foo"], 2, &["'foo'", "--help"]),
        (vec!["all", "-o", "xml"], 2, &["'xml'", "table, json, ndjson, csv"]),
        (vec!["top", "web", "-n", "99999999999999999999999"], 2, &["too large", "from 1 to"]),
        (vec!["series", "web", "-n", "99999999999999999999999"], 2, &["too large", "from 1 to"]),
        (vec!["top", "web", "--level", "x"], 2, &["whole number from 1"]),
        (vec!["inc", "web", "a", "--time", "2015-05-17T10:05:03+25:00"], 2, &["+25:00", "not a time"]),
        (vec!["forget", "nothing"], 3, &["`nothing`", "countem marks"]),
    ];
    for (args, code, parts) in cases {
        let ran = sandbox.run(&args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
        for part in parts {
            assert!(ran.err.contains(part), "{args:?}: no `{part}` in {}", ran.err);
        }
        for word in [
            "{ ",
            "::",
            "invalid digit",
            "target type",
            "panicked",
            "Some(",
            "whole buffer",
            "os error",
            "\u{9b}",
        ] {
            assert!(!ran.err.contains(word), "{args:?}: `{word}` in {}", ran.err);
        }
        let lines: Vec<_> = ran.err.lines().filter(|line| line.starts_with("countem: ")).collect();
        assert_eq!(lines.len(), 1, "{args:?}: {}", ran.err);
    }
}
