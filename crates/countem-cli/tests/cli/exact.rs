//! Imports and copies after which a store would answer otherwise than its source are refused.

use std::fmt::Write as _;

use countem_core::{
    Bucket,
    jiff::{SignedDuration, Timestamp},
};
use countem_transfer::Identity;

use crate::{
    harness::Sandbox,
    transfer::{digest, store},
};

const HEADER: &str = "collection,bucket,metric,value\n";

/// Imports rows into a new store, and returns what was said.
#[track_caller]
fn import(sandbox: &Sandbox, rows: &str, set: &[&str], code: i32) -> String {
    sandbox.write("x.csv", format!("{HEADER}{rows}"));
    std::fs::remove_file(sandbox.path("new.db")).ok();
    let to = store(sandbox, "new.db");
    let set: Vec<_> = set.iter().flat_map(|set| ["--set", set]).collect();
    let ran = sandbox.run(&[&["import", "x.csv", "--store", &to], &set[..]].concat()).expect(code);
    assert_eq!(sandbox.path("new.db").exists(), code == 0, "a refused import creates no store");
    ran.err
}

#[test]
fn complete_copy_is_compared_with_its_source() {
    let sandbox = Sandbox::new();
    let copy = ["copy", "--from", "sqlite://countem.db", "--to", "sqlite://copy.db"];
    sandbox.run(&["inc", "w", "a"]).expect(0);
    let copied = digest(&sandbox.run(&copy).expect(0));
    let again = sandbox.run(&copy).expect(0);
    assert!(again.err.contains(&format!("copied already, digest {copied}")), "{}", again.err);

    let backup = std::fs::read(sandbox.path("countem.db")).unwrap();
    sandbox.run(&["inc", "w", "a", "10"]).expect(0);
    let why = "`sqlite://countem.db` was counted since the copy, and differ";
    let counted = sandbox.run(&copy).expect(1);
    assert!(counted.err.contains(why) && counted.err.contains("copy to an empty store"), "{}", counted.err);

    // Another store of the same name.
    std::fs::remove_file(sandbox.path("countem.db")).unwrap();
    sandbox.run(&["inc", "w", "b"]).expect(0);
    let other = sandbox.run(&copy).expect(1);
    assert!(other.err.contains(why), "{}", other.err);

    sandbox.write("countem.db", backup);
    sandbox.run(&copy).expect(0);
    sandbox.run(&["inc", "w", "a", "--store", "sqlite://copy.db"]).expect(0);
    let target = sandbox.run(&copy).expect(1);
    assert!(target.err.contains("`sqlite://copy.db` was counted since the copy"), "{}", target.err);
    sandbox.run(&["inc", "w", "c"]).expect(0);
    let both = sandbox.run(&copy).expect(1);
    assert!(both.err.contains("`sqlite://countem.db` and `sqlite://copy.db` were counted"), "{}", both.err);
}

#[test]
fn copy_has_a_source_and_a_lasting_target() {
    let sandbox = Sandbox::new();
    let source = sandbox.run(&["copy", "--from", "memory://", "--to", "sqlite://copy.db"]).expect(3);
    assert!(source.err.contains("there is no store `memory://`"), "{}", source.err);
    assert!(!sandbox.path("copy.db").exists());
    sandbox.run(&["inc", "w", "a"]).expect(0);
    let target = sandbox.run(&["copy", "--from", "sqlite://countem.db", "--to", "memory://"]).expect(2);
    assert!(target.err.contains("`memory://` ends with this command"), "{}", target.err);
}

#[test]
fn same_rows_in_another_order_count_once() {
    let sandbox = Sandbox::new();
    let rows: Vec<_> = (0..25_000).map(|row| format!("web,2015-02-{:02},m{row},1", row % 28 + 1)).collect();
    sandbox.write("x.csv", format!("{HEADER}{}\n", rows.join("\n")));
    let reversed: Vec<_> = rows.iter().rev().map(String::as_str).collect();
    sandbox.write("y.csv", format!("{HEADER}{}\n", reversed.join("\n")));
    sandbox.run(&["import", "x.csv"]).expect(0);
    let again = sandbox.run(&["import", "y.csv"]).expect(0);
    assert!(again.err.contains("imported already"), "{}", again.err);
    assert_eq!(sandbox.total("web"), 25_000);

    let identity = |rows: &[&str]| {
        let mut identity = Identity::default();
        for row in rows {
            let fields: Vec<_> = row.split(',').collect();
            identity.push(fields[0], fields[1].parse::<Bucket>().unwrap(), fields[2], 1);
        }
        identity.to_string()
    };
    let texts: Vec<_> = rows.iter().map(String::as_str).collect();
    let set_mark = |set: &str| {
        let database = rusqlite::Connection::open(sandbox.path("countem.db")).unwrap();
        let changed = database.execute(&format!("UPDATE mark SET {set} WHERE key LIKE 'import/%'"), []);
        assert_eq!(changed.unwrap(), 1);
    };
    // An import that ended after its first chunk.
    let (rows, first) = (10_000, identity(&texts[..10_000]));
    set_mark(&format!(
        "value = json_set(value, '$.rows', {rows}, '$.identity', '{first}', '$.file', 'as-it-was')"
    ));
    let refused = sandbox.run(&["import", "y.csv"]).expect(1);
    assert!(refused.err.contains("in another order: import `as-it-was` again"), "{}", refused.err);
    assert_eq!(sandbox.total("web"), 25_000, "nothing of it is stored");
    sandbox.run(&["import", "x.csv"]).expect(0);
    assert_eq!(sandbox.total("web"), 40_000, "the other chunks are");
    // The mark of an earlier version.
    let old = format!("import/{}-25000", identity(&texts));
    set_mark(&format!("key = '{old}', value = json_remove(value, '$.identity')"));
    let again = sandbox.run(&["import", "x.csv"]).expect(0);
    assert!(again.err.contains("imported already"), "{}", again.err);
}

#[test]
fn coarse_bucket_is_the_sum_of_finer_ones() {
    let sandbox = Sandbox::new();
    let periods = ["time.periods=hour,day"];
    let error = import(&sandbox, "w,2015-05-17T10,a,5\nw,2015-05-17,a,7\n", &periods, 1);
    let why = "x.csv:2: `a` of `w` is 7 in 2015-05-17, and the rows of its hour buckets add up to 5: import";
    assert!(error.contains(why), "{error}");
    assert!(error.contains("nothing was imported"), "{error}");
    for rows in ["w,2015-05-17,a,5\nw,2015-05-18T01,a,0\n", "w,2015-05-17T10,a,5\nw,2015-05-18,a,0\n"] {
        assert!(import(&sandbox, rows, &periods, 1).contains("in 2015-05-17, and"), "a missing row");
    }
    let whole = "w,2015-05-17T10,a,5\nw,2015-05-17T11,a,-1\nw,2015-05-17,a,4\nv,2015-05-17,b,9\nv,2015-05-17T00,b,9\n";
    import(&sandbox, whole, &periods, 0);
    // Weeks nest in no month, and both are sums of days.
    let days = "w,2026-11-01,a,1\nw,2026-11-02,a,2\nw,2026-W44,a,1\nw,2026-W45,a,2\n";
    let set = ["time.periods=day,week,month,all"];
    import(&sandbox, &format!("{days}w,2026-11,a,3\nw,all,a,3\n"), &set, 0);
    assert!(import(&sandbox, &format!("{days}w,2026-11,a,4\nw,all,a,4\n"), &set, 1).contains("in 2026-11"));
    // The same rows are exact in one zone alone.
    let night = "w,2015-05-17T20,a,5\nw,2015-05-17,a,5\n";
    import(&sandbox, night, &periods, 0);
    let error = import(&sandbox, night, &[periods[0], "time.zone=Asia/Tokyo"], 1);
    assert!(
        error.contains("is 0 in 2015-05-18, and") || error.contains("is 5 in 2015-05-17, and"),
        "{error}"
    );
}

#[test]
fn export_of_expired_days_keeps_them_refused() {
    let sandbox = Sandbox::new();
    let day =
        |days: i64| (Timestamp::now() - SignedDuration::from_hours(24 * days)).to_string()[..10].to_owned();
    let kept = ["--set", "time.periods=day,all", "--set", "time.retention=day=30d"];
    for (days, n) in [(60, "3"), (2, "4")] {
        sandbox.run(&[&["inc", "web", "m", n, "--date", &day(days)], &kept[..]].concat()).expect(0);
    }
    for (format, name) in [("csv", "x.csv"), ("ndjson", "x.ndjson")] {
        let exported = sandbox.run(&["export", "-o", format]).expect(0);
        let said = "day buckets of `web` before ";
        assert!(exported.err.contains(said) && exported.err.contains("have expired"), "{}", exported.err);
        sandbox.write(name, exported.out);
        let to = ["--store", &format!("sqlite://{name}.db")];
        let import = [&["import", name, "--set", "time.periods=day,all"], &to[..]].concat();
        let refused = sandbox.run(&import).expect(1);
        let why = "`m` of `web` is 7 in all, and the rows of its day buckets add up to 4";
        assert!(
            refused.err.contains(why) && refused.err.contains("`--set time.retention="),
            "{}",
            refused.err
        );
        sandbox.run(&[&import[..], &["--set", "time.retention=day=30d"]].concat()).expect(0);
        let get = |args: &[&str]| sandbox.run(&[&["get", "web", "m"], args, &to[..]].concat());
        assert!(get(&["--date", &day(60)]).expect(1).err.contains("has expired"), "as in the source");
        assert_eq!(get(&["--bucket", "all"]).expect(0).out.trim(), "7");
    }
}

#[test]
fn row_of_no_moment_is_refused() {
    let sandbox = Sandbox::new();
    for (bucket, set) in [
        ("9999-12-31", "time.zone=UTC"),
        ("2011-12-30", "time.zone=Pacific/Apia"),
        ("0001-01-01T00", "time.zone=America/New_York"),
    ] {
        let (periods, rows) = match bucket.len() {
            10 => ("time.periods=day", format!("w,2015-05-17,a,1\nw,{bucket},a,1\n")),
            _ => ("time.periods=hour,day", format!("w,2015-05-17T00,a,1\nw,{bucket},a,1\n")),
        };
        let error = import(&sandbox, &rows, &[periods, set], 1);
        let why = format!("x.csv:3: no moment is counted in {bucket} by the store, whose days are those of ");
        assert!(error.contains(&why), "{error}");
    }
    import(&sandbox, "w,9999-12-30,a,1\nw,0001-01-01,a,1\n", &[], 0);
    sandbox.run(&["inc", "w", "a", "--set", "time.zone=Pacific/Apia"]).expect(0);
    let never = sandbox.run(&["get", "w", "--date", "2011-12-30"]).expect(2);
    assert!(never.err.contains("there was no 2011-12-30 in Pacific/Apia"), "{}", never.err);
    sandbox.run(&["get", "w", "--date", "2011-12-29"]).expect(0);
}

/// The hours alone cannot tell how much of them is of which day.
#[test]
fn hour_of_two_days_is_refused() {
    let sandbox = Sandbox::new();
    let set = ["time.periods=hour,day", "time.zone=Asia/Kathmandu"];
    let error = import(&sandbox, "w,2015-05-17T10,a,1\nw,2015-05-17T18,a,1\n", &set, 1);
    assert!(error.contains("x.csv:3: 2015-05-17T18 lies in more than one day of Asia/Kathmandu"), "{error}");
    import(&sandbox, "w,2015-05-17T10,a,1\nw,2015-05-17T17,a,1\n", &set, 0);
    let error = import(&sandbox, "w,2015-W20,a,1\n", &["time.periods=week,month"], 1);
    assert!(error.contains("2015-W20 lies in more than one month"), "{error}");
}

#[test]
fn zone_of_days_is_said() {
    let sandbox = Sandbox::new();
    let said = import(&sandbox, "w,2015-05-17,a,1\n", &["time.zone=Asia/Tokyo"], 0);
    assert!(said.contains("its days are taken as those of Asia/Tokyo"), "{said}");
    let said = import(&sandbox, "w,2015-05-17T10,a,1\n", &["time.periods=hour"], 0);
    assert!(!said.contains("days"), "{said}");
    let exported = sandbox.run(&["export", "-o", "ndjson", "--store", "sqlite://new.db"]).expect(0);
    sandbox.write("x.ndjson", exported.out);
    let said = sandbox.run(&["import", "x.ndjson", "--set", "time.periods=hour"]).expect(0).err;
    assert!(!said.contains("zone"), "{said}");
}

#[test]
fn unclear_input_is_refused_in_words() {
    let sandbox = Sandbox::new();
    let mut lines = String::new();
    writeln!(lines, "{{\"collection\":\"w\",\"bucket\":\"all\",\"metric\":\"a\",\"value\":\"5\"}}").unwrap();
    sandbox.write("x.ndjson", lines);
    sandbox.write("columns.csv", format!("{HEADER}w,2015-05-17,a,1\n"));
    sandbox.write("bom.csv", "\u{feff}");
    for (args, code, why) in [
        (&["import", "x.ndjson"][..], 1, "x.ndjson:1: value `\"5\"` is no whole number"),
        (
            &["import", "columns.csv", "--collection", "v"],
            1,
            "there is a column `collection`, and `--collection`",
        ),
        (&["import", "bom.csv"], 1, "`bom.csv` is empty"),
        (&["import", "-", "--format", "csv"], 2, "`-` is standard input"),
        (&["top", "w", "-n", "-1"], 2, "expected a whole number from 1 to"),
    ] {
        let refused = sandbox.run(args).expect(code);
        assert!(refused.err.contains(why), "{args:?}: {}", refused.err);
        assert!(!sandbox.path("countem.db").exists());
    }
    sandbox.run(&["inc", "w", "=1"]).expect(0);
    for args in [&["backup", "-"][..], &["export", "--file", "-"]] {
        let refused = sandbox.run(args).expect(2);
        assert!(refused.err.contains("`-` is standard output"), "{}", refused.err);
        assert!(!sandbox.path("-").exists());
    }
    let safe = sandbox.run(&["export", "-o", "csv", "--csv-safe"]).expect(0);
    assert!(safe.err.contains("to import it, add `--csv-safe`"), "{}", safe.err);
}

#[test]
fn unusable_range_of_an_export_has_its_reason() {
    let sandbox = Sandbox::new();
    let set = ["--set", "time.periods=hour,day", "--set", "time.retention=hour=48h,day=30d"];
    sandbox.run(&[&["inc", "web", "m", "--set", "time.zone=Asia/Kathmandu"], &set[..]].concat()).expect(0);
    let export = |range: &str, code: i32| sandbox.run(&["export", "--range", range]).expect(code).err;
    let said = export("2015-05-17", 2);
    for why in [
        "`2015-05-17` is not made up of whole hour buckets of `web`",
        "the day buckets of `web` before ",
        " have expired",
    ] {
        assert!(said.contains(why), "{said}");
    }
    assert!(!said.contains("minute") && !said.contains("step"), "{said}");
    export("yesterday", 0);
}

#[test]
fn skipped_times_and_large_amounts_have_their_words() {
    let sandbox = Sandbox::new();
    let zone = ["--set", "time.zone=Europe/Berlin"];
    let inc = sandbox.run(&[&["inc", "w", "a", "--time", "2020-03-29 02:30"], &zone[..]].concat()).expect(2);
    assert!(inc.err.contains("clocks were set forward over this time"), "{}", inc.err);
    sandbox.write(
        "x.csv",
        "t,n\n2020-03-29 02:30,1\n2020-03-29 12:00,9223372036854775808\n2020-03-29 12:00,-9223372036854775808\n",
    );
    let args =
        ["ingest", "x.csv", "-f", "csv", "--header", "--time-field", "t", "--amount", "n", "-c", "w:a"];
    let ran = sandbox.run(&[&args[..], &zone].concat());
    assert!(ran.err.contains("the clocks skipped the time in `{t}`"), "{}", ran.err);
    assert!(ran.err.contains("the number in `{n}` is too large"), "{}", ran.err);
    assert_eq!(sandbox.counters("w", "2020-03-29"), [("a".to_owned(), i64::MIN)].into());
}

#[test]
fn labels_in_a_name_are_sorted() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "w", r#"h{b="1",a="2"}"#]).expect(0);
    sandbox.run(&["inc", "w", "h", "--label", "b=1", "--label", "a=2"]).expect(0);
    sandbox.run(&["inc", "w", r#"h{b="1"}"#, "--label", "a=2"]).expect(0);
    let today = Timestamp::now().to_string()[..10].to_owned();
    assert_eq!(sandbox.counters("w", &today), [(r#"h{a="2",b="1"}"#.to_owned(), 3)].into());
    sandbox.run(&["inc", "w", r#"h{b="1"}"#, "--label", "b=2"]).expect(2);
}
