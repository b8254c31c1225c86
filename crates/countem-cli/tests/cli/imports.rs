//! Imports of other systems' files, what is remembered of imports, and what refuses a row.

use std::{fmt::Write as _, io::Write as _, time::Instant};

use countem_core::jiff::{SignedDuration, Timestamp};

use crate::{
    harness::{Ran, Sandbox},
    transfer::{digest, kill_and_repeat, store},
};

/// Imports a file into the collection `web`.
fn import(sandbox: &Sandbox, name: &str, format: &str, code: i32) -> Ran {
    sandbox.run(&["import", name, "--format", format, "--collection", "web"]).expect(code)
}

fn exported(sandbox: &Sandbox) -> Vec<String> {
    let out = sandbox.run(&["export"]).expect(0).out;
    out.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn scala_documents_become_dotted_metrics() {
    let rows = ["web,day,2014-03-12,MyMethod.calls,5", "web,day,2014-03-12,MyMethod.errors.io,1"];
    let metrics = r#""MyMethod":{"calls":5,"errors":{"io":{"$numberLong":"1"}}}"#;
    let document = format!("{{\"_id\":\"20140312\",{metrics}}}");
    for text in [
        format!("{document}\n"),
        format!("[{}]\n", document.replace(',', ",\n")),
        document.replace(":5", ":5.0").replace("numberLong", "numberDouble").replace("\"1\"", "\"1.0\""),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("days.json", &text);
        import(&sandbox, "days.json", "scala", 0);
        assert_eq!(exported(&sandbox), rows, "{text}");
        let again = import(&sandbox, "days.json", "scala", 0);
        assert!(again.err.contains("imported already"), "{}", again.err);
    }
    let sandbox = Sandbox::new();
    for (second, why) in [
        (r#"{"_id":"20140313","a":{"b":1.5}}"#, "days.json:2: `a.b` is 1.5, no exact whole number"),
        (r#"{"_id":"20140313","a":"5"}"#, "days.json:2: "),
        (r#"{"_id":"20140313","a":{"$numberDecimal":"5"}}"#, "days.json:2: `a` is"),
        (r#"{"_id":"20140312","a":1}"#, "days.json:2: there is a document of 2014-03-12 above"),
        (r#"{"_id":"20140313","a":1"#, "days.json:2: the file is cut off"),
        (r#"{"_id":"2014-03-13","a":1}"#, "days.json:2: `_id` is \"2014-03-13\""),
    ] {
        sandbox.write("days.json", format!("{document}\n{second}"));
        let refused = import(&sandbox, "days.json", "scala", 1);
        assert!(refused.err.contains(why), "{why}: {}", refused.err);
        assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
        assert!(!sandbox.path("countem.db").exists(), "nothing of a refused file is stored");
    }
    let refused = sandbox.run(&["import", "days.json", "--format", "scala"]).expect(2);
    assert!(refused.err.contains("`--collection NAME`"), "{}", refused.err);
}

#[test]
fn graphite_lines_count_in_all_periods() {
    let sandbox = Sandbox::new();
    let schedule = ["--set", "time.periods=hour,day", "--set", "time.zone=America/New_York"];
    // 10:05 and 22:30 on 17 May in New York.
    let lines = "a.b 5 1431871503\na.b;dc=x;rack=1 2.0 1431916200\na.b 1 1431916200\n";
    sandbox.write("lines", lines);
    let args = ["import", "lines", "--format", "graphite", "--collection", "web"];
    sandbox.run(&[&args[..], &schedule].concat()).expect(0);
    let labelled = r#""a.b{dc=""x"",rack=""1""}""#;
    let rows = [
        "web,hour,2015-05-17T14,a.b,5".to_owned(),
        "web,hour,2015-05-18T02,a.b,1".to_owned(),
        format!("web,hour,2015-05-18T02,{labelled},2"),
        "web,day,2015-05-17,a.b,6".to_owned(),
        format!("web,day,2015-05-17,{labelled},2"),
    ];
    assert_eq!(exported(&sandbox), rows);
    for (line, why) in [
        ("a.b 1.5 1431871503", "lines:2: value `1.5` is no whole number"),
        ("a.b 1 -1", "lines:2: timestamp `-1`"),
        ("a.b 1", "lines:2: 2 words"),
    ] {
        sandbox.write("lines", format!("a.b 1 1431871503\n{line}\n"));
        let refused = sandbox.run(&args).expect(1);
        assert!(refused.err.contains(why), "{}", refused.err);
    }
    assert_eq!(exported(&sandbox), rows, "nothing of a refused file is stored");
}

/// The identity of lines is not that of the buckets in which they count.
#[test]
fn moments_keep_their_era_and_identity() {
    let sandbox = Sandbox::new();
    sandbox.write("lines", "a 5 1431857103\n");
    import(&sandbox, "lines", "graphite", 0);
    let change = ["--set", "time.periods=hour,day", "--change-schedule"];
    sandbox.run(&[&["inc", "web", "m"], &change[..]].concat()).expect(0);
    let again = import(&sandbox, "lines", "graphite", 0);
    assert!(again.err.contains("imported already"), "{}", again.err);
    let later = Timestamp::now() + SignedDuration::from_hours(24 * 7);
    sandbox.write("lines", format!("a 7 1431857103\na 9 {}\n", later.as_second()));
    import(&sandbox, "lines", "graphite", 0);
    let (day, hour) = (&later.to_string()[..10], &later.to_string()[..13]);
    let rows = exported(&sandbox);
    let of_a: Vec<_> = rows.iter().filter(|row| row.contains(",a,")).collect();
    let expected =
        [format!("web,hour,{hour},a,9"), "web,day,2015-05-17,a,12".to_owned(), format!("web,day,{day},a,9")];
    assert!(of_a.iter().copied().eq(&expected), "{of_a:?}");
}

#[test]
fn goatcounter_hits_count_by_path() {
    let sandbox = Sandbox::new();
    let mut csv = "2Path,Title,Event,UserAgent,Browser,System,Session,Bot,Referrer,Referrer scheme,Screen size,Location,FirstVisit,Date\n".to_owned();
    for (path, title, bot, date) in [
        ("/a", "\"Two\n\nlines, \"\"quoted\"\"\"", 0, "2020-12-27T00:38:27Z"),
        ("/a", "A", 0, "2020-12-27T23:59:59Z"),
        ("/a", "A", 150, "2020-12-27T12:00:00Z"),
        ("\"/b,c\"", "", 0, "2020-12-28T00:00:00Z"),
    ] {
        writeln!(csv, "{path},{title},false,,Firefox,Linux,1f,{bot},,,\"1,2,3\",DE,true,{date}").unwrap();
    }
    let rows = ["web,day,2020-12-27,/a,2", "web,day,2020-12-28,\"/b,c\",1"];
    sandbox.write("hits.csv", &csv);
    let ran = import(&sandbox, "hits.csv", "goatcounter", 0);
    assert!(ran.err.contains("hits of bots in `hits.csv` that are left out: 1"), "{}", ran.err);
    assert_eq!(exported(&sandbox), rows);
    // The same rows, compressed.
    let mut gzip = std::process::Command::new("gzip");
    let file = std::fs::File::create(sandbox.path("hits.csv.gz")).unwrap();
    let mut child = gzip.stdin(std::process::Stdio::piped()).stdout(file).spawn().unwrap();
    child.stdin.take().unwrap().write_all(csv.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let again = import(&sandbox, "hits.csv.gz", "goatcounter", 0);
    assert!(again.err.contains("imported already"), "{}", again.err);
    sandbox.write("hits.csv", format!("{csv}/x,,false,,,,,zero,,,,,,2020-12-27T12:00:00Z\n"));
    let refused = import(&sandbox, "hits.csv", "goatcounter", 1);
    assert!(refused.err.contains("hits.csv:8: `zero` is no number of a bot"), "{}", refused.err);
    assert_eq!(exported(&sandbox), rows);
}

#[test]
fn killed_import_of_documents_counts_each_once() {
    let sandbox = Sandbox::new();
    let mut text = String::new();
    for day in 1..=28 {
        let fields: Vec<_> = (0..900).map(|at| format!("\"m{at}\":{{\"n\":{}}}", at % 7)).collect();
        writeln!(text, "{{\"_id\":\"201502{day:02}\",{}}}", fields.join(",")).unwrap();
    }
    sandbox.write("days.json", text);
    let began = Instant::now();
    import(&sandbox, "days.json", "scala", 0);
    let (whole, mut interrupted) = (began.elapsed(), 0);
    let expected = digest(&sandbox.run(&["export", "--file", "all.csv"]).expect(0));
    for round in 1..=6_u32 {
        let to = store(&sandbox, &format!("{round}.db"));
        let import = ["import", "days.json", "--format", "scala", "--collection", "web", "--store", &to];
        interrupted += usize::from(kill_and_repeat(&sandbox, &import, whole * round / 7));
        let file = format!("{round}.csv");
        assert_eq!(digest(&sandbox.run(&["export", "--store", &to, "--file", &file]).expect(0)), expected);
    }
    assert!(interrupted >= 3, "only {interrupted} runs were killed");
}

#[test]
fn imports_and_copies_are_listed_and_forgotten() {
    let sandbox = Sandbox::new();
    sandbox.write("x.csv", "date,metric,value\n2015-05-17,a,2\n");
    sandbox.write("y.csv", "date,metric,value\n2015-05-17,a,3\n");
    let imports = ["import", "x.csv", "y.csv", "--collection", "web"];
    sandbox.run(&imports).expect(0);
    sandbox.run(&["copy", "--from", "sqlite://countem.db", "--to", "sqlite://copy.db"]).expect(0);
    let marks = |more: &[&str]| sandbox.run(&[&["marks", "-o", "json"], more].concat()).expect(0).json();
    let names = |listed: &serde_json::Value| -> Vec<String> {
        let imports = listed["imports"].as_array().unwrap().iter();
        imports
            .map(|import| import["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    let listed = marks(&[]);
    assert_eq!(names(&listed), ["x.csv", "y.csv"]);
    assert_eq!((&listed["imports"][0]["rows"], &listed["imports"][0]["of"]), (&1.into(), &1.into()));
    let copied = marks(&["--store", "sqlite://copy.db"]);
    assert_eq!(names(&copied), ["x.csv", "y.csv"]);
    assert_eq!(copied["copies"][0]["from"], "sqlite://countem.db");
    assert_eq!(copied["copies"][0]["complete"], true);
    // An import that ended in the middle.
    let database = rusqlite::Connection::open(sandbox.path("countem.db")).unwrap();
    let cut = "UPDATE mark SET value = replace(value, '\"of\":1', '\"of\":9') WHERE value LIKE '%y.csv%'";
    assert_eq!(database.execute(cut, []).unwrap(), 1);
    drop(database);
    let table = sandbox.run(&["marks", "-o", "csv"]).expect(0).out;
    assert!(table.contains("x.csv,,1,,import,complete\n"), "{table}");
    assert!(table.contains("y.csv,,1,,import,unfinished\n"), "{table}");

    sandbox.run(&["forget", "x.csv"]).expect(3);
    sandbox.run(&["forget", "--imports", "z.csv"]).expect(3);
    sandbox.run(&["forget", "--imports", "x.csv"]).expect(0);
    assert_eq!(names(&marks(&[])), ["y.csv"]);
    sandbox.run(&["import", "x.csv", "--collection", "web"]).expect(0);
    assert_eq!(sandbox.total("web"), 7, "the rows of a forgotten import are added anew");
    let key = marks(&[])["imports"][0]["key"].as_str().unwrap().to_owned();
    sandbox.run(&["forget", "--imports", &key]).expect(0);
    assert_eq!(names(&marks(&[])), ["y.csv"]);
    sandbox.run(&["forget", "--imports", "--all"]).expect(0);
    assert_eq!(names(&marks(&[])), [""; 0]);
}

/// History that a retention would remove again is refused, by its row.
#[test]
fn expired_rows_refuse_an_import() {
    let sandbox = Sandbox::new();
    let kept = ["--set", "time.periods=hour,day", "--set", "time.retention=hour=48h,day=90d"];
    sandbox.run(&[&["inc", "web", "now"], &kept[..]].concat()).expect(0);
    let before = exported(&sandbox);
    let now = Timestamp::now();
    let ago = |days: i64, length: usize| {
        (now - SignedDuration::from_hours(24 * days)).to_string()[..length].to_owned()
    };
    sandbox.write("x.csv", format!("date,metric,value\n{}T05,m,1\n{}T05,m,1\n", ago(0, 10), ago(400, 10)));
    let refused = sandbox.run(&["import", "x.csv", "--collection", "web"]).expect(1);
    let why = format!("x.csv:3: {}T05 has expired: the store keeps no hour as old", ago(400, 10));
    assert!(refused.err.contains(&why), "{}", refused.err);
    let old = (now - SignedDuration::from_hours(24 * 10)).as_second();
    sandbox.write("lines", format!("a 1 {}\na 1 {old}\n", now.as_second()));
    let refused = import(&sandbox, "lines", "graphite", 1);
    let why = format!("lines:2: {} has expired", ago(10, 13));
    assert!(refused.err.contains(&why), "{}", refused.err);
    assert_eq!(exported(&sandbox), before, "nothing of a refused file is stored");
}

#[test]
fn export_for_spreadsheets_comes_back_exactly() {
    let sandbox = Sandbox::new();
    let metrics = ["=1+1", "+a", "-5", "@x", "'=x", "''", "'a", "a=b", "\"=\""];
    let mut text = "date,metric,value\n".to_owned();
    for metric in metrics {
        writeln!(text, "2015-05-17,\"{}\",-5", metric.replace('"', "\"\"")).unwrap();
    }
    sandbox.write("x.csv", text);
    sandbox.run(&["import", "x.csv", "--collection", "web"]).expect(0);
    let safe = sandbox.run(&["export", "-o", "csv", "--csv-safe"]).expect(0);
    for line in safe.out.lines().skip(1) {
        let (_, metric) = line.split_once("2015-05-17,").unwrap();
        assert!(
            !metric.trim_start_matches('"').starts_with(['=', '+', '-', '@']) || metric.starts_with("\"\"\"")
        );
        assert!(line.ends_with(",-5"), "a number stays one: {line}");
    }
    sandbox.write("safe.csv", &safe.out);
    let to = ["--store", "sqlite://other.db"];
    sandbox.run(&[&["import", "safe.csv", "--csv-safe"], &to[..]].concat()).expect(0);
    let again = sandbox.run(&[&["export"], &to[..]].concat()).expect(0);
    assert_eq!(digest(&again), digest(&safe));
    sandbox.run(&["import", "x.csv", "--format", "graphite", "--csv-safe", "--collection", "w"]).expect(2);
}

/// An empty cell would make floating-point numbers of a column.
#[test]
fn exported_columns_have_no_empty_cell() {
    let sandbox = Sandbox::new();
    let rows = "2015-05-17,a,9007199254740993\n2015-05-19,a,1\n2015-05-18,gap,9223372036854775807\n";
    sandbox.write("x.csv", format!("date,metric,value\n{rows}"));
    sandbox.run(&["import", "x.csv", "--collection", "web"]).expect(0);
    for args in [&["export"][..], &["series", "web", "--range", "2015-05", "-o", "csv"]] {
        let csv = sandbox.run(args).expect(0).out;
        let cells = || csv.lines().skip(1).flat_map(|line| line.split(','));
        assert!(cells().count() >= 15 && cells().all(|cell| !cell.is_empty()), "{csv}");
        assert!(cells().any(|cell| cell == "9007199254740993"), "{csv}");
    }
}

/// Days are those of the store, and no flag makes others of them silently.
#[test]
fn export_is_in_the_zone_of_the_store() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "web", "m", "--date", "2015-05-17", "--set", "time.zone=Europe/Berlin"]).expect(0);
    let exported = sandbox.run(&["export", "-o", "ndjson"]).expect(0);
    assert!(exported.out.contains("\"zone\":\"Europe/Berlin\""), "{}", exported.out);
    let other = ["--set", "time.zone=America/New_York"];
    let told = sandbox.run(&[&["export", "-o", "ndjson"], &other[..]].concat()).expect(0);
    assert_eq!(told.out, exported.out);
    let why = "`time.zone` is America/New_York (flag `--set`), but the store is counted by Europe/Berlin";
    assert!(told.err.contains(why), "{}", told.err);
    sandbox.write("x.ndjson", exported.out);
    sandbox.run(&[&["import", "x.ndjson", "--store", "sqlite://y.db"], &other[..]].concat()).expect(1);
}
