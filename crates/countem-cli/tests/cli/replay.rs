//! `replay`: a store that was restored to an older point gets back the batches that the journal keeps, once.

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    harness::{Sandbox, eventually},
    recorded::number,
};

const STORE: &str = "countem.db";

fn replay(sandbox: &Sandbox, args: &[&str], code: i32) -> Value {
    sandbox.run(&[&["replay", "-o", "json"], args].concat()).expect(code).json()
}

fn outcome(report: &Value) -> [i64; 5] {
    ["sent", "already_there", "unknown", "failed", "quarantined"].map(|key| number(report, key))
}

/// A store with counts of two processes, and a copy of it as `old` from the middle of the first.
fn restored() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.count(&[&[("a", 1)], &[("a", 2), ("b", 5)]]);
    sandbox.copy_store(STORE, "old");
    sandbox.count(&[&[("a", 10)], &[("a", -20), ("b", 50)], &[("c", 7)]]);
    sandbox.count(&[&[("a", 100)]]);
    assert_eq!(values(&sandbox), [Some(93), Some(55), Some(7)]);
    sandbox.copy_store("old", STORE);
    assert_eq!(values(&sandbox), [Some(3), Some(5), None]);
    sandbox
}

fn values(sandbox: &Sandbox) -> [Option<i64>; 3] {
    ["a", "b", "c"].map(|metric| sandbox.value(metric))
}

#[test]
fn replay_restores_exactly_the_missing_batches() {
    let sandbox = restored();
    assert_eq!(outcome(&replay(&sandbox, &["--dry-run"], 0)), [4, 2, 0, 0, 0]);
    assert_eq!(values(&sandbox), [Some(3), Some(5), None], "a dry run changes nothing");
    assert_eq!(outcome(&replay(&sandbox, &[], 0)), [4, 2, 0, 0, 0]);
    assert_eq!(values(&sandbox), [Some(93), Some(55), Some(7)]);
    assert_eq!(outcome(&replay(&sandbox, &[], 0)), [0, 6, 0, 0, 0]);
    assert_eq!(values(&sandbox), [Some(93), Some(55), Some(7)]);
    // A store that is gone altogether is restored, too.
    sandbox.copy_store("nothing", STORE);
    assert_eq!(sandbox.run(&["replay", "--dry-run"]).code, 3);
    assert_eq!(outcome(&replay(&sandbox, &[], 0)), [6, 0, 0, 0, 0]);
    assert_eq!(values(&sandbox), [Some(93), Some(55), Some(7)]);
    // Counting continues.
    sandbox.count(&[&[("a", 1000)]]);
    assert_eq!(values(&sandbox), [Some(1093), Some(55), Some(7)]);
}

#[test]
fn failed_replay_can_be_repeated() {
    let sandbox = restored();
    let other = sandbox.lock_store();
    let ran = sandbox.run(&["replay", "-o", "json", "--set", "shutdown.deadline=1s"]).expect(4);
    // A locked store can be read, so that stored batches may be looked up.
    assert!(number(&ran.json(), "failed") >= 4, "{}", ran.out);
    assert!(ran.err.contains("replay again"), "{}", ran.err);
    drop(other);
    replay(&sandbox, &[], 0);
    assert_eq!(values(&sandbox), [Some(93), Some(55), Some(7)]);
}

#[test]
fn since_after_the_restored_point_sends_nothing() {
    let sandbox = Sandbox::new();
    sandbox.count(&[&[("a", 1)]]);
    sandbox.copy_store(STORE, "old");
    let collector = sandbox.collector();
    collector.increment("c", "a", 10);
    collector.blocking().flush().unwrap();
    // The journal keeps times in seconds, so the next batch is stored in a later one.
    eventually(&2, || sandbox.journal().summary().unwrap().resolved.batches);
    let began = Timestamp::now().as_second();
    eventually(&true, || Timestamp::now().as_second() > began);
    let since = (began + 1).to_string();
    collector.increment("c", "a", 100);
    collector.blocking().flush().unwrap();
    collector.blocking().shutdown();
    sandbox.copy_store("old", STORE);
    let ran = sandbox.run(&["replay", "--since", &since]).expect(2);
    assert!(ran.err.contains("older than `--since`"), "{}", ran.err);
    assert_eq!(sandbox.value("a"), Some(1));
    replay(&sandbox, &["--since", "2020-01-01T00:00:00Z"], 0);
    assert_eq!(sandbox.value("a"), Some(111));
    assert_eq!(outcome(&replay(&sandbox, &["--since", &since], 0)), [0, 1, 0, 0, 0]);
    sandbox.run(&["replay", "--since", "yesterday"]).expect(2);
}

#[test]
fn unstored_batches_are_replayed_as_well() {
    let sandbox = Sandbox::new();
    sandbox.count(&[&[("a", 1)]]);
    sandbox.freeze("a", 10);
    assert_eq!(sandbox.journal().summary().unwrap().frozen.batches, 1);
    assert_eq!(outcome(&replay(&sandbox, &[], 0)), [1, 1, 0, 0, 0]);
    assert_eq!(sandbox.value("a"), Some(11));
    assert_eq!(sandbox.journal().summary().unwrap().frozen.batches, 0, "the journal knows it is there");
}

#[test]
fn replayed_count_is_either_stored_or_quarantined() {
    // The batch is refused in part as before, and the journal has that in quarantine already.
    let sandbox = Sandbox::new();
    sandbox.count(&[&[("big", i64::MAX)], &[("big", 1), ("a", 5)]]);
    sandbox.copy_store("nothing", STORE);
    assert_eq!(outcome(&replay(&sandbox, &[], 0)), [2, 0, 0, 0, 0]);
    assert_eq!(sandbox.quarantined(), [("big".to_owned(), 1)]);
    // A count that was dropped meanwhile is quarantined again, once.
    sandbox.run(&["quarantine", "drop", "--all"]).expect(0);
    sandbox.copy_store("nothing", STORE);
    assert_eq!(outcome(&replay(&sandbox, &[], 6)), [2, 0, 0, 0, 1]);
    // Reading cannot tell whether a counter at its limit would change by as much again.
    assert_eq!(outcome(&replay(&sandbox, &[], 0)), [0, 1, 1, 0, 0]);
    assert_eq!(sandbox.quarantined(), [("big".to_owned(), 1)]);
    assert_eq!(sandbox.value("a"), Some(5));

    // The restored store can add it: it leaves the quarantine.
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "c", "big", &i64::MAX.to_string()]).expect(0);
    sandbox.count(&[&[("big", 1), ("a", 5)]]);
    assert_eq!(sandbox.quarantined(), [("big".to_owned(), 1)]);
    sandbox.copy_store("nothing", STORE);
    assert_eq!(outcome(&replay(&sandbox, &[], 0)), [1, 0, 0, 0, 0]);
    assert_eq!((sandbox.quarantined(), sandbox.value("big")), (Vec::new(), Some(1)));
}
