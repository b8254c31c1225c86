//! `export`, `import`, `copy` and `backup`: the same counters arrive, each once, however the process ends.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use countem_testkit::{Server, in_own_database, require_server};

use crate::harness::{Ran, Sandbox, finish};

const METRICS: [&str; 7] = ["GET 200", "=1+1", "-5", "a \"b\", c", "a.b", "signups{country=\"DE\"}", "🦀;$%"];

/// Writes a CSV file of days with `rows` rows, and returns the sum of its values.
pub(crate) fn write_days(sandbox: &Sandbox, name: &str, rows: usize) -> i64 {
    let (mut text, mut total) = ("collection,date,metric,value\n".to_owned(), 0);
    for row in 0..rows {
        let (day, value) = (row % 28 + 1, i64::try_from(row).unwrap() % 11 - 2);
        writeln!(text, "web,2015-02-{day:02},m{},{value}", row / 28).unwrap();
        total += value;
    }
    sandbox.write(name, text);
    total
}

/// Counts some metrics of several days and hours.
fn fill(sandbox: &Sandbox, store: &[&str]) {
    let mut text = "collection,date,metric,value\n".to_owned();
    for (at, metric) in METRICS.iter().enumerate() {
        for day in 1..20 {
            let value = [0, -5, i64::MAX, 9_007_199_254_740_993][(at + day) % 4];
            writeln!(text, "web,2015-05-{day:02},\"{}\",{value}", metric.replace('"', "\"\"")).unwrap();
        }
        writeln!(text, "jobs,2014-12-31,\"{}\",7", metric.replace('"', "\"\"")).unwrap();
    }
    sandbox.write("fill.csv", text);
    sandbox.run(&[&["import", "fill.csv"], store].concat()).expect(0);
}

/// Returns the digest that a command printed.
#[track_caller]
pub(crate) fn digest(ran: &Ran) -> String {
    let (_, digest) = ran.err.split_once("digest ").unwrap_or_else(|| panic!("{}", ran.err));
    digest.lines().next().unwrap().to_owned()
}

pub(crate) fn store(sandbox: &Sandbox, name: &str) -> String {
    format!("sqlite://{}", sandbox.path(name).display())
}

/// Kills a command after `time`, and runs it again to its end; returns true if it was killed.
pub(crate) fn kill_and_repeat(sandbox: &Sandbox, args: &[&str], time: Duration) -> bool {
    let mut child = sandbox.start(args);
    let began = Instant::now();
    while began.elapsed() < time && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let is_killed = !child.kill().unwrap().success();
    sandbox.run(args).expect(0);
    is_killed
}

/// Returns the sum of the counters that a command printed.
fn sum(ran: &Ran) -> i64 {
    ran.json()["counters"].as_object().unwrap().values().map(|value| value.as_i64().unwrap()).sum()
}

/// Returns the most memory that a command used, in KiB, as far as it was seen.
fn peak_memory(sandbox: &Sandbox, args: &[&str]) -> u64 {
    let mut child = sandbox.start(args);
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::yield_now();
    }
    finish(child).expect(0);
    peak
}

#[test]
fn export_and_import_conserve_the_digest() {
    let sandbox = Sandbox::new();
    fill(&sandbox, &[]);
    let exported = sandbox.run(&["export", "-o", "ndjson", "--file", "all.ndjson"]).expect(0);
    let csv = sandbox.run(&["export", "-o", "csv"]).expect(0);
    assert_eq!(digest(&csv), digest(&exported));
    sandbox.write("all.csv", &csv.out);
    for name in ["all.ndjson", "all.csv"] {
        let to = store(&sandbox, &format!("{name}.db"));
        sandbox.run(&["import", name, "--store", &to]).expect(0);
        let again = sandbox.run(&["export", "--store", &to]).expect(0);
        assert_eq!(digest(&again), digest(&exported), "{name}");
        assert_eq!(again.out, csv.out);
        let repeated = sandbox.run(&["import", "all.csv", "all.ndjson", "--store", &to]).expect(0);
        assert!(repeated.err.contains("imported already"), "{}", repeated.err);
        assert_eq!(digest(&sandbox.run(&["export", "--store", &to]).expect(0)), digest(&exported));
    }
    let ran = sandbox.run(&["export", "--file", "all.csv"]).expect(1);
    assert!(ran.err.contains("`all.csv` exists already"), "{}", ran.err);
}

#[test]
fn export_of_several_periods_is_stored_unchanged() {
    let sandbox = Sandbox::new();
    let periods = ["--set", "time.periods=hour,day,month"];
    sandbox
        .write("hours.csv", "date,metric,value\n2015-05-17T10,a,2\n2015-05-17T11,a,3\n2015-06-01T00,a,4\n");
    let import = [&["import", "hours.csv", "--collection", "web"], &periods[..]].concat();
    sandbox.run(&import).expect(0);
    let csv = sandbox.run(&["export"]).expect(0).out;
    let expected = "collection,period,bucket,metric,value\n\
        web,hour,2015-05-17T10,a,2\nweb,hour,2015-05-17T11,a,3\nweb,hour,2015-06-01T00,a,4\n\
        web,day,2015-05-17,a,5\nweb,day,2015-06-01,a,4\nweb,month,2015-05,a,5\nweb,month,2015-06,a,4\n";
    assert_eq!(csv, expected, "rows of the finest period count in all");
    sandbox.write("all.csv", &csv);
    let to = ["--store", "sqlite://other.db"];
    let refused = sandbox.run(&[&["import", "all.csv"], &to[..]].concat()).expect(1);
    assert!(refused.err.contains("all.csv:2: `web` has rows of hour,day,month"), "{}", refused.err);
    assert!(!sandbox.path("other.db").exists(), "a refused import creates no store");
    sandbox.run(&[&["import", "all.csv"], &to[..], &periods].concat()).expect(0);
    assert_eq!(sandbox.run(&[&["export"], &to[..]].concat()).expect(0).out, csv);
    let may = sandbox.run(&["export", "--range", "2015-05"]).expect(0).out;
    assert_eq!(may.lines().count(), 5, "{may}");
    assert_eq!(sandbox.run(&["export", "--range", "2015-05-17"]).expect(0).out.lines().count(), 4);
    sandbox.run(&["export", "nothing"]).expect(3);
}

#[test]
fn spreadsheet_files_are_read_or_refused_by_line() {
    let sandbox = Sandbox::new();
    let import = |content: &[u8], code: i32| {
        sandbox.write("x.csv", content);
        sandbox.run(&["import", "x.csv", "--collection", "web", "--bucket", "2015-05-17"]).expect(code).err
    };
    import("\u{feff}metric;value\r\nGET 200;5\r\n".as_bytes(), 0);
    assert_eq!(sandbox.counters("web", "2015-05-17"), [("GET 200".to_owned(), 5)].into());
    for (content, why) in [
        (&b""[..], "empty (0 bytes)"),
        (b"metric|value\nGET 200|5\n", "x.csv:1: `metric|value` is no column (separator `,`)"),
        (b"metric;value\na;1\nb;1,5\n", "x.csv:3: value `1,5` is no whole number"),
        (b"metric,value\na,1\n\xff,2\n", "x.csv:3: the line is not UTF-8"),
        (b"metric,value\na,1\nb\n", "x.csv:3: 1 fields"),
    ] {
        let error = import(content, 1);
        assert!(error.contains(why), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(import(b"metric,value\n", 0).contains("has no rows"));
    assert_eq!(sandbox.total("web"), 5, "nothing of a refused file is stored");
}

#[test]
fn changed_export_is_refused() {
    let sandbox = Sandbox::new();
    fill(&sandbox, &[]);
    let whole = sandbox.run(&["export", "-o", "ndjson"]).expect(0).out;
    let lines: Vec<_> = whole.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    let lacking = [&lines[1..]].concat().join("\n");
    let zone = whole.replace("\"UTC\"", "\"Europe/Berlin\"");
    for (content, why) in [
        (cut, "without the line of the digest"),
        (lacking, "their digest is"),
        (format!("{whole}{whole}"), "a line after the digest"),
        (zone, "the days are those of Europe/Berlin"),
    ] {
        sandbox.write("x.ndjson", content);
        let ran = sandbox.run(&["import", "x.ndjson", "--store", "sqlite://y.db"]).expect(1);
        assert!(ran.err.contains(why), "{why}: {}", ran.err);
        assert!(!sandbox.path("y.db").exists());
    }
}

#[test]
fn openmetrics_groups_the_samples_of_a_metric() {
    let sandbox = Sandbox::new();
    let rows =
        "2015-05-17,a,1\n2015-05-18,a,2\n2015-05-17,\"s{x=\"\"1\"\"}\",3\n2015-05-18,\"s{x=\"\"1\"\"}\",4\n";
    sandbox.write("x.csv", rows);
    let import = ["import", "x.csv", "--columns", "date,metric,value", "--collection", "web"];
    sandbox.run(&import).expect(0);
    let ran = sandbox.run(&["export", "-o", "openmetrics"]).expect(0);
    let own = "countem{collection=\"web\",period=\"day\",metric=";
    let samples = format!(
        "{own}\"a\"}} 1 1431820800\n{own}\"a\"}} 2 1431907200\n\
         {own}\"s\",x=\"1\"}} 3 1431820800\n{own}\"s\",x=\"1\"}} 4 1431907200\n# EOF\n"
    );
    assert!(ran.out.ends_with(&samples), "{}", ran.out);
    sandbox.run(&["get", "web", "-o", "openmetrics"]).expect(2);
}

#[test]
fn overflowing_row_is_quarantined_alone() {
    let sandbox = Sandbox::new();
    let import = |rows: &str, code: i32| {
        sandbox.write("x.csv", rows);
        let flags = ["--columns", "date,metric,value", "--collection", "web", "--set", "time.periods=day"];
        sandbox.run(&[&["import", "x.csv"], &flags[..]].concat()).expect(code).err
    };
    import("2015-05-17,a,9223372036854775807\n2015-05-17,b,1\n", 0);
    let error = import("2015-05-17,a,1\n2015-05-17,b,1\n", 6);
    assert!(error.contains("`a` of 2015-05-17 could not be added"), "{error}");
    assert_eq!(sandbox.counters("web", "2015-05-17")["b"], 2);
}

#[test]
fn killed_import_counts_each_row_once() {
    let sandbox = Sandbox::new();
    let total = write_days(&sandbox, "x.csv", 25_000);
    let began = Instant::now();
    sandbox.run(&["import", "x.csv", "--set", "time.periods=day,month"]).expect(0);
    let (whole, mut interrupted) = (began.elapsed(), 0);
    for round in 1..=20_u32 {
        let to = store(&sandbox, &format!("{round}.db"));
        let import = ["import", "x.csv", "--store", &to, "--set", "time.periods=day,month"];
        interrupted += usize::from(kill_and_repeat(&sandbox, &import, whole * round / 21));
        sandbox.run(&import).expect(0);
        for bucket in ["2015-02", "all"] {
            let ran =
                sandbox.run(&["get", "web", "--bucket", bucket, "--store", &to, "-o", "json"]).expect(0);
            assert_eq!(sum(&ran), total, "round {round}, {bucket}");
        }
    }
    assert!(interrupted >= 10, "only {interrupted} runs were killed");
}

#[test]
fn killed_copy_ends_with_the_same_digest() {
    let sandbox = Sandbox::new();
    write_days(&sandbox, "x.csv", 25_000);
    sandbox.run(&["import", "x.csv", "--set", "time.periods=day,month"]).expect(0);
    let expected = digest(&sandbox.run(&["export", "--file", "all.csv"]).expect(0));
    let began = Instant::now();
    sandbox.run(&["copy", "--from", "sqlite://countem.db", "--to", "sqlite://whole.db"]).expect(0);
    let (whole, mut interrupted) = (began.elapsed(), 0);
    for round in 1..=20_u32 {
        let to = store(&sandbox, &format!("{round}.db"));
        let copy = ["copy", "--from", "sqlite://countem.db", "--to", &to];
        interrupted += usize::from(kill_and_repeat(&sandbox, &copy, whole * round / 21));
        let again = sandbox.run(&copy).expect(0);
        assert!(again.err.contains("copied already"), "{}", again.err);
        let file = format!("{round}.csv");
        assert_eq!(digest(&sandbox.run(&["export", "--store", &to, "--file", &file]).expect(0)), expected);
        let repeated = sandbox.run(&["import", "x.csv", "--store", &to]).expect(0);
        assert!(repeated.err.contains("imported already"), "marks are copied: {}", repeated.err);
    }
    assert!(interrupted >= 10, "only {interrupted} runs were killed");
}

#[test]
fn copy_needs_an_empty_target() {
    let sandbox = Sandbox::new();
    fill(&sandbox, &[]);
    fill(&sandbox, &["--store", "sqlite://other.db"]);
    let ran = sandbox.run(&["copy", "--from", "sqlite://countem.db", "--to", "sqlite://other.db"]).expect(1);
    assert!(ran.err.contains("counters that are not of this copy"), "{}", ran.err);
    sandbox.run(&["copy", "--from", "sqlite://none.db", "--to", "sqlite://new.db"]).expect(3);
    assert!(!sandbox.path("none.db").exists());
}

#[test]
fn backup_of_a_counted_store_is_one_state() {
    let sandbox = Sandbox::new();
    write_days(&sandbox, "x.csv", 25_000);
    sandbox.run(&["import", "x.csv"]).expect(0);
    write_days(&sandbox, "y.csv", 50_000);
    let mut counting = sandbox.start(&["import", "y.csv"]);
    let mut backups = 0;
    while counting.try_wait().unwrap().is_none() || backups == 0 {
        let file = format!("backup{backups}.db");
        let backup = sandbox.run(&["backup", &file]).expect(0);
        let csv = format!("{file}.csv");
        let exported = sandbox.run(&["export", "--store", &store(&sandbox, &file), "--file", &csv]).expect(0);
        assert_eq!(digest(&exported), digest(&backup));
        backups += 1;
    }
    let ran = sandbox.run(&["backup", "backup0.db"]).expect(1);
    assert!(ran.err.contains("exists already"), "{}", ran.err);
    sandbox.run(&["backup", "b.db", "--store", "memory://"]).expect(2);
}

#[test]
fn export_of_many_counters_takes_little_memory() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "web", "one"]).expect(0);
    let database = rusqlite::Connection::open(sandbox.path("countem.db")).unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
        INSERT INTO counter SELECT 'web', '2015-05-17', 'a metric with a longer name ' || i, i FROM n";
    database.execute(fill, []).unwrap();
    drop(database);
    for format in ["csv", "ndjson", "openmetrics"] {
        let file = format!("x.{format}.out");
        let kib = peak_memory(&sandbox, &["export", "-o", format, "--file", &file]);
        assert!((1..200 * 1024).contains(&kib), "{format}: {kib} KiB");
        let lines = std::fs::read_to_string(sandbox.path(&file)).unwrap().lines().count();
        assert!((300_001..=300_003).contains(&lines), "{format}: {lines} lines");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_keeps_the_digest_through_kills() {
    if !require_server() {
        return;
    }
    let server = Server::any().await.unwrap();
    let uri = server.uri();
    tokio::task::spawn_blocking(move || {
        let sandbox = Sandbox::new();
        fill(&sandbox, &[]);
        let total = write_days(&sandbox, "x.csv", 25_000);
        let began = Instant::now();
        sandbox.run(&["import", "x.csv"]).expect(0);
        let whole = began.elapsed();
        let expected = digest(&sandbox.run(&["export", "--file", "all.csv"]).expect(0));
        for round in 1..=3_u32 {
            let to = in_own_database(&uri);
            let copy = ["copy", "--from", "sqlite://countem.db", "--to", &to];
            kill_and_repeat(&sandbox, &copy, whole * round / 4);
            assert_eq!(
                digest(
                    &sandbox.run(&["export", "--store", &to, "--file", &format!("{round}.csv")]).expect(0)
                ),
                expected
            );
            let back = store(&sandbox, &format!("{round}.db"));
            let ran = sandbox.run(&["copy", "--from", &to, "--to", &back]).expect(0);
            assert_eq!(digest(&ran), expected);
            let to = in_own_database(&uri);
            let import = ["import", "x.csv", "--store", &to];
            kill_and_repeat(&sandbox, &import, whole * round / 4);
            let ran = sandbox.run(&["get", "web", "--bucket", "all", "--store", &to, "-o", "json"]).expect(0);
            assert_eq!(sum(&ran), total, "round {round}");
        }
    })
    .await
    .unwrap();
}
