//! `inc`, `config`, `completions`, and laws of every command.

use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use crate::harness::{Sandbox, finish};

#[test]
fn concurrent_processes_count_exactly() {
    let sandbox = Sandbox::new();
    let calls = std::env::var("COUNTEM_CALLS").map_or(64, |calls| calls.parse().unwrap());
    let started = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while started.fetch_add(1, Ordering::Relaxed) < calls {
                    sandbox.run(&["inc", "jobs", "done", "--date", "2015-05-17"]).expect(0);
                }
            });
        }
    });
    assert_eq!(sandbox.counters("jobs", "2015-05-17")["done"], i64::try_from(calls).unwrap());
    assert_eq!(sandbox.writers(), 0, "a process that ends leaves no bookkeeping");
    assert_eq!(fs::read_dir(sandbox.path("")).unwrap().count(), 1, "one file");
}

#[cfg(unix)]
#[test]
fn store_behind_a_link_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "web", "visits"]).expect(0);
    sandbox.rename("countem.db", "target.db");
    std::os::unix::fs::symlink("target.db", sandbox.path("countem.db")).unwrap();
    let before = fs::read(sandbox.path("target.db")).unwrap();
    for args in [&["inc", "web", "visits"][..], &["get", "web"]] {
        let ran = sandbox.run(args).expect(1);
        assert!(ran.err.contains("it is a link; point the store at `"), "{}", ran.err);
    }
    assert_eq!(fs::read(sandbox.path("target.db")).unwrap(), before);
    sandbox.run(&["inc", "web", "visits", "--store", "sqlite://target.db"]).expect(0);
}

#[test]
fn inc_adds_any_number_at_any_time() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "c", "m", "-5", "--at", "2015-05-17T23:59:59.999Z"]).expect(0);
    sandbox.run(&["inc", "c", "m", "--date", "2015-05-17", "--", "-7"]).expect(0);
    sandbox.run(&["inc", "c", "m", "--at", "1431907200"]).expect(0);
    assert_eq!(sandbox.counters("c", "2015-05-17")["m"], -12);
    assert_eq!(sandbox.counters("c", "2015-05-18")["m"], 1);
    sandbox.run(&["inc", "c", "big", "9223372036854775807", "--date", "2015-05-17"]).expect(0);
    let ran = sandbox.run(&["inc", "c", "big", "--date", "2015-05-17"]).expect(1);
    assert!(ran.err.contains("cannot add 1 to `big` in 2015-05-17: "), "{}", ran.err);
}

#[test]
fn day_after_tomorrow_is_refused() {
    let sandbox = Sandbox::new();
    for (flag, time) in
        [("--date", "9999-12-31"), ("--date", "2999-01-01"), ("--time", "2999-01-01T00:00:00Z")]
    {
        let ran = sandbox.run(&["inc", "c", "m", flag, time]).expect(2);
        assert!(ran.err.contains(" is in the future: `inc` counts on days until 2"), "{}", ran.err);
    }
    let tomorrow = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date().tomorrow().unwrap();
    sandbox.run(&["inc", "c", "m", "--date", &tomorrow.to_string()]).expect(0);
    assert_eq!(sandbox.total("c"), 1);
    assert!(sandbox.run(&["inc", "--help"]).expect(0).out.contains("bind services alone"));
}

#[test]
fn inc_counts_under_labels_in_any_order() {
    let sandbox = Sandbox::new();
    let on = |labels: &[&str], code| {
        let labels = labels.iter().flat_map(|label| ["--label", *label]);
        let args = ["inc", "app", "signups", "--date", "2015-05-17"].into_iter().chain(labels);
        sandbox.run(&args.collect::<Vec<_>>()).expect(code)
    };
    on(&["country=DE", "plan=pro"], 0);
    on(&["plan=pro", "country=DE"], 0);
    on(&["note=a=\"b\"", "empty="], 0);
    assert!(on(&["country"], 2).err.contains("expected KEY=VALUE"));
    assert!(on(&["country=DE", "country=FR"], 2).err.contains("label `country` is given twice"));
    assert!(on(&["=DE"], 2).err.contains("is no key of a label"));
    let got = sandbox.run(&["get", "app", "--date", "2015-05-17", "-o", "csv"]).expect(0);
    assert!(got.out.contains(r#""signups{country=""DE"",plan=""pro""}",2"#), "{}", got.out);
    assert!(got.out.contains(r#"signups{empty="""",note=""a=\""b\"""#), "{}", got.out);
}

#[test]
fn inc_names_the_period_that_overflows() {
    let sandbox = Sandbox::new();
    let both = ["--set", "time.periods=day,month", "inc", "c", "m"];
    sandbox.run(&[&both[..], &["9223372036854775807", "--date", "2015-05-17"]].concat()).expect(0);
    let ran = sandbox.run(&[&both[..], &["1", "--date", "2015-05-18"]].concat()).expect(1);
    assert!(ran.err.contains("in 2015-05: ") && ran.err.contains("the other periods have it"), "{}", ran.err);
    assert_eq!(sandbox.counters("c", "2015-05-18")["m"], 1);
}

#[test]
fn names_are_stored_unchanged_or_refused() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(512);
    let names = ["a", "a.b", "a..b", "$inc", "_id", "%2E", " ", "🦀", "-x", &long];
    for (n, name) in names.iter().enumerate() {
        sandbox.run(&["inc", "--date", "2015-05-17", "c", "--", name, &(n + 1).to_string()]).expect(0);
    }
    let counters = sandbox.counters("c", "2015-05-17");
    assert_eq!(counters.len(), names.len());
    for (n, name) in names.iter().enumerate() {
        assert_eq!(counters[*name], i64::try_from(n + 1).unwrap(), "{name}");
    }
    for (bad, why) in [("", "empty"), ("a\nb", "'\\n'"), (&"x".repeat(513), "513 bytes")] {
        let ran = sandbox.run(&["inc", "c", bad]).expect(2);
        assert!(ran.err.contains(why), "{}", ran.err);
    }
    sandbox.run(&["inc", "a/b", "m"]).expect(2);
    sandbox.run(&["inc", "c", "m", "one"]).expect(2);
}

#[test]
fn unusable_store_differs_from_malformed_address() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "text.db",
        "this is not a database, but it is long enough to be taken for one at first sight".repeat(20),
    );
    let ran = sandbox.run(&["--store", "sqlite://text.db", "inc", "c", "m"]).expect(1);
    assert!(ran.err.contains("text.db"), "{}", ran.err);
    let ran = sandbox.run(&["--store", "redis://x", "inc", "c", "m"]).expect(2);
    assert!(ran.err.contains("sqlite://PATH"), "{}", ran.err);
    let ran = sandbox.run(&["--store", "sqlite://missing/x.db", "inc", "c", "m"]).expect(1);
    assert!(ran.err.contains("does not exist"), "{}", ran.err);
    sandbox.run(&["--store", "memory://", "inc", "c", "m"]).expect(0);
}

#[test]
fn configuration_layers_report_all_mistakes_at_once() {
    let sandbox = Sandbox::new();
    let config = |args: &[&str]| sandbox.run(&[&["config"], args].concat());
    let default = config(&["--default"]).expect(0).out;
    assert_eq!(default, countem_config::Config::default_toml());
    sandbox.write(
        "countem.toml",
        "[time]\nzone = \"Europe/Berlin\"\n[store]\nuri = \"mongodb://a:secret@h/d\"\n",
    );
    let shown = config(&[]).expect(0).out;
    assert!(shown.contains("zone = \"Europe/Berlin\"") && !shown.contains("secret"), "{shown}");
    for format in ["json", "ndjson"] {
        let json = config(&["-o", format]).expect(0).json();
        assert_eq!(
            (&json["time"]["zone"], &json["store"]["uri"]),
            (&"Europe/Berlin".into(), &"mongodb://a:****@h/d".into())
        );
    }
    assert!(config(&["--set", "time.zone=Asia/Tokyo"]).expect(0).out.contains("Asia/Tokyo"));
    assert!(config(&["--store", "memory://"]).expect(0).out.contains("uri = \"memory://\""));
    assert!(config(&["--check"]).expect(0).out.contains("countem.toml"));
    sandbox.write("bad.toml", "[time]\nzoen = \"UTC\"\n[flush]\ninterval = \"soon\"\n");
    let ran = config(&["--check", "--config", "bad.toml"]).expect(2);
    assert!(ran.err.contains("`time.zone`") && ran.err.contains("flush.interval"), "{}", ran.err);
    sandbox.run(&["inc", "c", "m", "--config", "missing.toml"]).expect(2);
}

#[test]
fn completions_are_made_for_every_shell() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(sandbox.run(&["completions", shell]).expect(0).out.contains("ingest"), "{shell}");
    }
}

#[test]
fn closed_output_is_no_error() {
    let sandbox = Sandbox::new();
    let lines: String = (0..30_000).map(|n| format!("metric number {n}\n")).collect();
    let tsv = ["ingest", "--format", "tsv", "--now", "--count", "c:{1}"];
    sandbox.run_on(&tsv, lines.as_bytes()).expect(0);
    for args in [
        &["get", "c", "--bucket", "all"][..],
        &["get", "c", "--bucket", "all", "-o", "json"],
        &["completions", "zsh"],
    ] {
        let mut child = sandbox.start(args);
        let mut first = [0; 10];
        let mut stdout = child.streams().stdout.take().unwrap();
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        child.streams().stdout =
            Some(Command::new("true").stdout(Stdio::piped()).spawn().unwrap().stdout.take().unwrap());
        let ran = finish(child).expect(0);
        assert_eq!(ran.err, "", "{args:?}");
    }
}

#[test]
fn help_and_version_are_short() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(&["--version"]).expect(0).out.starts_with("countem 0."));
    let help = sandbox.run(&["--help"]).expect(0).out;
    assert!(help.contains("Exit codes") && help.lines().count() < 64, "{help}");
    for command in [
        "ingest",
        "inc",
        "get",
        "all",
        "top",
        "collections",
        "doctor",
        "quarantine",
        "replay",
        "config",
        "completions",
    ] {
        assert!(help.contains(command), "{command}");
        let help = sandbox.run(&[command, "--help"]).expect(0).out;
        assert!(!help.contains('\u{1b}'), "no colours in a pipe");
    }
    sandbox.run(&[]).expect(2);
    sandbox.run(&["gte", "web"]).expect(2);
}

#[test]
fn locked_store_is_unreachable() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "c", "m"]).expect(0);
    let other = rusqlite::Connection::open(sandbox.path("countem.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (timeout, expected) in [("500ms", 0..3), ("6s", 5..9)] {
        let began = Instant::now();
        let ran = sandbox.run(&["inc", "c", "m", "--timeout", timeout]).expect(4);
        assert!(ran.err.contains("countem.db") && ran.err.contains("locked"), "{}", ran.err);
        assert!(expected.contains(&began.elapsed().as_secs()), "{timeout}: {:?}", began.elapsed());
    }
    other.execute_batch("ROLLBACK").unwrap();
    sandbox.run(&["inc", "c", "m"]).expect(0);
    assert_eq!(sandbox.total("c"), 2);
}

#[test]
fn messages_may_have_no_reader() {
    let sandbox = Sandbox::new();
    for (args, code) in [
        (&["get", "nothing"][..], 3),
        (&["ingest", "/dev/null", "-f", "tsv", "--now", "-c", "c:{1}"], 0),
        (&["get", "nothing"], 3),
    ] {
        let mut child = sandbox.start(args);
        drop(child.streams().stderr.take());
        drop(child.streams().stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{args:?}");
    }
}

#[test]
fn unresponsive_server_is_unreachable_for_every_command() {
    let sandbox = Sandbox::new();
    // A port that was free a moment ago has no listener.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let uri = format!("mongodb://127.0.0.1:{port}/countem");
    for args in [
        &["get", "web"][..],
        &["collections"],
        &["inc", "web", "a", "--set", "shutdown.deadline=1s"],
        &["ingest", "/dev/null", "-f", "tsv", "--now", "-c", "c:{1}"],
    ] {
        let ran = sandbox.run(&[&["--store", &uri], args].concat()).expect(4);
        assert!(ran.err.contains("127.0.0.1"), "{}", ran.err);
    }
}

#[test]
fn silent_server_ends_a_command_in_time() {
    // Accepts connections and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("mongodb://{}/countem", listener.local_addr().unwrap());
    let sandbox = Sandbox::new();
    for command in [&["inc", "c", "m"][..], &["get", "c"], &["all"], &["top", "c"], &["collections"]] {
        let begun = std::time::Instant::now();
        sandbox.run(&[command, &["--store", &uri, "--timeout", "1s"]].concat()).expect(4);
        assert!(begun.elapsed().as_secs() < 5, "{command:?} took {:?}", begun.elapsed());
    }
    let ran = sandbox.run(&["get", "c", "--timeout", "0s"]).expect(2);
    assert!(ran.err.contains("expected a duration"), "{}", ran.err);
}
