//! Formats of lines, times and amounts, end to end.

use crate::harness::{Counters, Ran, Sandbox};

fn counters(pairs: &[(&str, i64)]) -> Counters {
    pairs.iter().map(|(metric, value)| ((*metric).to_owned(), *value)).collect()
}

const DAY: &str = "2015-05-17";

#[test]
fn ndjson_is_counted_by_keys_and_pointers() {
    let sandbox = Sandbox::new();
    let lines = r#"{"ts":"2015-05-17T10:00:00Z","level":"warn","user":{"id":7,"tags":["a","b"]}}
{"user":{"tags":["x","b"],"id":7},"ts":1431857103,"level":"info"}
{"ts":"2015-05-18T00:00:00+02:00","level":"in\"fo","user":{"id":"ä","tags":[0,null]}}
{"ts":"2015-05-17T10:00:00Z","level":{"not":"a value"},"user":{"id":7,"tags":[1,2]}}
{"ts":"2015-05-17T10:00:00Z","user":{"id":7,"tags":[1,2]}}
not json
{"ts":"yesterday","level":"info","user":{"id":7,"tags":[1,2]}}
"#;
    let counts = ["--count", "level:{level}", "--count", "user:{/user/id} {/user/tags/1}"];
    let args =
        [&["ingest", "-", "--format", "ndjson", "--time-field", "ts", "-o", "json"], &counts[..]].concat();
    let report = sandbox.run_on(&args, lines.as_bytes()).expect(6).json();
    assert_eq!(
        (&report["lines"], &report["counted"], &report["rejected"]),
        (&7.into(), &4.into(), &3.into())
    );
    let reasons: Vec<_> = report["reasons"].as_array().unwrap().iter().map(|r| r["reason"].clone()).collect();
    for reason in
        ["a wanted value is an object or an array", "not a JSON object", "field `{ts}` is not a time"]
    {
        assert!(reasons.contains(&reason.into()), "{reason} is not in {reasons:?}");
    }
    let skipped = serde_json::json!([{"count": "level:{level}", "field": "level", "lines": 1}]);
    assert_eq!(report["skipped"], skipped);
    assert_eq!(sandbox.counters("level", DAY), counters(&[("warn", 1), ("info", 1), ("in\"fo", 1)]));
    assert_eq!(sandbox.counters("user", DAY), counters(&[("7 b", 2), ("ä null", 1), ("7 2", 1)]));
}

#[test]
fn byte_order_mark_is_stripped() {
    let sandbox = Sandbox::new();
    for (name, text, flags) in [
        ("json", "{\"word\":\"a\"}\n", "--format ndjson --count json:{word}"),
        ("tsv", "a\tb\n", "--format tsv --count tsv:{1}"),
        ("header", "word\tx\na\tb\n", "--format tsv --header --count header:{word}"),
        ("regex", "a b\n", "--regex ^(?<word>\\w+) --count regex:{word}"),
    ] {
        let args: Vec<_> = ["ingest", name, "--now", "--once"].into_iter().chain(flags.split(' ')).collect();
        sandbox.write(name, format!("\u{feff}{text}"));
        sandbox.run(&args).expect(0);
        let line = text.lines().last().unwrap();
        // A resumed run reads the header again.
        sandbox.append(name, format!("{line}\n"));
        sandbox.run(&args).expect(0);
        let ran = sandbox.run(&["get", name, "a", "--bucket", "all"]).expect(0);
        assert_eq!(ran.out, "2\n", "{name}");
        // The mark is stripped at the beginning of a file only.
        sandbox.append(name, format!("\u{feff}{line}\n"));
        sandbox.run(&args);
        let ran = sandbox.run(&["get", name, "a", "--bucket", "all"]).expect(0);
        assert_eq!(ran.out, "2\n", "{name}");
    }
}

#[test]
fn tsv_columns_are_numbered_or_named_by_header() {
    let sandbox = Sandbox::new();
    sandbox
        .write("a.tsv", "2015-05-17\tbern\t10\n2015-05-17\tulm\t-3\r\n2015-05-17\tbern\tten\n\n2015-05-17\n");
    let by_number =
        ["--count", "shops:{2}", "--time-field", "1", "--time-format", "%Y-%m-%d", "--amount", "3"];
    let ran = sandbox.run(&[&["ingest", "a.tsv", "--format", "tsv"], &by_number[..]].concat()).expect(6);
    assert!(ran.err.contains("a.tsv:3: 2015-05-17\\tbern\\tten"), "{}", ran.err);
    assert!(ran.err.contains("counted 2 of 5 lines, blank 1, into"), "{}", ran.err);
    assert_eq!(sandbox.counters("shops", DAY), counters(&[("bern", 10), ("ulm", -3)]));

    sandbox.write("b.tsv", "day\tshop\teuros\n2015-05-17\tbern\t5\n");
    sandbox.write("c.tsv", "euros\tday\tshop\n7\t2015-05-17\tulm\n");
    sandbox.write("d.tsv", "euros\tday\n7\t2015-05-17\n");
    let by_name = ["--count", "sales:{shop}", "--time-field", "day", "--amount", "euros", "--header"];
    let args = [&["ingest", "b.tsv", "c.tsv", "d.tsv", "--format", "tsv"], &by_name[..]].concat();
    let ran = sandbox.run(&args).expect(6);
    assert!(ran.err.contains("could not read all of `d.tsv`: there is no field `{shop}`"), "{}", ran.err);
    assert_eq!(sandbox.counters("sales", DAY), counters(&[("bern", 5), ("ulm", 7)]));
}

#[test]
fn a_regular_expression_names_the_fields() {
    let sandbox = Sandbox::new();
    let lines = "1431857103 [warn] disk\n1431857104 [info] up\nnothing\n1431857105 [warn] \u{fe0f}\n";
    let args = ["ingest", "--regex", r"^(?<time>\d+) \[(?<level>\w+)\]", "--count", "app:{level}"];
    let ran = sandbox.run_on(&args, lines.as_bytes()).expect(6);
    assert!(ran.err.contains("standard input:3: nothing"), "{}", ran.err);
    assert_eq!(sandbox.counters("app", DAY), counters(&[("warn", 2), ("info", 1)]));
}

#[test]
fn now_counts_lines_when_they_are_read() {
    let sandbox = Sandbox::new();
    sandbox.run_on(&["ingest", "--format", "tsv", "--now", "--count", "words:{1}"], b"a\nb\na").expect(0);
    // The day may have changed since.
    assert_eq!(sandbox.total("words"), 3);
}

#[test]
fn configured_zone_and_periods_are_used() {
    let sandbox = Sandbox::new();
    sandbox.write("countem.toml", "[time]\nzone = \"Asia/Tokyo\"\nperiods = [\"hour\", \"day\", \"week\"]\n");
    let lines = "2015-05-17T14:59:59Z\n2015-05-17T15:00:00Z\n2015-05-18 00:00:00\n";
    let args = ["ingest", "--format", "tsv", "--time-field", "1", "--count", "web:n"];
    sandbox.run_on(&args, lines.as_bytes()).expect(0);
    assert_eq!(sandbox.counters("web", DAY), counters(&[("n", 1)]));
    assert_eq!(sandbox.counters("web", "2015-05-18"), counters(&[("n", 2)]));
    let read = |id: &str| sandbox.run(&["get", "web", "n", "--bucket", id]).expect(0).out;
    assert_eq!(read("2015-05-17T15"), "2\n");
    assert_eq!(read("2015-W20"), "1\n");
    assert_eq!(read("2015-W21"), "2\n");
    assert_eq!(read("2015-05"), "3\n");
}

#[test]
fn unfit_value_changes_only_its_own_name() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(513);
    let lines = [b"\xff\n".as_slice(), b"a\x01\n", b"\t\n", long.as_bytes(), b"\nfine\n"].concat();
    let args =
        ["ingest", "--format", "tsv", "--now", "--count", "one:{1}", "--count", "all:lines", "-o", "json"];
    let report = sandbox.run_on(&args, &lines).expect(0).json();
    assert_eq!((&report["lines"], &report["counted"]), (&5.into(), &5.into()));
    assert_eq!(report["names"], serde_json::json!({"shortened": 1, "escaped": 2}));
    let shortened = countem_core::MetricName::shortened(&long);
    let got = sandbox.run(&["get", "one", "--bucket", "all", "-o", "json"]).expect(0).json();
    let expected = serde_json::json!({r"\xff": 1, r"a\x01": 1, "-": 1, shortened.as_str(): 1, "fine": 1});
    assert_eq!(got["counters"], expected);
    assert_eq!(sandbox.total("all"), 5);
}

#[test]
fn overflowing_amounts_are_stored_in_parts_or_quarantined() {
    let sandbox = Sandbox::new();
    let (max, min) = (i64::MAX, i64::MIN);
    let args = ["ingest", "--format", "tsv", "--now", "--amount", "2", "--count", "n:{1}", "-o", "json"];
    let lines = format!("a\t{max}\na\t-{max}\na\t5\nb\t{min}\nc\t99999999999999999999\na\t-6\n");
    let report = sandbox.run_on(&args, lines.as_bytes()).expect(6).json();
    assert_eq!((&report["counted"], &report["rejected"]), (&5.into(), &1.into()));
    assert_eq!(report["totals"]["n"], "-9223372036854775809", "a sum beyond 64 bits");
    let all = sandbox.run(&["get", "n", "--bucket", "all", "-o", "json"]).expect(0).json();
    assert_eq!(all["counters"], serde_json::json!({ "a": -1, "b": min }));
    let report = sandbox.run_on(&args, format!("a\t{max}\na\t{max}\nd\t1\n").as_bytes()).expect(6).json();
    assert_eq!(report["increments"]["quarantined"], 1, "{report}");
    assert_eq!(sandbox.total("n"), max + min, "-1, the greatest number, one more and the smallest");
}

#[test]
fn wrong_flags_are_answered_with_the_choices() {
    let sandbox = Sandbox::new();
    let usage = |args: &[&str]| -> Ran { sandbox.run(&[&["ingest"], args].concat()).expect(2) };
    let combined = |args: &[&str]| usage(&[args, &["-", "--format", "combined"]].concat()).err;
    assert!(combined(&["--count", "web:{methd}"]).contains("did you mean `{method}`?"));
    assert!(combined(&["--count", "web:{nothing}"]).contains("{agent}"));
    assert!(combined(&["--count", "web"]).contains("a colon"));
    assert!(combined(&["--count", "we b:x"]).contains("collection name"));
    assert!(combined(&["--count", "web:x", "--once"]).contains("standard input"));
    assert!(combined(&["--count", "web:x", "--follow"]).contains("standard input"));
    assert!(combined(&["--count", "web:x", "--header"]).contains("--format csv"));
    assert!(combined(&["--count", "web:x", "--time-format", "nonsense"]).contains("no time format"));
    assert!(combined(&["--count", "web:x", "--amount", "size"]).contains("{bytes}"));
    assert!(usage(&["-", "--count", "web:x"]).err.contains("--format"));
    assert!(usage(&["-", "--count", "web:{a}", "--format", "ndjson"]).err.contains("--time-field"));
    assert!(usage(&["-", "--count", "web:{a}", "--format", "tsv", "--now"]).err.contains("numbers"));
    assert!(usage(&["-", "--count", "web:x", "--regex", "(", "--now"]).err.contains("--regex"));
    assert!(usage(&["-", "--count", "web:{b}", "--regex", "(?<a>.)", "--now"]).err.contains("{a}"));
    assert!(!sandbox.path("countem.db").exists(), "a refused command makes no store");
}

#[test]
fn more_formats_are_counted_end_to_end() {
    let iis = "#Software: Microsoft Internet Information Services 10.0\n#Fields: date time cs-method\n\
               2015-05-17 12:00:00 GET\n#Fields: cs-method date time\nPUT 2015-05-17 13:00:00\n";
    let csv =
        "when,shop\r\n2015-05-17,\"a, \"\"b\"\"\"\r\n2015-05-17,\"over\r\ntwo lines\"\r\n2015-05-17,c\r\n";
    let server = r#"$remote_addr [$time_local] "$request" $status"#;
    let line = "192.0.2.1 [17/May/2015:10:05:03 +0000] \"GET /a/b/c?x=1 HTTP/1.1\" 404\n";
    let old_mac = "a\t2015-05-17\rb\t2015-05-17\r";
    let objects = "{\"k\":\"x\",\"ts\":\"2015-05-17\"}{\"k\":\"y\",\"ts\":1431857103123456}\n";
    /// Text, flags, counter, expected counters and exit code.
    type Case<'a> = (&'a str, &'a [&'a str], &'a str, &'a [(&'a str, i64)], i32);
    let cases: [Case<'_>; 9] = [
        (iis, &["-f", "w3c"], "x:{cs-method}", &[("GET", 1), ("PUT", 1)], 0),
        (
            csv,
            &["-f", "csv", "--header", "--time-field", "when"],
            "x:{shop}",
            &[("a, \"b\"", 1), (r"over\x0d\x0atwo lines", 1), ("c", 1)],
            0,
        ),
        (
            "level=info ts=2015-05-17\n",
            &["-f", "logfmt", "--time-field", "ts"],
            "x:{level}",
            &[("info", 1)],
            0,
        ),
        (
            "May 17 10:05:03 web1 sshd[1]: up\n",
            &["-f", "syslog", "--year", "2015"],
            "x:{app}",
            &[("sshd", 1)],
            0,
        ),
        ("<34>1 2015-05-17T10:05:03Z h a - - - m\n", &["-f", "syslog"], "x:{severity}", &[("crit", 1)], 0),
        (
            line,
            &["--log-format", server],
            "x:{status|status_class} {path|path_prefix(2)}",
            &[("4xx /a/b", 1)],
            0,
        ),
        (old_mac, &["-f", "tsv", "--time-field", "2"], "x:{1}", &[("a", 1), ("b", 1)], 0),
        (objects, &["-f", "ndjson", "--time-field", "ts"], "x:{k}", &[("x", 1), ("y", 1)], 0),
        (
            "a 2015-05-17 10:05:03\n",
            &["--regex", "(?<a>.) (?<d>\\S+) (?<t>.*)", "--time-field", "d t"],
            "x:{a}",
            &[("a", 1)],
            0,
        ),
    ];
    for (text, flags, count, expected, exit) in cases {
        let sandbox = Sandbox::new();
        sandbox.run_on(&[&["ingest", "-", "-c", count], flags].concat(), text.as_bytes()).expect(exit);
        assert_eq!(sandbox.counters("x", DAY), counters(expected), "{flags:?}");
    }
}

#[test]
fn csv_records_count_once_however_they_are_cut() {
    let record = |n: usize| match n % 3 {
        0 => format!("a,\"{}\"\r\n", "x\n\"\",\r\n\n".repeat(n)),
        1 => format!("\"b\n\",{n} \" inches\n"),
        _ => "c,\n".to_owned(),
    };
    let text: String = (0..120).map(record).collect();
    let expected = counters(&[("a", 40), (r"b\x0a", 40), ("c", 40)]);
    let read = |sandbox: &Sandbox, args: &[&str], exit| {
        sandbox
            .run(&[&["ingest", "-f", "csv", "-c", "x:{1}", "--now", "-o", "json"], args].concat())
            .expect(exit)
            .json()
    };
    let total = |sandbox: &Sandbox| {
        let ran = sandbox.run(&["get", "x", "--bucket", "all", "-o", "json"]).expect(0);
        serde_json::from_value::<Counters>(ran.json()["counters"].clone()).unwrap()
    };
    let whole = Sandbox::new();
    whole.write("log.gz", crate::ingest::gzip(text.as_bytes()));
    assert_eq!(read(&whole, &["log.gz"], 0)["lines"], 120);
    assert_eq!(total(&whole), expected);

    // Cut anywhere, in quotes too: half a record waits.
    let grown = Sandbox::new();
    let follower = grown.start(&["ingest", "-f", "csv", "-c", "y:{1}", "--now", "--follow", "log"]);
    for piece in text.as_bytes().chunks(text.len() / 40) {
        grown.append("log", piece);
        read(&grown, &["log", "--once"], 0);
    }
    assert_eq!(total(&grown), expected);
    crate::harness::eventually(&120, || grown.total("y"));
    crate::harness::interrupt(follower).expect(0);
    // Its end would be a guess, and so would every later record.
    grown.append("log", format!("d,\"open\n{}", "d,1\n".repeat(300_000)));
    let report = read(&grown, &["log", "--once"], 1);
    assert!(report["failed"][0]["error"].as_str().unwrap().contains("quote"), "{report}");
    assert_eq!(total(&grown), expected);
}

#[test]
fn format_is_recognised_by_the_first_lines() {
    let sandbox = Sandbox::new();
    sandbox.write("log", "<34>1 2015-05-17T10:05:03Z h a - - - m\n".repeat(3));
    let ran = sandbox.run(&["ingest", "log", "-f", "auto", "-c", "x:{host}"]).expect(0);
    assert!(ran.err.contains("format syslog by the first lines of `log`"), "{}", ran.err);
    assert_eq!(sandbox.counters("x", DAY), counters(&[("h", 3)]));
    sandbox.write("prose", "It was a dark and stormy night.\n");
    let ran = sandbox.run(&["ingest", "prose", "-f", "auto", "-c", "x:{1}"]).expect(2);
    assert!(ran.err.contains("in no format that is recognised"), "{}", ran.err);
}

#[test]
fn conditions_leave_lines_out() {
    let sandbox = Sandbox::new();
    let text = "200\t5\n404\t7\n500\t70\n503\t1e2\n";
    let tsv = [
        "ingest", "-", "-f", "tsv", "--now", "-c", "x:{1}", "--where", "1~^5", "--where", "2>70", "-o",
        "json",
    ];
    let report = sandbox.run_on(&tsv, text.as_bytes()).expect(0).json();
    assert_eq!(
        (&report["lines"], &report["counted"], &report["filtered"]),
        (&4.into(), &1.into(), &3.into())
    );
    assert_eq!(sandbox.total("x"), 1);
}

#[test]
fn repeated_hour_is_refused_where_buckets_differ() {
    let lines = [("2017-10-29T02:30:00", "a"), ("2017-10-29T04:30:00", "b"), ("2017-03-26T02:59:33", "c")];
    let text: String =
        lines.iter().map(|(at, key)| format!("{{\"t\":\"{at}\",\"k\":\"{key}\"}}\n")).collect();
    for (periods, counted) in
        [("hour,day", serde_json::json!({ "b": 1 })), ("day", serde_json::json!({ "a": 1, "b": 1 }))]
    {
        let sandbox = Sandbox::new();
        sandbox.write("log", &text);
        let periods = format!("time.periods={periods}");
        let args = ["ingest", "log", "-f", "ndjson", "--time-field", "t", "-c", "x:{k}", "--set", &periods];
        let ran = sandbox.run(&[&args[..], &["--set", "time.zone=Europe/Berlin"]].concat()).expect(6);
        assert!(ran.err.contains("the clocks skipped the time in `{t}`"), "{}", ran.err);
        let all = sandbox.run(&["get", "x", "--bucket", "2017", "-o", "json"]).expect(0).json();
        assert_eq!(all["counters"], counted, "{periods}");
    }
}
