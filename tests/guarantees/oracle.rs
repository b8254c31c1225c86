//! Reads by period and by label, against oracles in Python that know nothing of countem.
//!
//! Shows G20.

use std::{collections::BTreeMap, process::Command};

use countem::{
    Builder, Collector, Period, Query, Timestamp,
    engine::{Clock, ManualClock},
    jiff::tz::TimeZone,
    query::{Group, Metrics},
    store::MemoryStore,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::support::CounterFile;

const ZONES: [&str; 6] =
    ["America/New_York", "Asia/Kolkata", "Pacific/Apia", "Africa/Casablanca", "Australia/Lord_Howe", "UTC"];

/// Sums by period and bucket.
#[derive(Deserialize)]
struct Year {
    events: Vec<(i64, i64)>,
    sums: BTreeMap<String, BTreeMap<String, i64>>,
}

#[derive(Deserialize)]
struct Labels {
    counts: Vec<Count>,
    groups: Vec<Grouped>,
    metrics: Vec<(Vec<(String, String)>, i64)>,
}

#[derive(Deserialize)]
struct Count {
    labels: Vec<(String, String)>,
    n: i64,
}

#[derive(Deserialize)]
struct Grouped {
    keys: Vec<String>,
    rows: Vec<(Vec<String>, i64)>,
}

/// Runs a script of `tests/oracle`; `None` without Python, which CI has.
fn ask<T: DeserializeOwned>(script: &str, args: &[&str]) -> Option<T> {
    let path = format!("{}/oracle/{script}", env!("CARGO_MANIFEST_DIR"));
    match Command::new("python3").args(["-B", &path]).args(args).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(serde_json::from_slice(&output.stdout).unwrap())
        }
        Err(error) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "python3: {error}");
            println!("skipped: python3: {error}");
            None
        }
    }
}

/// Sets of stored periods: all, days from the finest, and days beside hours that do not make them up everywhere.
const STORED: [&[Period]; 3] = [
    &[Period::Minute, Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year, Period::All],
    &[Period::Minute],
    &[Period::Hour, Period::Day],
];

/// Counts a year in every zone, by every set of stored periods, and reads it back by every period. `builder` begins a collector on a
/// new store each time.
pub(crate) async fn check_years(number: u32, builder: impl AsyncFn(String) -> Builder) {
    for zone in ZONES {
        let Some(year) = ask::<Year>("periods.py", &[zone, &number.to_string(), "1"]) else { return };
        for (at, periods) in STORED.into_iter().enumerate() {
            let clock = ManualClock::new("2026-12-31T12:00:00Z".parse().unwrap());
            let builder = builder(format!("{at}-{}", zone.replace('/', "-"))).await;
            let builder = builder.clock(Clock::Manual(clock)).zone(TimeZone::get(zone).unwrap());
            let collector = builder.periods(periods.iter().copied()).start().await.unwrap();
            for (second, n) in &year.events {
                let at = Timestamp::from_second(*second).unwrap();
                collector.increment_at("c", "m", *n, at).unwrap();
            }
            // Half of the reads are of what is pending.
            if at > 0 {
                collector.flush().await.unwrap();
            }
            check_year(&collector, &year, periods, zone).await;
            assert!(collector.shutdown().await.is_complete());
        }
    }
}

async fn check_year(collector: &Collector, year: &Year, stored: &[Period], zone: &str) {
    for (name, expected) in &year.sums {
        let about = format!("{name} of {zone}, {stored:?} stored");
        if name == "quarter" {
            for (quarter, value) in expected {
                let query = Query::new("c").range(quarter.parse().unwrap());
                let answer = collector.query(query).await.unwrap_or_else(|error| panic!("{about}: {error}"));
                assert_eq!(answer.rows[0].value, Ok(*value), "{quarter}: {about}");
            }
            continue;
        }
        let period: Period = name.parse().unwrap();
        if period < stored[0] {
            assert!(
                collector.query(Query::new("c").range("2026".parse().unwrap()).by(period)).await.is_err()
            );
            continue;
        }
        let range = if period < Period::Hour { "2026-12" } else { "all" };
        let query = Query::new("c").range(range.parse().unwrap()).by(period);
        let answer = collector.query(query).await.unwrap_or_else(|error| panic!("{about}: {error}"));
        let read: BTreeMap<_, _> = answer.rows[0]
            .points
            .iter()
            .map(|(bucket, value)| (bucket.to_string(), value.clone().unwrap().unwrap()))
            .collect();
        let first = answer.range.first().to_string();
        let last = answer.range.last().to_string();
        let expected: BTreeMap<_, _> = expected
            .iter()
            .filter(|(bucket, _)| range == "all" || (&first <= *bucket && *bucket <= &last))
            .map(|(bucket, value)| (bucket.clone(), *value))
            .collect();
        assert_eq!(read, expected, "{about}");
        let total: i64 = expected.values().sum();
        assert_eq!(answer.rows[0].value, Ok(total), "{about}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn years_in_memory_equal_those_of_zoneinfo() {
    check_years(800, async |_| Collector::builder().custom_store(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn years_in_sqlite_equal_those_of_zoneinfo() {
    let folder = CounterFile::new();
    let folder = folder.folder();
    check_years(800, async |name| {
        Collector::builder().store(format!("sqlite://{}/{name}.db", folder.display()))
    })
    .await;
}

/// Counts under labels in any order, and reads them back by metric and by label.
pub(crate) async fn check_labels(number: u32, builder: Builder) {
    let Some(oracle) = ask::<Labels>("labels.py", &[&number.to_string(), "1"]) else { return };
    let collector = builder.start().await.unwrap();
    for (at, Count { labels, n }) in oracle.counts.iter().enumerate() {
        let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        collector.try_increment_with("c", "m", &labels, *n).unwrap();
        collector.try_increment("c", "other", 1).unwrap();
        if at == oracle.counts.len() / 2 {
            collector.flush().await.unwrap();
        }
    }
    let query = || Query::new("c").metrics(Metrics::named("m"));
    let answer = collector.query(query()).await.unwrap();
    let read: BTreeMap<_, _> = answer.readable().map(|(row, value)| (row.name.clone(), value)).collect();
    let metric = |labels: &[(String, String)]| {
        let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        countem::MetricName::labelled("m", labels).unwrap().to_string()
    };
    let expected: BTreeMap<_, _> = oracle.metrics.iter().map(|(labels, n)| (metric(labels), *n)).collect();
    assert_eq!(expected.len(), oracle.metrics.len(), "two sets of labels have one name");
    assert_eq!(read, expected);
    for Grouped { keys, rows } in &oracle.groups {
        let answer = collector.query(query().group(Group::Labels(keys.clone()))).await.unwrap();
        let read = answer.readable().map(|(row, value)| {
            assert!(row.labels.iter().map(|(key, _)| key).eq(keys));
            (row.labels.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>(), value)
        });
        let read: BTreeMap<_, _> = read.collect();
        assert_eq!(read, rows.iter().cloned().collect(), "by {keys:?}");
        assert_eq!(answer.rows.len(), read.len(), "a row of {keys:?} is there twice");
    }
    assert!(collector.shutdown().await.is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_by_label_equal_those_of_python() {
    check_labels(4_000, Collector::builder().custom_store(MemoryStore::new())).await;
    check_labels(4_000, CounterFile::new().builder()).await;
}
