//! `doctor`: reports failures, changes no count, runs beside a counting process.

use std::fs;

use crate::{
    harness::{Ran, Sandbox},
    recorded::JOURNAL,
};

fn doctor(sandbox: &Sandbox, args: &[&str], code: i32) -> Ran {
    let ran = sandbox.run(&[&["doctor"], args].concat()).expect(code);
    assert!(!ran.out.contains('\u{1b}'), "no colours in a pipe");
    ran
}

#[track_caller]
fn assert_said(ran: &Ran, lines: &[(&str, &str)]) {
    for (beginning, part) in lines {
        let is_said = ran.out.lines().any(|line| line.starts_with(beginning) && line.contains(part));
        assert!(is_said, "no `{beginning}` with `{part}` in\n{}", ran.out);
    }
}

#[test]
fn sound_installation_has_no_failure() {
    let sandbox = Sandbox::new();
    let none = doctor(&sandbox, &["--audit"], 0);
    assert_said(
        &none,
        &[("ok    configuration", "no file"), ("warn  store", "no `sqlite://countem.db` yet")],
    );
    assert_said(&none, &[("ok    journal", "`memory`")]);
    assert!(!sandbox.path("countem.db").exists() && !sandbox.path(JOURNAL).exists(), "nothing is made");
    doctor(&sandbox, &["--journal", "missing"], 1);

    sandbox.write("countem.toml", "[durability]\nlevel = \"journal\"\n");
    assert_said(&doctor(&sandbox, &[], 0), &[("warn  journal", "yet")]);
    sandbox.count(&[&[("a", 1)], &[("a", 2), ("b", -5)]]);
    let ran = doctor(&sandbox, &["--audit"], 0);
    assert_said(&ran, &[("ok    configuration", "countem.toml"), ("ok    store", "can be reached and used")]);
    assert_said(&ran, &[("ok    journal", "not in use"), ("ok    journal", "undamaged")]);
    assert_said(&ran, &[("ok    pending", "0 increments"), ("ok    stored", "3 increments in 2 batches")]);
    assert_said(&ran, &[("ok    audit", "2 stored batches are in the store")]);
    let json = doctor(&sandbox, &["-o", "json"], 0).json();
    assert_eq!(
        (&json["findings"][0]["state"], &json["findings"][0]["about"]),
        (&"ok".into(), &"configuration".into())
    );
}

#[test]
fn doctor_creates_tables_in_an_empty_file() {
    let sandbox = Sandbox::new();
    sandbox.write("countem.db", "");
    assert_said(&doctor(&sandbox, &[], 0), &[("ok    store", "can be reached and used")]);
    assert_eq!(sandbox.writers(), 0, "the tables are there");
    let help = sandbox.run(&["doctor", "--help"]).expect(0).out;
    assert!(!help.contains("Nothing is changed") && help.contains("an empty one, gets the tables"), "{help}");
}

#[test]
fn doctor_runs_beside_a_running_process() {
    let sandbox = Sandbox::new();
    sandbox.count(&[&[("a", 1)]]);
    let collector = sandbox.collector();
    collector.increment("c", "a", 1);
    collector.blocking().flush().unwrap();
    let ran = doctor(&sandbox, &["--audit"], 0);
    assert_said(&ran, &[("ok    journal", &format!("in use by process {}", std::process::id()))]);
    collector.increment("c", "a", 1);
    assert!(collector.blocking().shutdown().is_complete());
    assert_eq!(sandbox.value("a"), Some(3));
}

#[test]
fn audit_finds_what_a_replay_repairs() {
    let sandbox = Sandbox::new();
    sandbox.count(&[&[("a", 1)]]);
    sandbox.copy_store("countem.db", "old");
    sandbox.count(&[&[("a", 10)], &[("b", 5)]]);
    sandbox.copy_store("old", "countem.db");
    let ran = doctor(&sandbox, &["--audit"], 1);
    assert_said(&ran, &[("fail  audit", "lacks batch"), ("fail  audit", "2 stored batches are missing")]);
    assert_said(&ran, &[("ok    audit", "1 stored batches")]);
    doctor(&sandbox, &[], 0);
    sandbox.run(&["replay"]).expect(0);
    doctor(&sandbox, &["--audit"], 0);
}

#[test]
fn unsent_batches_are_a_warning() {
    let sandbox = Sandbox::new();
    sandbox.count(&[&[("big", i64::MAX)], &[("big", 1)]]);
    sandbox.freeze("a", 10);
    let ran = doctor(&sandbox, &["--audit"], 0);
    assert_said(&ran, &[("warn  frozen", "1 increments in 1 batches"), ("warn  quarantined", "1 counts")]);
    assert_said(&ran, &[("ok    audit", "0 of 1 batches that wait")]);
}

#[test]
fn each_failure_has_its_text_and_exit_code() {
    let sandbox = Sandbox::new();
    sandbox.count(&[&[("a", 1)]]);
    // A port that was free a moment ago has no listener.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let uri = format!("mongodb://127.0.0.1:{port}/countem");
    let ran = doctor(&sandbox, &["--store", &uri, "--audit"], 4);
    assert_said(
        &ran,
        &[("fail  store", "127.0.0.1"), ("ok    journal", "undamaged"), ("fail  audit", "no store")],
    );
    sandbox.write("text.db", "no database, but long enough to be taken for one ".repeat(40));
    assert_said(&doctor(&sandbox, &["--store", "sqlite://text.db"], 1), &[("fail  store", "text.db")]);
    let bad = ["--set", "time.zoen=UTC", "--set", "flush.interval=soon"];
    let ran = doctor(&sandbox, &bad, 1);
    assert_said(&ran, &[("fail  configuration", "time.zone"), ("fail  configuration", "flush.interval")]);

    let file = sandbox.path(JOURNAL).join("journal.db");
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096..].fill(0xA5);
    fs::write(&file, &bytes).unwrap();
    assert_said(&doctor(&sandbox, &["--audit"], 1), &[("fail  journal", "damaged"), ("ok    store", "used")]);
    assert_eq!(fs::read(&file).unwrap(), bytes, "nothing was changed");
}

#[test]
fn damaged_pages_fail_unless_quick() {
    let sandbox = Sandbox::new();
    let lines: String = (0..5000).map(|n| format!("m{n}\n")).collect();
    sandbox.run_on(&["ingest", "-", "-f", "tsv", "--now", "-c", "x:{1}", "-q"], lines.as_bytes()).expect(0);
    let ran = sandbox.run(&["doctor"]).expect(0);
    assert!(ran.out.contains("ok    counters: 5,000 were read"), "{}", ran.out);
    let quick = sandbox.run(&["doctor", "--quick"]).expect(0);
    assert!(!quick.out.contains("counters:"), "{}", quick.out);
    let mut file = std::fs::read(sandbox.path("countem.db")).unwrap();
    for page in file[4 * 4096..].chunks_mut(4096) {
        page[..200].fill(0xa5);
    }
    sandbox.write("countem.db", file);
    let ran = sandbox.run(&["doctor"]).expect(1);
    assert!(ran.out.contains("fail  counters"), "{}", ran.out);
}
