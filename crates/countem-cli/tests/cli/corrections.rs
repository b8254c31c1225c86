//! Corrections of stored counts, and their history.

use serde_json::json;

use crate::harness::{Ran, Sandbox};

const WHY: [&str; 4] = ["--reason", "wrong names", "--author", "ann"];

impl Sandbox {
    fn correct(&self, args: &[&str]) -> Ran {
        self.run(&[args, &WHY].concat())
    }

    /// Returns the stored value in a bucket.
    fn value_in(&self, metric: &str, bucket: &str) -> Option<i64> {
        let ran = self.run(&["get", "web", metric, "--bucket", bucket]);
        if ran.code == 3 { None } else { Some(ran.expect(0).out.trim().parse().unwrap()) }
    }
}

/// Counts three metrics, in days and months.
fn counted() -> Sandbox {
    let sandbox = Sandbox::new();
    for (metric, day, n) in [
        ("old", "2015-05-16", "5"),
        ("old", "2015-05-17", "7"),
        ("new", "2015-05-17", "1"),
        ("x", "2015-06-01", "2"),
    ] {
        sandbox.run(&["inc", "web", metric, n, "--date", day, "--set", "time.periods=day,month"]).expect(0);
    }
    sandbox
}

#[test]
fn counter_is_corrected_in_every_period() {
    let sandbox = counted();
    let ran = sandbox.correct(&["correct", "web", "old", "--to", "2", "--date", "2015-05-17"]).expect(0);
    assert!(ran.out.starts_with("set `old` of `web` to 2 in 2015-05-17: 1 counter ("), "{}", ran.out);
    assert_eq!(
        (sandbox.value_in("old", "2015-05-17"), sandbox.value_in("old", "2015-05")),
        (Some(2), Some(7))
    );
    sandbox.correct(&["correct", "web", "old", "--add", "-3", "--date", "2015-05-17"]).expect(0);
    assert_eq!(
        (sandbox.value_in("old", "2015-05-17"), sandbox.value_in("old", "2015-05")),
        (Some(-1), Some(4))
    );
    sandbox.correct(&["correct", "web", "old", "--to", "100", "--bucket", "2015-05"]).expect(0);
    assert_eq!(sandbox.value_in("old", "2015-05"), Some(100));
    assert_eq!(sandbox.value_in("old", "2015-05-01"), Some(96), "the difference is in the first day");
}

#[test]
fn metrics_are_renamed_merged_and_deleted() {
    let sandbox = counted();
    let ran = sandbox.correct(&["rename", "web", "x", "y"]).expect(0);
    assert!(ran.out.starts_with("rename `x` of `web` to `y`: 1 counter ("), "{}", ran.out);
    assert_eq!((sandbox.value_in("x", "2015-06"), sandbox.value_in("y", "2015-06-01")), (None, Some(2)));
    let ran = sandbox.correct(&["rename", "web", "old", "new"]).expect(2);
    assert!(ran.err.contains("`new` has counts already, in 2015-05-17: `merge` adds to them"), "{}", ran.err);
    sandbox.correct(&["merge", "web", "old", "y", "--into", "new"]).expect(0);
    assert_eq!((sandbox.value_in("new", "2015-05"), sandbox.value_in("new", "2015-06")), (Some(13), Some(2)));
    assert_eq!(sandbox.counters("web", "2015-05-16"), [("new".to_owned(), 5)].into());
    sandbox.correct(&["delete", "web", "new", "--range", "2015-05-17", "--yes"]).expect(0);
    assert_eq!((sandbox.value_in("new", "2015-05"), sandbox.value_in("new", "2015-05-17")), (Some(5), None));
    let ran = sandbox.correct(&["delete", "web", "--all", "--yes", "-o", "json"]).expect(0);
    assert_eq!(ran.json()["corrections"][0]["amount"], 7);
    assert_eq!(sandbox.run(&["collections"]).expect(0).out, "");
    assert_eq!(sandbox.run(&["history", "web"]).expect(0).out.lines().count(), 5);
    assert_eq!(sandbox.writers(), 0, "no bookkeeping is left");
}

#[test]
fn dry_run_shows_both_values_and_changes_nothing() {
    let sandbox = counted();
    let before = sandbox.run(&["export"]).expect(0).out;
    let ran =
        sandbox.run(&["rename", "web", "old", "other", "--range", "2015-05-17", "--dry-run", "-o", "json"]);
    let row = |bucket: &str, metric: &str, before: Option<i64>, after: Option<i64>| json!({"bucket": bucket, "metric": metric, "before": before, "after": after});
    let changes = [
        row("2015-05-17", "old", Some(7), None),
        row("2015-05-17", "other", None, Some(7)),
        row("2015-05", "old", Some(12), Some(5)),
        row("2015-05", "other", None, Some(7)),
    ];
    let ran = ran.expect(0);
    for change in &changes {
        assert!(ran.json()["changes"].as_array().unwrap().contains(change), "{change}: {}", ran.out);
    }
    assert_eq!(ran.json()["changes"].as_array().unwrap().len(), 4);
    assert!(
        ran.err.contains("would rename `old` of `web` to `other` in 2015-05-17: 1 counter"),
        "{}",
        ran.err
    );
    let csv = sandbox.run(&["delete", "web", "x", "--dry-run", "-o", "csv"]).expect(0).out;
    assert_eq!(csv, "bucket,metric,before,after\n2015-06-01,x,2,\n2015-06,x,2,\n");
    sandbox.run(&["correct", "web", "old", "--to", "1", "--date", "2015-05-17", "--dry-run"]).expect(0);
    assert_eq!(sandbox.run(&["export"]).expect(0).out, before);
    assert_eq!(sandbox.run(&["history", "-o", "json"]).expect(0).json(), json!({"corrections": []}));
}

#[test]
fn correction_without_sense_is_refused() {
    let sandbox = counted();
    let before = sandbox.run(&["export"]).expect(0).out;
    for (args, code, words) in [
        (&["rename", "web", "none", "other"][..], 3, "`none` was not counted in `web`"),
        (&["rename", "none", "old", "other"], 3, "`old` was not counted in `none`"),
        (&["delete", "web", "old"], 2, "add `--yes`"),
        (&["delete", "web", "--yes"], 2, "METRIC"),
        (&["merge", "web", "old", "--into", "old"], 2, "cannot be moved to itself"),
        (&["correct", "web", "old"], 2, "--add"),
        (&["correct", "web", "old", "--to", "1", "--bucket", "2015-05-17T10"], 1, "stores no hour buckets"),
        (&["correct", "web", "old", "--to", "1", "--date", "9000-01-01"], 2, "in the future"),
        (&["correct", "web", "old", "--add", "9223372036854775807", "--date", "2015-05-17"], 2, "64 bits"),
        (&["delete", "web", "old", "--range", "2015-05-17T10", "--yes"], 2, "cannot be told from the rest"),
    ] {
        let ran = sandbox.correct(args).expect(code);
        assert!(ran.err.contains(words), "{args:?}: {}", ran.err);
    }
    let ran = sandbox.run(&["rename", "web", "old", "other", "--author", "ann"]).expect(2);
    assert!(ran.err.contains("add `--reason TEXT`"), "{}", ran.err);
    sandbox.run(&["rename", "web", "old", "other", "--author", "ann", "--reason", " "]).expect(2);
    let absent = Sandbox::new().correct(&["rename", "web", "old", "other"]).expect(3);
    assert!(absent.err.contains("there is no store"), "{}", absent.err);
    assert_eq!(sandbox.run(&["export"]).expect(0).out, before);
}

#[test]
fn history_shows_hostile_text_safely() {
    let sandbox = counted();
    let reason = "\u{1b}[31m<img src=x onerror=alert(1)>\u{202e}\n=1+1, \"";
    let args = ["rename", "web", "old", "n{k=\"v\"}", "--author", "=cmd", "--reason", reason];
    sandbox.run(&args).expect(0);
    sandbox.correct(&["correct", "web", "x", "--to", "9", "--date", "2015-06-01"]).expect(0);
    let table = sandbox.run(&["history"]).expect(0).out;
    assert!(!table.contains(['\u{1b}', '\u{202e}']) && table.contains(r"\u{1b}[31m<img"), "{table}");
    let all = sandbox.run(&["history", "-o", "json"]).expect(0).json();
    let entries = all["corrections"].as_array().unwrap();
    assert_eq!((&entries[0]["reason"], &entries[0]["author"]), (&json!(reason), &json!("=cmd")));
    assert_eq!(entries[0]["target"], "n{k=\"v\"}");
    let second = &entries[1];
    assert_eq!((&second["before"], &second["after"], &second["amount"]), (&json!(2), &json!(9), &json!(7)));
    assert_eq!(
        (&second["kind"], &second["state"], &second["range"]),
        (&json!("set"), &json!("done"), &json!("2015-06-01"))
    );
    let last = sandbox.run(&["history", "web", "-n", "1", "-o", "ndjson"]).expect(0).json();
    assert_eq!(last["correction"], "set `x` of `web` to 9 in 2015-06-01");
    assert!(sandbox.run(&["history", "-o", "csv", "--csv-safe"]).expect(0).out.contains("'=cmd"));
    assert_eq!(sandbox.run(&["history", "other"]).expect(0).out, "");
}
