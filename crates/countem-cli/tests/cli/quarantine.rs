//! `quarantine`: counts that could not be added are added later or given up, and not lost in between.

use crate::harness::{Sandbox, eventually};

const MOST: i64 = i64::MAX;

/// A counter at its limit and one increment that it could not take.
fn overflowed() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.count(&[&[("big", MOST)], &[("big", 1), ("small", 5)]]);
    assert_eq!(sandbox.quarantined(), [("big".to_owned(), 1)]);
    sandbox
}

#[test]
fn retried_count_is_stored_when_its_counter_fits() {
    let sandbox = overflowed();
    let ran = sandbox.run(&["quarantine", "list"]).expect(0);
    for part in ["ID", "REASON", "big", "exceeds 64 bits", "/2"] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    let ran = sandbox.run(&["quarantine", "retry", "1", "-o", "json"]).expect(6);
    assert!(ran.out.contains("quarantined again"), "{}", ran.out);
    assert_eq!(sandbox.quarantined(), [("big".to_owned(), 1)]);

    sandbox.run(&["inc", "c", "big", "-10"]).expect(0);
    let ran = sandbox.run(&["quarantine", "retry", "--all"]).expect(0);
    assert!(ran.out.contains("stored"), "{}", ran.out);
    assert_eq!(sandbox.quarantined(), []);
    assert_eq!((sandbox.value("big"), sandbox.value("small")), (Some(MOST - 9), Some(5)));
    assert_eq!(sandbox.run(&["quarantine", "retry", "--all"]).expect(0).out, "");
    assert_eq!(sandbox.value("big"), Some(MOST - 9));
    // Later counts are added as usual.
    sandbox.count(&[&[("big", 2)]]);
    assert_eq!(sandbox.value("big"), Some(MOST - 7));
}

#[test]
fn only_the_dropped_count_is_gone() {
    let sandbox = overflowed();
    sandbox.count(&[&[("big", 7)]]);
    sandbox.run(&["quarantine", "drop"]).expect(2);
    sandbox.run(&["quarantine", "drop", "1", "--all"]).expect(2);
    let ran = sandbox.run(&["quarantine", "drop", "1", "99"]).expect(3);
    assert!(ran.err.contains("99"), "{}", ran.err);
    sandbox.run(&["quarantine", "drop", "1"]).expect(0);
    assert_eq!(sandbox.quarantined(), [("big".to_owned(), 7)]);
    sandbox.run(&["quarantine", "drop", "--all", "--yes"]).expect(0);
    assert_eq!(sandbox.quarantined(), []);
    assert_eq!(sandbox.value("big"), Some(MOST));
}

#[test]
fn journal_in_use_is_only_read() {
    let sandbox = overflowed();
    let collector = sandbox.collector();
    assert_eq!(sandbox.quarantined().len(), 1);
    for args in [&["quarantine", "retry", "--all"][..], &["quarantine", "drop", "1"], &["replay"]] {
        let ran = sandbox.run(args).expect(1);
        let user = format!("in use by process {}", std::process::id());
        assert!(ran.err.contains(&user) && ran.err.contains("stopped first"), "{}", ran.err);
    }
    assert_eq!(sandbox.quarantined().len(), 1);
    collector.blocking().shutdown();
    let ran = sandbox.run(&["quarantine", "list", "--journal", "elsewhere"]).expect(3);
    assert!(ran.err.contains("elsewhere"), "{}", ran.err);
    assert!(!sandbox.path("elsewhere").exists());
}

#[test]
fn killed_retry_loses_and_doubles_nothing() {
    let sandbox = overflowed();
    sandbox.run(&["inc", "c", "big", "-10"]).expect(0);
    let other = sandbox.lock_store();
    let mut child = sandbox.start(&["quarantine", "retry", "--all"]);
    eventually(&(1, 0), || {
        let journal = sandbox.journal().summary().unwrap();
        (journal.frozen.batches, journal.quarantined.counters)
    });
    child.kill().unwrap();
    drop(other);
    assert_eq!(sandbox.value("big"), Some(MOST - 10));
    // The quarantine is empty, and the batch of the killed process is delivered.
    sandbox.run(&["quarantine", "retry", "--all"]).expect(0);
    assert_eq!(sandbox.value("big"), Some(MOST - 9));
    sandbox.run(&["quarantine", "retry", "--all"]).expect(0);
    assert_eq!(sandbox.value("big"), Some(MOST - 9));
}

#[test]
fn retry_without_store_is_delivered_later() {
    let sandbox = overflowed();
    sandbox.run(&["inc", "c", "big", "-10"]).expect(0);
    let other = sandbox.lock_store();
    let ran = sandbox.run(&["quarantine", "retry", "1", "--set", "shutdown.deadline=1s"]).expect(4);
    assert!(ran.err.contains("stays in the journal"), "{}", ran.err);
    drop(other);
    sandbox.count(&[&[("small", 1)]]);
    assert_eq!((sandbox.value("big"), sandbox.value("small")), (Some(MOST - 9), Some(6)));
}

/// A counter at its limit and an increment that it could not take, counted without a journal.
fn overflowed_without_journal() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "c", "big", &MOST.to_string(), "--date", "2026-11-20"]).expect(0);
    sandbox.run(&["inc", "c", "big", "2", "--date", "2026-11-20"]).expect(1);
    sandbox
}

#[test]
fn count_without_journal_is_listed_retried_and_gone() {
    let sandbox = overflowed_without_journal();
    let listed = |expected: usize| {
        let json = sandbox.run(&["quarantine", "list", "-o", "json"]).expect(0).json();
        let listed = json["quarantined"].as_array().unwrap().clone();
        assert_eq!(listed.len(), expected, "{listed:?}");
        listed
    };
    let entry = &listed(1)[0];
    assert_eq!(
        (&entry["metric"], &entry["n"], &entry["kept_in"]),
        (&"big".into(), &2.into(), &"store".into())
    );
    let doctor = sandbox.run(&["doctor"]).expect(0).out;
    assert!(doctor.contains("warn  quarantined: 1 increments in 1 counts in the store"), "{doctor}");

    let id = entry["id"].as_str().unwrap();
    let ran = sandbox.run(&["quarantine", "retry", id]).expect(6);
    assert!(ran.out.contains("still quarantined"), "{}", ran.out);
    sandbox.run(&["inc", "c", "big", "-10", "--date", "2026-11-20"]).expect(0);
    let ran = sandbox.run(&["quarantine", "retry", id]).expect(0);
    assert!(ran.out.contains("stored"), "{}", ran.out);
    listed(0);
    sandbox.run(&["quarantine", "retry", id]).expect(3);
    let big = sandbox.run(&["get", "c", "big", "--bucket", "2026-11-20"]).expect(0).out;
    assert_eq!(big, format!("{}\n", MOST - 8));
    let doctor = sandbox.run(&["doctor"]).expect(0).out;
    assert!(!doctor.contains("quarantined"), "{doctor}");
}

#[test]
fn count_without_journal_is_dropped() {
    let sandbox = overflowed_without_journal();
    sandbox.run(&["quarantine", "drop", "s000000000000"]).expect(3);
    sandbox.run(&["quarantine", "drop", "--all", "--yes"]).expect(0);
    let list = sandbox.run(&["quarantine", "list"]).expect(0).out;
    assert_eq!(list, "");
    let big = sandbox.run(&["get", "c", "big", "--bucket", "2026-11-20"]).expect(0).out;
    assert_eq!(big, format!("{MOST}\n"));
}
