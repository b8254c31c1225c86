//! Lines of every format, right and nearly right, against an oracle in Python that knows nothing of the parsers.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde::Deserialize;
use serde_json::Value;

use crate::harness::Sandbox;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracle/lines.py");
const SUITES: [&str; 16] = [
    "combined", "common", "mixed", "carriage", "nginx", "apache", "regex", "w3c", "csv", "tsv", "ndjson",
    "amounts", "journald", "logfmt", "syslog", "yearless",
];

/// Amounts by `collection:metric` and day.
type Days = BTreeMap<String, BTreeMap<String, i64>>;

/// Flags that read a log, and its counters.
#[derive(Deserialize)]
struct Expected {
    flags: Vec<String>,
    zone: String,
    must: Days,
    may: Days,
    blank: u64,
    /// Least and greatest number of records, and of those that count.
    records: [u64; 2],
    counted: [u64; 2],
}

/// `COUNTEM_LINES` is the number of lines of each suite, `COUNTEM_SEED` repeats a run.
fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn lines_agree_with_an_independent_oracle() {
    let is_there =
        Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "python3 is missing");
        println!("skipped: python3 is missing");
        return;
    }
    let (lines, seed) = (variable("COUNTEM_LINES", 2000), variable("COUNTEM_SEED", 1));
    let faults: Vec<_> = SUITES.iter().flat_map(|suite| faults(suite, lines, seed)).collect();
    assert!(
        faults.is_empty(),
        "COUNTEM_SEED={seed}: {} faults\n{}",
        faults.len(),
        faults[..faults.len().min(40)].join("\n")
    );
}

/// Returns what is wrong with the counters of a suite's lines, and with the report.
fn faults(suite: &str, lines: u64, seed: u64) -> Vec<String> {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("");
    // Faults are rarer in the mixed log.
    let lines = if suite == "mixed" { 2 * lines } else { lines };
    let mut python = Command::new("python3");
    python.args(["-B", SCRIPT, suite, &lines.to_string(), &seed.to_string()]).arg(&folder);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{suite}: {}", String::from_utf8_lossy(&output.stderr));
    let expected: Expected = serde_json::from_slice(&output.stdout).unwrap();
    sandbox.write("zone.toml", format!("[time]\nzone = \"{}\"\n", expected.zone));

    let flags = expected.flags.iter().map(String::as_str);
    let args: Vec<_> =
        ["--config", "zone.toml", "ingest", "log", "-o", "json"].into_iter().chain(flags).collect();
    let ran = sandbox.run(&args);
    assert!([0, 6].contains(&ran.code), "{suite}: {ran:?}");
    let report = ran.json();
    let mut faults = report_faults(&report, &expected);
    let (mut totals, mut found) = (BTreeMap::<String, i64>::new(), Days::new());
    for day in expected.must.keys().chain(expected.may.keys()).collect::<BTreeSet<_>>() {
        let ran = sandbox.run(&["all", "--date", day, "-o", "json"]);
        let collections = if ran.code == 3 {
            Days::new()
        } else {
            serde_json::from_value(ran.json()["collections"].take()).unwrap()
        };
        for (collection, counters) in collections {
            *totals.entry(collection.clone()).or_default() += counters.values().sum::<i64>();
            let named = counters.into_iter().map(|(metric, n)| (format!("{collection}:{metric}"), n));
            found.entry(day.clone()).or_default().extend(named);
        }
    }
    if serde_json::json!(totals) != report["totals"] {
        faults.push(format!("counts are on other days: {totals:?} of {}", report["totals"]));
    }
    let of = |days: &Days, day: &str, name: &str| {
        days.get(day).and_then(|names| names.get(name)).copied().unwrap_or(0)
    };
    for (day, names) in &found {
        for (name, n) in names {
            let (must, may) = (of(&expected.must, day, name), of(&expected.may, day, name));
            if !(must.min(must + may)..=must.max(must + may)).contains(n) {
                faults.push(format!("{day} {name}: {n}, where {must} (and perhaps {may}) is right"));
            }
        }
    }
    for (day, names) in &expected.must {
        let lost =
            names.iter().filter(|(name, _)| found.get(day).is_none_or(|names| !names.contains_key(*name)));
        faults.extend(lost.map(|(name, n)| format!("{day} {name}: nothing, where {n} is right")));
    }
    faults.into_iter().map(|fault| format!("{suite}: {fault}")).collect()
}

fn report_faults(report: &Value, expected: &Expected) -> Vec<String> {
    let [lines, counted, blank, filtered, rejected] =
        ["lines", "counted", "blank", "filtered", "rejected"].map(|key| report[key].as_u64().unwrap());
    let is_within = |[least, greatest]: [u64; 2], n| (least..=greatest).contains(&n);
    let mut faults = Vec::new();
    if counted + blank + filtered + rejected != lines {
        faults.push(format!("{counted} + {blank} + {filtered} + {rejected} are not {lines}"));
    }
    if blank != expected.blank
        || !is_within(expected.records, lines - blank)
        || !is_within(expected.counted, counted)
    {
        let Expected { blank: blanks, records, counted: counts, .. } = expected;
        faults.push(format!("{lines} lines, {blank} blank, {counted} counted: expected {records:?} and {blanks} blank, {counts:?} counted"));
    }
    faults
}
