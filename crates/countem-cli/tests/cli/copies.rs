//! Copies, backups and exports of stores that cannot be read whole, are counted meanwhile, or end by kill -9.

use std::{fs::File, path::Path, time::Instant};

use countem_testkit::{Server, in_own_database, require_server};
use mongodb::{
    Client,
    bson::{Document, doc},
};

use crate::{
    harness::{BINARY, Sandbox, finish},
    transfer::{digest, store, write_days},
};

/// Fills the store with counters of days and months.
fn fill(sandbox: &Sandbox) {
    write_days(sandbox, "x.csv", 25_000);
    sandbox.run(&["import", "x.csv", "--set", "time.periods=day,month"]).expect(0);
}

fn has_parts(sandbox: &Sandbox) -> bool {
    let entries = std::fs::read_dir(sandbox.path(".")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name())
        .any(|name| name.to_string_lossy().contains(".countem-part"))
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_counters_are_named_and_left_out() {
    if !require_server() {
        return;
    }
    let server = Server::any().await.unwrap();
    let uri = in_own_database(&server.uri());
    let sandbox = Sandbox::new();
    for metric in ["bad", "good"] {
        sandbox.run(&["inc", "web", metric, "--date", "2015-05-17", "--store", &uri]).expect(0);
    }
    let client = Client::with_uri_str(&uri).await.unwrap();
    let web = client.default_database().unwrap().collection::<Document>("web");
    let set = doc! { "$set": { "c.bad": 12.5 } };
    let updated = web.update_one(doc! { "_id": "2015-05-17/1" }, set).await.unwrap();
    assert_eq!(updated.modified_count, 1);

    let csv = sandbox.run(&["export", "--store", &uri]).expect(6);
    assert!(csv.err.contains("`bad` of `web` in 2015-05-17 cannot be read"), "{}", csv.err);
    assert!(csv.out.contains("web,day,2015-05-17,bad,\"error: the stored value is 12.5"), "{}", csv.out);
    assert!(csv.out.contains("web,day,2015-05-17,good,1\n"), "{}", csv.out);
    let lines = sandbox.run(&["export", "-o", "ndjson", "--store", &uri]).expect(6);
    for (name, text) in [("x.csv", &csv.out), ("x.ndjson", &lines.out)] {
        sandbox.write(name, text);
        let refused = sandbox.run(&["import", name]).expect(1);
        assert!(refused.err.contains("`bad` was exported without a value"), "{}", refused.err);
    }
    let copy = ["copy", "--from", &uri, "--to", "sqlite://copy.db"];
    let copied = sandbox.run(&copy).expect(6);
    assert!(copied.err.contains("`bad` of `web` in 2015-05-17 is not copied"), "{}", copied.err);
    let again = sandbox.run(&copy).expect(6);
    assert!(again.err.contains("lacks counters of its source"), "{}", again.err);
    let counters = sandbox.run(&["export", "--store", "sqlite://copy.db"]).expect(0);
    assert_eq!(digest(&counters), digest(&copied));
    assert_eq!(digest(&csv), digest(&copied), "those that can be read are all there");

    let typo = in_own_database(&server.uri());
    sandbox.run(&["copy", "--from", &typo, "--to", "sqlite://none.db"]).expect(3);
    assert!(!sandbox.path("none.db").exists(), "a source without counters makes no target");
}

#[test]
fn copy_of_a_counted_source_says_so() {
    let sandbox = Sandbox::new();
    fill(&sandbox);
    let copy = ["copy", "--from", "sqlite://countem.db", "--to", "sqlite://copy.db"];
    let mut copying = sandbox.start(&copy);
    while copying.try_wait().unwrap().is_none() {
        sandbox.run(&["inc", "web", "m0", "--date", "2015-02-01"]).expect(0);
    }
    let copied = finish(copying).expect(6);
    assert!(copied.err.contains("was counted while it was copied"), "{}", copied.err);
    let held = sandbox.run(&["export", "--store", "sqlite://copy.db", "--file", "copy.csv"]).expect(0);
    assert_eq!(digest(&held), digest(&copied), "the digest is that of what was written");
    let again = sandbox.run(&copy).expect(6);
    assert!(again.err.contains("lacks counters of its source"), "{}", again.err);
}

#[test]
fn copy_keeps_every_revision_of_the_schedule() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "web", "m", "2", "--date", "2015-05-17"]).expect(0);
    let changed = ["--set", "time.periods=hour,day", "--set", "time.zone=Europe/Berlin"];
    sandbox.run(&[&["inc", "web", "m", "3", "--change-schedule"], &changed[..]].concat()).expect(0);
    let kept =
        ["--set", "collections.web.periods=minute,day", "--set", "collections.web.retention=minute=90d"];
    sandbox.run(&[&["inc", "web", "m", "4", "--change-schedule"], &changed[..], &kept].concat()).expect(0);
    let copied =
        sandbox.run(&["copy", "--from", "sqlite://countem.db", "--to", "sqlite://copy.db"]).expect(0);
    let schedules = |name: &str| -> Vec<String> {
        let ran = sandbox.run(&["doctor", "--store", &store(&sandbox, name)]);
        ran.out.lines().filter(|line| line.contains("schedule")).map(str::to_owned).collect()
    };
    assert_eq!(schedules("copy.db"), schedules("countem.db"));
    assert!(schedules("copy.db").len() >= 3, "{:?}", schedules("copy.db"));
    let to = store(&sandbox, "copy.db");
    assert_eq!(digest(&sandbox.run(&["export", "--store", &to]).expect(0)), digest(&copied));
    let counting = [&["inc", "web", "m", "--store", &to], &changed[..], &kept].concat();
    sandbox.run(&counting).expect(0);
}

#[test]
fn killed_backup_and_export_leave_no_half_file() {
    let sandbox = Sandbox::new();
    fill(&sandbox);
    let expected = digest(&sandbox.run(&["export", "--file", "all.csv"]).expect(0));
    let whole_csv = std::fs::read(sandbox.path("all.csv")).unwrap();
    for command in [&["backup"][..], &["export", "--file"]] {
        let began = Instant::now();
        sandbox.run(&[command, &[&format!("{}.whole", command[0])]].concat()).expect(0);
        let (whole, mut interrupted, mut parts) = (began.elapsed(), 0, 0);
        for round in 1..=8_u32 {
            let name = format!("{}{round}", command[0]);
            let args = [command, &[&name]].concat();
            let mut child = sandbox.start(&args);
            let began = Instant::now();
            while began.elapsed() < whole * round / 9 && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            interrupted += u32::from(!child.kill().unwrap().success());
            parts += u32::from(has_parts(&sandbox));
            if !sandbox.path(&name).exists() {
                sandbox.run(&args).expect(0);
            }
            if command[0] == "export" {
                assert!(std::fs::read(sandbox.path(&name)).unwrap() == whole_csv, "round {round}");
            } else {
                let csv = format!("{name}.csv");
                let from = ["export", "--store", &store(&sandbox, &name), "--file", &csv];
                assert_eq!(digest(&sandbox.run(&from).expect(0)), expected, "round {round}");
            }
        }
        assert!(interrupted >= 4 && parts > 0, "{interrupted} runs were killed, {parts} while they wrote");
        assert!(!has_parts(&sandbox), "the next run writes over what a killed one left");
    }
}

#[test]
fn file_of_a_running_export_is_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "web", "m"]).expect(0);
    let other = File::create(sandbox.path("x.csv.countem-part")).unwrap();
    other.lock().unwrap();
    for args in [&["export", "--file", "x.csv"][..], &["backup", "x.csv"]] {
        let ran = sandbox.run(args).expect(1);
        assert!(ran.err.contains("another process is writing `x.csv.countem-part`"), "{}", ran.err);
    }
    drop(other);
    sandbox.run(&["export", "--file", "x.csv"]).expect(0);
    assert!(!has_parts(&sandbox));
}

/// Runs a command on a terminal, and returns what it shows there.
fn on_terminal(sandbox: &Sandbox, args: &[&str]) -> String {
    const SPAWN: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let args = [&["-c", SPAWN, BINARY], args].concat();
    sandbox.run_as(None, Path::new("python3"), &args).expect(0).out
}

#[test]
fn progress_is_shown_on_terminals_alone() {
    let sandbox = Sandbox::new();
    write_days(&sandbox, "x.csv", 25_000);
    let commands = [
        (&["import", "x.csv"][..], "rows read"),
        (&["export", "--file", "FILE"], "counters exported"),
        (&["copy", "--from", "sqlite://countem.db", "--to", "sqlite://FILE"], "counters copied and compared"),
        (&["backup", "FILE"], "counters compared"),
    ];
    for (args, unit) in commands {
        let named = |name: &str| -> Vec<String> {
            if args[0] == "import" {
                std::fs::remove_file(sandbox.path("countem.db")).ok();
            }
            args.iter().map(|arg| arg.replace("FILE", &format!("{}-{name}", args[0]))).collect()
        };
        let terminal = |args: Vec<String>, more: &[&str]| {
            let args: Vec<_> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
            on_terminal(&sandbox, &args)
        };
        let seen = terminal(named("seen"), &[]);
        assert!(seen.contains(unit), "{args:?}: {seen}");
        let quiet = terminal(named("quiet"), &["--quiet"]);
        assert!(!quiet.contains(unit), "{args:?}: {quiet}");
        let piped = named("piped");
        let piped = sandbox.run(&piped.iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
        assert!(!piped.err.contains(unit), "{args:?}: {}", piped.err);
    }
}
