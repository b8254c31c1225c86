//! `get`, `all`, `top` and `collections`.

use crate::{generator::Log, harness::Sandbox, ingest::args};

const DAY: [&str; 2] = ["--date", "2015-05-17"];

fn with<'a>(command: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [command, more].concat()
}

/// Two collections on two days.
fn filled() -> Sandbox {
    let sandbox = Sandbox::new();
    for (collection, metric, n, day) in [
        ("web", "GET 200", "1234", DAY[1]),
        ("web", "a,\"b\"", "7", DAY[1]),
        ("web", "POST 200", "7", DAY[1]),
        ("web", "GET 200", "1", "2015-06-01"),
        ("app-events", "x", "-5", DAY[1]),
    ] {
        sandbox.run(&["inc", collection, metric, n, "--date", day]).expect(0);
    }
    sandbox
}

#[test]
fn get_prints_every_format() {
    let sandbox = filled();
    let get = |more: &[&str]| sandbox.run(&with(&with(&["get", "web"], &DAY), more)).expect(0).out;
    assert_eq!(get(&[]), "METRIC    VALUE\nGET 200    1234\nPOST 200      7\na,\"b\"         7\n");
    assert_eq!(
        get(&["-o", "json"]),
        "{\"collection\":\"web\",\"bucket\":\"2015-05-17\",\"counters\":{\"GET 200\":1234,\"POST 200\":7,\"a,\\\"b\\\"\":7}}\n"
    );
    assert_eq!(
        get(&["-o", "ndjson"]).lines().next().unwrap(),
        r#"{"collection":"web","bucket":"2015-05-17","metric":"GET 200","value":1234}"#
    );
    assert_eq!(
        get(&["-o", "csv"]),
        "collection,bucket,metric,value\nweb,2015-05-17,GET 200,1234\nweb,2015-05-17,POST 200,7\nweb,2015-05-17,\"a,\"\"b\"\"\",7\n"
    );
}

#[test]
fn one_metric_is_a_bare_number() {
    let sandbox = filled();
    let get = |more: &[&str]| sandbox.run(&with(&["get", "web", "GET 200"], more)).expect(0).out;
    assert_eq!(get(&DAY), "1234\n");
    assert_eq!(get(&["--bucket", "2015"]), "1235\n");
    assert_eq!(get(&["--bucket", "all"]), "1235\n");
    assert_eq!(get(&["--date", "2015-06-01", "--period", "month"]), "1\n");
    assert_eq!(
        get(&["--bucket", "2015-05", "-o", "json"]),
        "{\"collection\":\"web\",\"bucket\":\"2015-05\",\"counters\":{\"GET 200\":1234}}\n"
    );
}

#[test]
fn today_is_the_default() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "jobs", "done"]).expect(0);
    sandbox.run(&["inc", "jobs", "done", "2"]).expect(0);
    let ran = sandbox.run(&["get", "jobs", "done"]);
    // Midnight may have passed in between.
    assert!(ran.out == "3\n" || sandbox.total("jobs") == 3, "{ran:?}");
}

#[test]
fn missing_collection_differs_from_empty_bucket() {
    let sandbox = filled();
    let ran = sandbox.run(&["get", "wbe"]).expect(3);
    assert!(ran.err.contains("did you mean `web`?"), "{}", ran.err);
    let ran = sandbox.run(&["get", "events"]).expect(3);
    assert!(ran.err.contains("did you mean `app-events`?"), "{}", ran.err);
    let ran = sandbox.run(&with(&["get", "web", "GET 20"], &DAY)).expect(3);
    assert!(ran.err.contains("did you mean `GET 200`?"), "{}", ran.err);
    sandbox.run(&["top", "nothing-like-it"]).expect(3);
    let ran = sandbox.run(&["get", "web", "--date", "2015-05-18", "-o", "json"]).expect(0);
    assert_eq!(ran.out, "{\"collection\":\"web\",\"bucket\":\"2015-05-18\",\"counters\":{}}\n");
    let ran = sandbox.run(&["get", "web", "--date", "2015-05-18"]).expect(0);
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        ("", "nothing was counted in `web` on 2015-05-18; the nearest is 2015-05-17\n")
    );
    let ran = sandbox.run(&["top", "web", "--bucket", "2016"]).expect(0);
    assert!(ran.err.contains("on 2016; the nearest is 2015\n"), "{}", ran.err);
    let ran = sandbox.run(&["get", "web", "--bucket", "2015-05-17T10"]).expect(1);
    assert!(ran.err.contains("stores no hour buckets"), "{}", ran.err);

    let empty = Sandbox::new();
    let ran = empty.run(&["get", "web"]).expect(3);
    assert!(ran.err.contains("there is no store `sqlite://countem.db`"), "{}", ran.err);
    assert!(!empty.path("countem.db").exists(), "reading makes no store");
}

#[test]
fn all_lists_every_collection_of_a_bucket() {
    let sandbox = filled();
    let all = |more: &[&str]| sandbox.run(&with(&["all"], more)).expect(0).out;
    assert_eq!(
        all(&with(&DAY, &["-o", "json"])),
        "{\"bucket\":\"2015-05-17\",\"collections\":{\"app-events\":{\"x\":-5},\"web\":{\"GET 200\":1234,\"POST 200\":7,\"a,\\\"b\\\"\":7}}}\n"
    );
    assert_eq!(
        all(&["--bucket", "2015-06", "-o", "json"]),
        "{\"bucket\":\"2015-06\",\"collections\":{\"web\":{\"GET 200\":1}}}\n"
    );
    assert_eq!(all(&DAY).lines().nth(1).unwrap(), "app-events  x            -5");
    assert_eq!(
        all(&["--date", "2014-01-01", "-o", "json"]),
        "{\"bucket\":\"2014-01-01\",\"collections\":{}}\n"
    );
}

#[test]
fn top_ranks_by_value_and_ties_by_name() {
    let sandbox = filled();
    let top = |more: &[&str]| sandbox.run(&with(&with(&["top", "web"], &DAY), more)).expect(0).out;
    assert_eq!(top(&["-n", "2"]), "METRIC    VALUE\nGET 200    1234\nPOST 200      7\n");
    assert_eq!(
        top(&["-o", "json"]),
        "{\"collection\":\"web\",\"bucket\":\"2015-05-17\",\"top\":[{\"metric\":\"GET 200\",\"value\":1234},\
         {\"metric\":\"POST 200\",\"value\":7},{\"metric\":\"a,\\\"b\\\"\",\"value\":7}]}\n"
    );
}

#[test]
fn sum_beyond_64_bits_spoils_no_other() {
    let sandbox = Sandbox::new();
    let most = i64::MAX.to_string();
    for (metric, n, day) in [
        ("big", most.as_str(), DAY[1]),
        ("big", "1", "2015-05-18"),
        ("ok", "7", DAY[1]),
        ("zero", "-2", DAY[1]),
    ] {
        sandbox.run(&["inc", "web", metric, n, "--date", day]).expect(0);
    }
    const MONTH: [&str; 2] = ["--bucket", "2015-05"];
    const WHY: &str = "the sum 9223372036854775808 exceeds the range of a 64-bit integer";
    let run = |command: &[&str], format: &str| {
        let ran = sandbox.run(&with(&with(command, &MONTH), &["-o", format])).expect(6);
        assert!(ran.err.contains(&format!("`big` of `web` cannot be read: {WHY}")), "{}", ran.err);
        ran.out
    };
    let get = ["get", "web"];
    assert_eq!(
        run(&get, "json"),
        format!(
            "{{\"collection\":\"web\",\"bucket\":\"2015-05\",\"counters\":{{\"ok\":7,\"zero\":-2}},\"errors\":{{\"big\":\"{WHY}\"}}}}\n"
        )
    );
    assert_eq!(
        run(&get, "ndjson").lines().next().unwrap(),
        format!(r#"{{"collection":"web","bucket":"2015-05","metric":"big","error":"{WHY}"}}"#)
    );
    assert_eq!(
        run(&get, "csv"),
        format!(
            "collection,bucket,metric,value\nweb,2015-05,big,error: {WHY}\nweb,2015-05,ok,7\nweb,2015-05,zero,-2\n"
        )
    );
    let table = run(&get, "table");
    assert!(table.contains(&format!("error: {WHY}\n")) && table.contains("  7\n"), "{table}");
    let all: serde_json::Value = serde_json::from_str(&run(&["all"], "json")).unwrap();
    assert_eq!(all["collections"]["web"], serde_json::json!({ "ok": 7, "zero": -2 }));
    assert_eq!(all["errors"]["web"]["big"], WHY);
    let top: serde_json::Value = serde_json::from_str(&run(&["top", "web", "-n", "1"], "json")).unwrap();
    assert_eq!(top["top"], serde_json::json!([{ "metric": "ok", "value": 7 }]));
    assert_eq!(top["errors"]["big"], WHY);
    assert_eq!(run(&["get", "web", "big"], "table"), "");
    assert_eq!(sandbox.run(&["get", "web", "big", "--bucket", DAY[1]]).expect(0).out, format!("{most}\n"));
}

#[test]
fn collections_lists_names() {
    let sandbox = filled();
    assert_eq!(sandbox.run(&["collections"]).expect(0).out, "COLLECTION\napp-events\nweb\n");
    let json = sandbox.run(&["collections", "-o", "json"]).expect(0).out;
    assert_eq!(json, "{\"collections\":[\"app-events\",\"web\"]}\n");
}

#[test]
fn long_list_has_ends_metrics_and_totals() {
    let sandbox = filled();
    let long = |format: &str| sandbox.run(&["collections", "-l", "-o", format]).expect(0).out;
    assert_eq!(
        long("table"),
        "COLLECTION  FIRST       LAST        METRICS  TOTAL\n\
         app-events  2015-05-17  2015-05-17        1     -5\n\
         web         2015-05-17  2015-06-01        3   1249\n"
    );
    let json = |collection: &str| {
        let all: serde_json::Value = serde_json::from_str(&long("json")).unwrap();
        let all = all["collections"].as_array().unwrap().clone();
        all.into_iter().find(|detail| detail["collection"] == collection).unwrap()
    };
    assert_eq!(
        json("web"),
        serde_json::json!({ "collection": "web", "first": "2015-05-17", "last": "2015-06-01", "metrics": 3, "total": 1249 })
    );
    let most = i64::MAX.to_string();
    sandbox.run(&["inc", "app-events", "y", &most, "--date", DAY[1]]).expect(0);
    sandbox.run(&["inc", "app-events", "z", &most, "--date", DAY[1]]).expect(0);
    let ran = sandbox.run(&["collections", "--long"]).expect(6);
    assert!(ran.out.contains("1249") && ran.out.contains("error: the sum"), "{}", ran.out);
}

#[test]
fn all_commands_agree_on_a_real_day() {
    let log = Log::new(41, 2000, 10);
    let sandbox = Sandbox::new();
    sandbox.run_on(&args(&["-"]), log.text.as_bytes()).expect(0);
    for (day, counters) in &log.by_status {
        let all = sandbox.run(&["all", "--date", day, "-o", "json"]).expect(0).json();
        assert_eq!(all["collections"]["web"], serde_json::to_value(counters).unwrap());
        let top = sandbox.run(&["top", "web", "-n", "1", "--date", day, "-o", "csv"]).expect(0).out;
        let most = counters.values().max().unwrap();
        assert!(top.trim_end().ends_with(&format!(",{most}")), "{top}");
    }
    assert_eq!(sandbox.total("web"), log.total());
}
