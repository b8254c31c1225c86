//! Every period can be read back: the stored ones as they are, the others as sums of days.

use countem::{
    Bucket, BucketRange, Collector, Period,
    engine::{Clock, EngineConfig, ManualClock, ScheduleConfig},
    jiff::tz::TimeZone,
};

use crate::support::CounterFile;

/// Moments and how often something happened then, each count of another order of magnitude.
const EVENTS: [(&str, i64); 6] = [
    ("2025-12-31T22:59:59Z", 1),
    // New year in Berlin, in the first ISO week of 2026, which began on 29 December.
    ("2025-12-31T23:00:00Z", 10),
    ("2026-03-29T00:59:59Z", 100),
    // The clocks go forward.
    ("2026-03-29T01:00:00Z", 1_000),
    ("2026-03-29T21:59:59Z", 10_000),
    ("2026-03-29T22:00:00Z", 100_000),
];

fn start(file: &CounterFile, periods: &[Period]) -> Collector {
    let config = EngineConfig {
        schedule: ScheduleConfig {
            zone: Some(TimeZone::get("Europe/Berlin").unwrap()),
            ..ScheduleConfig::of_periods(periods.iter().copied())
        },
        ..EngineConfig::default()
    };
    let clock = ManualClock::new("2026-04-01T12:00:00Z".parse().unwrap());
    file.builder().engine_config(config).clock(Clock::Manual(clock)).start_blocking().unwrap()
}

fn count(file: &CounterFile, periods: &[Period]) -> Collector {
    let collector = start(file, periods);
    for (moment, n) in EVENTS {
        collector.increment_at("c", "a", n, moment.parse().unwrap()).unwrap();
    }
    assert!(collector.blocking().shutdown().is_complete());
    start(file, periods)
}

fn assert_reads(collector: &Collector, expected: &[(&str, i64)]) {
    for (id, value) in expected {
        let bucket: Bucket = id.parse().unwrap();
        assert_eq!(collector.blocking().get("c", "a", bucket).unwrap(), Some(*value), "{id}");
    }
}

const CIVIL: [(&str, i64); 10] = [
    ("2025-12-31", 1),
    ("2026-01-01", 10),
    ("2026-03-29", 11_100),
    ("2026-03-30", 100_000),
    ("2026-W01", 11),
    ("2026-W13", 11_100),
    ("2025-12", 1),
    ("2026-03", 111_100),
    ("2026", 111_110),
    ("all", 111_111),
];

#[test]
fn coarser_periods_follow_from_stored_days() {
    let file = CounterFile::new();
    let collector = count(&file, &[Period::Day]);
    assert_eq!(file.rows().len(), 4, "only days are stored");
    assert_reads(&collector, &CIVIL);
    let range =
        |first: &str, last: &str| BucketRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap();
    let series = |range| {
        let series = collector.blocking().series("c", "a", range).unwrap();
        series.into_iter().map(|(bucket, value)| (bucket.to_string(), value)).collect::<Vec<_>>()
    };
    let owned = |expected: &[(&str, i64)]| -> Vec<_> {
        expected.iter().map(|(id, value)| ((*id).to_owned(), *value)).collect()
    };
    assert_eq!(series(range("2026-01", "2026-12")), owned(&[("2026-01", 10), ("2026-03", 111_100)]));
    assert_eq!(series(range("2026-03-01", "2026-03-29")), owned(&[("2026-03-29", 11_100)]));
    let weeks = owned(&[("2026-W01", 11), ("2026-W13", 11_100), ("2026-W14", 100_000)]);
    assert_eq!(series(range("2026-W01", "2026-W14")), weeks);
    let hour = collector
        .blocking()
        .get("c", "a", "2026-03-29T00".parse::<Bucket>().unwrap())
        .unwrap_err()
        .to_string();
    assert_eq!(hour, "`c` stores no hour buckets, and day buckets do not add up to them");
}

#[test]
fn all_eight_periods_can_be_stored_and_agree() {
    let file = CounterFile::new();
    let collector = count(&file, &Period::ALL);
    assert_reads(&collector, &CIVIL);
    assert_reads(
        &collector,
        &[
            ("2025-12-31T22:59:59", 1),
            ("2025-12-31T23:00", 10),
            ("2026-03-29T00", 100),
            ("2026-03-29T01", 1_000),
            ("2026-03-29T21:59", 10_000),
            ("2026-03-29T22", 100_000),
        ],
    );
    for period in Period::ALL {
        let series = collector.blocking().series("c", "a", BucketRange::every(period)).unwrap();
        assert!(series.keys().all(|bucket| bucket.period() == period));
        assert_eq!(series.values().sum::<i64>(), 111_111, "over every {period}");
    }
}

#[test]
fn coarser_periods_follow_from_stored_hours() {
    let file = CounterFile::new();
    let collector = count(&file, &[Period::Hour]);
    assert_eq!(file.rows().len(), 6, "only hours are stored");
    assert_reads(&collector, &CIVIL);
}
