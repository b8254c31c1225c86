//! A collector that does what a configuration file says.
//!
//! Shows G16.

use std::fs;

use countem::{
    Bucket, Collector,
    config::{Config, Sources},
    engine::{Clock, ManualClock},
};

use crate::support::{CounterFile, counters, eventually};

#[test]
fn collector_does_what_file_environment_and_flags_say() {
    let file = CounterFile::new();
    let path = file.folder().join("countem.toml");
    let text = r#"
        [flush]
        interval = "5ms"
        [time]
        zone = "Asia/Kolkata"
        periods = ["hour", "day"]
        [collections."once.a.month"]
        periods = ["month"]
        [limits]
        metrics_per_bucket = 1
    "#;
    fs::write(&path, text).unwrap();
    let sources = Sources::default()
        .file(&path)
        .environment([("COUNTEM__LIMITS__METRICS_PER_BUCKET", "2"), ("UNRELATED", "x")])
        .flag("--store", "store.uri", &file.uri());
    let config = Config::load(&sources).unwrap();
    let clock = ManualClock::new("2026-11-30T18:30:00Z".parse().unwrap());
    let collector =
        Collector::builder().config(&config).clock(Clock::Manual(clock)).start_blocking().unwrap();
    for metric in ["a", "b", "c", "d"] {
        collector.increment("c", metric, 1);
    }
    collector.increment("once.a.month", "a", 1);
    // No call asks for a flush: the interval does.
    eventually("a flush", || file.path().exists() && file.rows().len() == 3);

    let capped = counters(&[("__overflow__", 2), ("a", 1), ("b", 1)]);
    let expected = [
        ("c", "2026-11-30T18", capped.clone()),
        // Half past six in UTC is midnight in Kolkata.
        ("c", "2026-12-01", capped),
        ("once.a.month", "2026-12", counters(&[("a", 1)])),
    ];
    let expected = expected.map(|(name, id, counters)| ((name.to_owned(), id.to_owned()), counters));
    assert_eq!(file.rows().into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(collector.stats().overflowed["c"], 2);
    let month: Bucket = "2026-12".parse().unwrap();
    assert_eq!(collector.blocking().get("once.a.month", "a", month).unwrap(), Some(1));
    let day = collector.blocking().get_counters("once.a.month", None).unwrap_err().to_string();
    assert_eq!(day, "`once.a.month` stores no day buckets, and month buckets do not add up to them");
    assert!(collector.blocking().shutdown().is_complete());
}
