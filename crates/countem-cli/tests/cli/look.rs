//! `ingest --dry-run` and `--print`: what would be counted, and nothing is stored.

use serde_json::json;

use crate::harness::Sandbox;

const CSV: &str = "day,shop,euros\n2015-05-17,\"a\nb\",5\n2015-05-18,c,x\n\n2015-05-18,c,7\n";

fn run(sandbox: &Sandbox, args: &[&str], exit: i32) -> crate::harness::Ran {
    let csv = ["ingest", "log", "-f", "csv", "--header", "--time-field", "day", "--amount", "euros"];
    sandbox.run(&[&csv[..], &["-c", "sales:{shop}", "-c", "all:n"], args].concat()).expect(exit)
}

#[test]
fn first_lines_show_their_fields_and_counts() {
    let sandbox = Sandbox::new();
    sandbox.write("log", format!("{CSV}{}", "2015-05-19,d,1\n".repeat(20)));
    let shown = run(&sandbox, &["--dry-run", "-o", "json"], 6).json();
    assert_eq!(shown["lines"].as_array().unwrap().len(), 10);
    let count = |collection, metric| json!({"collection": collection, "metric": metric, "bucket": "2015-05-17", "n": 5});
    assert_eq!(
        shown["lines"][0],
        json!({"line": 3, "text": "2015-05-17,\"a\\nb\",5", "fields": {"day": "2015-05-17", "shop": "a\nb", "euros": "5"},
               "counts": [count("sales", r"a\x0ab"), count("all", "n")]})
    );
    assert_eq!(shown["lines"][1]["rejected"], "field `{euros}` is not a whole number");
    assert_eq!(shown["lines"][1]["fields"]["euros"], "x");
    assert_eq!(shown["lines"][2]["counts"][0]["n"], 7);
    let table = run(&sandbox, &["--dry-run"], 6).out;
    assert!(table.contains("is not a whole number") && table.contains("2015-05-18"), "{table}");
    let filtered = run(&sandbox, &["--dry-run", "--where", "shop=d", "-o", "json"], 6).json();
    assert_eq!(filtered["lines"][0]["rejected"], "left out by --where");
    sandbox.write("log", "day,shop\n2015-05-17,a\n");
    assert!(run(&sandbox, &["--dry-run"], 2).err.contains("{euros}"));
    assert!(!sandbox.path("countem.db").exists());
}

#[test]
fn first_lines_show_every_stored_bucket() {
    let sandbox = Sandbox::new();
    sandbox.write("log", "2018-04-03T10:20:30Z\tb\n");
    let tsv = ["ingest", "log", "-f", "tsv", "--time-field", "1", "-c", "c:{2}", "--dry-run"];
    let shown =
        sandbox.run(&[&tsv[..], &["--set", "time.periods=hour,day", "-o", "json"]].concat()).expect(0);
    let count = |bucket| json!({"collection": "c", "metric": "b", "bucket": bucket, "n": 1});
    assert_eq!(shown.json()["lines"][0]["counts"], json!([count("2018-04-03T10"), count("2018-04-03")]));
}

#[test]
fn printed_counters_are_those_of_a_stored_run() {
    let sandbox = Sandbox::new();
    sandbox.write("log", CSV);
    let printed = run(&sandbox, &["--print", "-o", "json"], 6);
    assert!(printed.err.contains("rejected 1 line"), "{}", printed.err);
    assert!(!sandbox.path("countem.db").exists());
    let expected =
        json!({"bucket": "all", "collections": {"all": {"n": 12}, "sales": {r"a\x0ab": 5, "c": 7}}});
    assert_eq!(printed.json(), expected);
    let table = run(&sandbox, &["--print", "-q"], 6);
    assert!(table.err.is_empty(), "{}", table.err);
    run(&sandbox, &[], 6);
    assert_eq!(sandbox.run(&["all", "--bucket", "all", "-o", "json"]).expect(0).json(), expected);
    assert_eq!(sandbox.run(&["all", "--bucket", "all"]).expect(0).out, table.out);
    for flags in [["--print", "--once"], ["--print", "--follow"], ["--dry-run", "--print"]] {
        run(&sandbox, &flags, 2);
    }
}
