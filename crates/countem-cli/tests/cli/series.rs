//! `series`, and rankings of ranges and groups.

use serde_json::json;

use crate::harness::Sandbox;

/// Two metrics with labels and two without, on some days.
fn filled() -> Sandbox {
    let sandbox = Sandbox::new();
    for (metric, n, day) in [
        ("GET 200", "5", "2015-05-16"),
        ("GET 200", "7", "2015-05-17"),
        ("GET 404", "1", "2015-05-17"),
        ("GET 200", "1000", "2015-05-19"),
        (r#"signups{country="DE",plan="pro"}"#, "3", "2015-05-17"),
        (r#"signups{country="FR",plan="pro"}"#, "4", "2015-05-17"),
        (r#"signups{country="DE",plan="free"}"#, "2", "2015-05-18"),
        ("signups", "10", "2015-05-18"),
    ] {
        sandbox.run(&["inc", "web", metric, n, "--date", day]).expect(0);
    }
    sandbox
}

const RANGE: [&str; 2] = ["--range", "2015-05-16..2015-05-19"];

#[test]
fn series_has_every_bucket_of_the_range() {
    let sandbox = filled();
    let series = |more: &[&str]| {
        let ran = sandbox.run(&[&["series", "web", "GET *"], &RANGE[..], more].concat());
        ran.expect(0).out
    };
    assert_eq!(
        series(&["-o", "csv"]),
        "collection,metric,bucket,value\nweb,GET 200,2015-05-16,5\nweb,GET 200,2015-05-17,7\nweb,GET 200,2015-05-18,0\n\
         web,GET 200,2015-05-19,1000\nweb,GET 404,2015-05-16,0\nweb,GET 404,2015-05-17,1\nweb,GET 404,2015-05-18,0\n\
         web,GET 404,2015-05-19,0\n"
    );
    assert_eq!(
        series(&["-o", "json", "-n", "1", "--fill", "none"]),
        "{\"collection\":\"web\",\"step\":\"day\",\"series\":[{\"metric\":\"GET 200\",\"points\":[[\"2015-05-16\",5],\
         [\"2015-05-17\",7],[\"2015-05-19\",1000]]}]}\n"
    );
    let gaps: serde_json::Value = serde_json::from_str(&series(&["-o", "json", "--fill", "gap"])).unwrap();
    assert_eq!(gaps["series"][1]["points"][0], json!(["2015-05-16", null]));
    assert_eq!(
        series(&["--sum"]).lines().last().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["2015-05-19", "1000"]
    );
}

#[test]
fn groups_are_rows_of_their_labels() {
    let sandbox = filled();
    let run = |args: &[&str]| sandbox.run(&[args, &RANGE].concat()).expect(0).out;
    assert_eq!(
        run(&["top", "web", "signups", "--by", "country,plan", "-o", "csv"]),
        "collection,bucket,country,plan,value\nweb,2015-05-16..2015-05-19,,,10\nweb,2015-05-16..2015-05-19,FR,pro,4\n\
         web,2015-05-16..2015-05-19,DE,pro,3\nweb,2015-05-16..2015-05-19,DE,free,2\n"
    );
    assert_eq!(
        run(&["top", "web", "signups", "--where", "country=~D.|FR", "--by", "country", "-o", "json"]),
        "{\"collection\":\"web\",\"range\":\"2015-05-16..2015-05-19\",\"top\":[{\"labels\":{\"country\":\"DE\"},\"value\":5},\
         {\"labels\":{\"country\":\"FR\"},\"value\":4}]}\n"
    );
    assert_eq!(
        run(&["top", "web", "signups", "--where", "plan!=pro", "--sum"]),
        "METRIC  VALUE\n           12\n"
    );
}

#[test]
fn ranges_are_compared_with_those_before() {
    let sandbox = filled();
    let top = ["top", "web", "GET *", "--range", "2015-05-18..2015-05-19", "--compare", "--order", "change"];
    assert_eq!(
        sandbox.run(&top).expect(0).out,
        "METRIC   VALUE  EARLIER  CHANGE\nGET 200   1000       12     988\nGET 404      0        1      -1\n"
    );
    let ran = sandbox.run(&["top", "web", "--order", "change"]).expect(2);
    assert!(ran.err.contains("needs an earlier range"), "{}", ran.err);
}

#[test]
fn unanswerable_questions_are_usage_errors() {
    let sandbox = filled();
    for (args, why) in [
        (&["--range", "2015-05-19..2015-05-16"][..], "ends before it begins"),
        (&["--range", "2015-13"], "accepted:"),
        (&["--range", "yesteryear"], "accepted:"),
        (&["--range", "2015-05-16..2015-06-10", "--step", "month"], "not made up of whole months"),
        (&["--range", "1000y"], "limit `buckets` of 100000"),
        (&["--matching", "("], "regular expression"),
        (&["--where", "country"], "country=DE"),
        (&["--by", "a,a"], "named twice"),
        (&["--level", "0"], "whole number from 1"),
    ] {
        let ran = sandbox.run(&[&["series", "web"], args].concat()).expect(2);
        assert!(ran.err.contains(why), "{args:?}: {}", ran.err);
    }
    // Nothing finer than a day is stored.
    let ran = sandbox.run(&["series", "web", "--range", "2015-05-17", "--step", "hour"]).expect(1);
    assert!(ran.err.contains("stores no hour buckets"), "{}", ran.err);
    sandbox.run(&["series", "nosuch"]).expect(3);
}

#[test]
fn running_range_is_named_in_a_comparison() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "web", "m", "5", "--date", "yesterday"]).expect(0);
    sandbox.run(&["inc", "web", "m"]).expect(0);
    let ran = sandbox.run(&["top", "web", "--compare", "-o", "json"]).expect(0);
    assert!(ran.err.contains("is not over, and compared with the whole of"), "{}", ran.err);
    assert_eq!(ran.json()["partial"], json!(true));
    assert_eq!(ran.json()["top"][0]["change"], json!(-4));
    let over = sandbox.run(&["top", "web", "--date", "yesterday", "--compare", "-o", "json"]).expect(0);
    assert_eq!((over.err.as_str(), over.json()["partial"].as_bool()), ("", None));
}

#[test]
fn present_moment_is_no_longer_span() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "web", "m", "--set", "time.periods=second,day"]).expect(0);
    sandbox.run(&["inc", "web", "m", "5", "--date", "-40d"]).expect(0);
    let ran = sandbox.run(&["top", "web", "--sum", "--range", "-40d..now", "-o", "json"]).expect(0);
    assert_eq!(ran.json()["top"][0]["value"], json!(6));
    let now = sandbox.run(&["top", "web", "--sum", "--range", "now", "-o", "json"]).expect(0).json();
    assert!(now["top"][0]["value"].as_i64().is_none_or(|value| value <= 1), "{now}");
    assert!(now["bucket"].as_str().is_some_and(|bucket| bucket.len() == 19), "{now}");
}

#[test]
fn ranking_across_a_change_of_zone_is_refused() {
    let sandbox = Sandbox::new();
    let run = |args: &[&str]| sandbox.run(args);
    let day = |ahead: i64| {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        today.checked_add(jiff::Span::new().days(ahead)).unwrap().to_string()
    };
    run(&["inc", "w", "m", "5", "--date", "-7d", "--set", "time.periods=hour,day"]).expect(0);
    run(&["inc", "w", "m", "7", "--set", "time.zone=Asia/Tokyo", "--change-schedule"]).expect(0);
    let refused = |command: &[&str]| {
        let codes = (1..4).map(|ahead| run(&[command, &["--date", &day(ahead)]].concat()).code);
        codes.collect::<Vec<_>>()
    };
    // One of these days is cut by the change, and both commands refuse it.
    assert_eq!(refused(&["top", "w"]), refused(&["get", "w"]));
    assert!(refused(&["top", "w"]).contains(&1));
}

#[test]
fn empty_answers_say_what_is_missing() {
    let sandbox = filled();
    let said = |args: &[&str]| sandbox.run(args).expect(0).err;
    assert!(
        said(&["top", "web", "zzz", "--date", "2015-05-17"]).contains("no counter of `web` that matches")
    );
    assert!(said(&["top", "web", "--range", "2014"]).contains("nearest"));
    assert!(
        said(&["series", "web", "--range", "2014-01..2014-02"])
            .contains("was counted in 2014-01-01..2014-02-28")
    );
}

#[test]
fn day_that_never_was_is_not_counted() {
    let sandbox = Sandbox::new();
    let inc = ["inc", "w", "m", "--date", "2011-12-30", "--set", "time.zone=Pacific/Apia"];
    let ran = sandbox.run(&inc).expect(2);
    assert!(ran.err.contains("there was no 2011-12-30 in Pacific/Apia"), "{}", ran.err);
}

#[test]
fn configured_hierarchy_is_the_separator_of_levels() {
    let sandbox = Sandbox::new();
    for (metric, n) in [("a/b", "1"), ("a/c/d", "2"), ("a.b", "4"), ("a", "8")] {
        sandbox.run(&["inc", "pages", metric, n]).expect(0);
    }
    let configured = ["--set", "collections.pages.hierarchy=/", "top", "pages", "-o", "csv"];
    for (flags, expected, says) in [
        (&["--level", "1"][..], &["a,11", "a.b,4"][..], true),
        (&["--under", "a", "--sum"], &["11"], true),
        (&["--level", "1", "--separator", "."], &["a,12", "a/c/d,2", "a/b,1"], false),
        (&["--sum"], &["15"], false),
    ] {
        let ran = sandbox.run(&[&configured[..], flags].concat()).expect(0);
        let rows: Vec<_> = ran.out.lines().skip(1).collect();
        assert!(rows.iter().zip(expected).all(|(row, end)| row.ends_with(end)), "{flags:?}: {rows:?}");
        assert_eq!(rows.len(), expected.len(), "{flags:?}: {rows:?}");
        let words = "levels are separated by `/` (`collections.pages.hierarchy`)";
        assert_eq!(ran.err.contains(words), says, "{flags:?}: {}", ran.err);
    }
}
