//! Buckets expire: reads of them are refused, and their rows are removed.

use std::{collections::BTreeSet, process::Command};

use countem_core::jiff::{SignedDuration, Timestamp};
use countem_testkit::{Server, in_own_database, require_server};

use crate::harness::{BINARY, Sandbox};

const KEPT: [&str; 8] = [
    "--set",
    "time.periods=hour,day,all",
    "--set",
    "time.retention=hour=48h,day=30d",
    "--set",
    "collections.strict.periods=hour,day",
    "--set",
    "collections.strict.retention=hour=48h,day=30d",
];

/// The beginning of the id of the moment `hours` ago.
fn ago(hours: i64, length: usize) -> String {
    (Timestamp::now() - SignedDuration::from_hours(hours)).to_string()[..length].to_owned()
}

fn check_refused(sandbox: &Sandbox, store: &[&str]) {
    let run = |args: &[&str]| sandbox.run(&[store, args].concat());
    run(&[&KEPT[..], &["inc", "web", "m", "5"]].concat()).expect(0);
    let (day, hour, old) = (ago(10 * 24, 10), ago(10 * 24, 13), ago(60 * 24, 10));
    // Its hours have expired, and its day is kept.
    run(&["inc", "web", "m", "7", "--date", &day]).expect(0);
    assert_eq!(run(&["get", "web", "m", "--date", &day]).expect(0).out.trim(), "7");
    assert_eq!(run(&["get", "web", "m", "--bucket", "all"]).expect(0).out.trim(), "12");
    for bucket in [&hour, &old, &old[..7].to_owned(), &old[..4].to_owned()] {
        // The year of a day two months ago may be over, and is not kept either way.
        for command in [&["get", "web", "m"][..], &["get", "web"], &["all"], &["top", "web"]] {
            let refused = run(&[command, &["--bucket", bucket]].concat()).expect(1);
            assert!(refused.err.contains("has expired: the first of its"), "{}", refused.err);
            assert_eq!(refused.out, "");
        }
    }
    // What is kept forever still counts.
    run(&["inc", "web", "m", "--date", &old]).expect(0);
    assert_eq!(run(&["get", "web", "m", "--bucket", "all"]).expect(0).out.trim(), "13");
    let refused = run(&["inc", "strict", "m", "--date", &old]).expect(1);
    assert!(refused.err.contains("has expired: no stored period"), "{}", refused.err);
    let lines = [60, 10].map(|days| format!("{{\"ts\":\"{}Z\"}}\n", ago(days * 24, 19)));
    sandbox.write("lines", lines.concat());
    let ingest = ["ingest", "lines", "--format", "ndjson", "--time-field", "ts", "--count", "strict:x"];
    let ingested = run(&ingest);
    assert!(ingested.err.contains("time has expired"), "{}", ingested.err);
    assert_eq!(run(&["get", "strict", "x", "--date", &day]).expect(0).out.trim(), "1");
    let quarantined = run(&["quarantine", "list"]);
    assert!(!quarantined.out.contains("expired"), "{}", quarantined.out);
    // A configuration with another retention.
    let other = ["--set", "time.retention=hour=24h,day=30d", "inc", "web", "m"];
    let refused = run(&other).expect(2);
    assert!(
        refused.err.contains("the store keeps hour buckets `48h`, and `24h` is configured"),
        "{}",
        refused.err
    );
}

#[test]
fn expired_buckets_are_refused_on_sqlite() {
    let sandbox = Sandbox::new();
    check_refused(&sandbox, &[]);
}

#[test]
fn expired_buckets_are_refused_on_mongodb() {
    if !require_server() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Server::any()).unwrap();
    check_refused(&Sandbox::new(), &["--store", &in_own_database(&server.uri())]);
}

#[test]
fn total_of_expiring_days_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.run(&["--set", "time.retention=day=30d", "inc", "web", "m", "5"]).expect(0);
    let listed = sandbox.run(&["collections", "-l"]).expect(6);
    assert!(listed.out.contains("the first of its day buckets that is kept is `"), "{}", listed.out);
}

/// The zone of the process is of no concern: the collection's decides.
#[test]
fn zone_of_the_process_removes_no_other_rows() {
    let left = |zone: &str| -> BTreeSet<String> {
        let sandbox = Sandbox::new();
        sandbox
            .run(&["--set", "time.periods=hour", "--set", "time.retention=hour=48h", "inc", "web", "m"])
            .expect(0);
        let file = rusqlite::Connection::open(sandbox.path("countem.db")).unwrap();
        for hours in 0..120 {
            file.execute("INSERT OR IGNORE INTO counter VALUES ('web', ?1, 'n', 1)", [ago(hours, 13)])
                .unwrap();
        }
        sandbox.write("none", "");
        let mut ingest = Command::new(BINARY);
        ingest.args([
            "ingest",
            "none",
            "--format",
            "ndjson",
            "--time-field",
            "ts",
            "--count",
            "web:x",
            "--store",
        ]);
        ingest.arg(format!("sqlite://{}", sandbox.path("countem.db").display())).env("TZ", zone);
        ingest.current_dir(sandbox.path("."));
        let ran = ingest.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let mut select = file.prepare("SELECT bucket FROM counter WHERE metric = 'n'").unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let (utc, west) = (left("UTC"), left("America/Los_Angeles"));
    // Kept for 48 hours after their end, and removed two hours later.
    assert!((50..=52).contains(&utc.len()), "{} rows are left", utc.len());
    assert!(utc.symmetric_difference(&west).count() <= 1, "an hour may have passed: {utc:?} {west:?}");
}

#[test]
fn series_of_all_time_misses_no_bucket() {
    let sandbox = Sandbox::new();
    let day = |ago: i64| {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        today.checked_sub(jiff::Span::new().days(ago)).unwrap().to_string()
    };
    let set = ["--set", "time.periods=minute,day", "--set", "time.retention=minute=1h"];
    sandbox.run(&[&["inc", "w", "m", "5", "--date", "-7d"], &set[..]].concat()).expect(0);
    let series = |more: &[&str]| {
        let ran =
            sandbox.run(&[&["series", "w", "--range", "all", "--fill", "none", "-o", "csv"], more].concat());
        (ran.code, ran.out.lines().skip(1).collect::<Vec<_>>().join(" "), ran.err)
    };
    // The minutes are gone; the days are not.
    assert_eq!(series(&[]).1, format!("w,m,{},5", day(7)));
    sandbox.run(&["inc", "w", "m", "3", "--date", "-1d"]).expect(0);
    sandbox.run(&["inc", "w", "m", "1"]).expect(0);
    assert_eq!(series(&[]).1, format!("w,m,{},5 w,m,{},3 w,m,{},1", day(7), day(1), day(0)));
    let (code, out, err) = series(&["--step", "hour"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("kept"), "{err}");

    // Where the only period expires, all of time is refused in every step.
    let sandbox = Sandbox::new();
    let set = ["--set", "time.periods=day", "--set", "time.retention=day=30d"];
    sandbox.run(&[&["inc", "w", "m", "5", "--date", "-3d"], &set[..]].concat()).expect(0);
    for step in ["day", "week", "month"] {
        let ran = sandbox.run(&["series", "w", "--range", "all", "--step", step]).expect(1);
        assert!(ran.err.contains("kept"), "{step}: {}", ran.err);
    }
    sandbox.run(&["series", "w", "--range", "25d"]).expect(0);
}
