//! Builders.

use std::time::Duration;

use countem::{
    Builder, Collector,
    config::{Config, Sources},
    engine::{EngineConfig, ScheduleConfig},
};

fn config() -> Config {
    let sources = Sources::default()
        .flag("--set", "store.uri", "memory://")
        .flag("--set", "flush.interval", "1h")
        .flag("--set", "time.periods", "month");
    Config::load(&sources).unwrap()
}

/// Counts once and returns the stored buckets: which setters were in effect.
fn reads(builder: Builder) -> [bool; 2] {
    let collector = builder.start_blocking().unwrap();
    let _guard = collector.guard();
    collector.increment("c", "m", 1);
    ["2026-01-01", "2026-01"].map(|bucket| {
        let bucket: countem::Bucket = bucket.parse().unwrap();
        collector.blocking().get_counters("c", bucket).is_ok()
    })
}

#[test]
fn order_of_setters_has_no_effect() {
    use countem::Period::{Day, Month};
    let config = config();
    let engine = EngineConfig { schedule: ScheduleConfig::of_periods([Day]), ..EngineConfig::default() };
    let builder = Collector::builder;
    assert_eq!(reads(builder().config(&config)), [false, true]);
    assert_eq!(reads(builder().periods([Day, Month]).config(&config)), [true, true]);
    assert_eq!(reads(builder().config(&config).periods([Month])), [false, true]);
    assert_eq!(reads(builder().engine_config(engine.clone()).config(&config)), [true, true]);
    assert_eq!(reads(builder().store("memory://").periods([Month]).engine_config(engine)), [false, true]);
}

#[test]
fn config_brings_store_and_flush_interval() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts.db");
    let sources = Sources::default()
        .flag("--set", "store.uri", &format!("sqlite://{}", file.display()))
        .flag("--set", "flush.interval", "1h");
    let config = Config::load(&sources).unwrap();
    // An explicit interval wins, before and after the configuration.
    for builder in [
        Collector::builder().flush_interval(Duration::from_millis(1)).config(&config),
        Collector::builder().config(&config).flush_interval(Duration::from_millis(1)),
    ] {
        let collector = builder.start_blocking().unwrap();
        collector.increment("c", "m", 1);
        while collector.stats().applied == 0 {
            std::thread::yield_now();
        }
        assert!(collector.blocking().shutdown().is_complete());
    }
    assert!(file.exists());
}
