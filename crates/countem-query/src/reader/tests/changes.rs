//! Reads across changes of the schedule, against an oracle that knows every event.
//!
//! Shows G19.

use countem_core::{Batch, BatchId, ScheduleConfig, Table, Writer};
use countem_store::MemoryStore;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use proptest::{prelude::*, sample::subsequence};

use super::*;

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
];

/// Settings of a writer.
#[derive(Debug, Clone)]
struct Setting {
    zone: usize,
    periods: Vec<Period>,
    own: Option<Vec<Period>>,
    /// Hours after the change before that this one is asked for.
    after: i64,
}

fn setting() -> impl Strategy<Value = Setting> {
    let periods = || subsequence(Period::ALL.to_vec(), 1..4);
    let zone = prop_oneof![3 => Just(0_usize), 4 => 0..ZONES.len()];
    (zone, periods(), prop::option::of(periods()), 0..1500_i64)
        .prop_map(|(zone, periods, own, after)| Setting { zone, periods, own, after })
}

fn config(setting: &Setting) -> ScheduleConfig {
    let own = setting.own.iter().map(|periods| (web(), periods.clone()));
    ScheduleConfig {
        zone: Some(TimeZone::get(ZONES[setting.zone]).unwrap()),
        periods: Some(setting.periods.clone()),
        own: own.collect(),
        change: true,
        ..ScheduleConfig::default()
    }
}

/// The schedules that become of the settings, and the zones in which they are, with their beginnings.
fn schedules(settings: &[Setting], begin: Timestamp) -> (Schedules, Vec<(Timestamp, TimeZone)>) {
    let first = config(&settings[0]);
    let mut schedules = first.schedules().unwrap();
    let mut zones = vec![(Timestamp::MIN, first.zone.unwrap())];
    let mut now = begin;
    for setting in &settings[1..] {
        now += SignedDuration::from_hours(setting.after);
        let wanted = config(setting);
        if let Some(changed) = wanted.reconcile(&schedules, now, SignedDuration::ZERO).unwrap() {
            let text = changed.to_string();
            let since = text.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
            assert!(since > now, "a change is announced");
            zones.push((since, wanted.zone.unwrap()));
            schedules = text.parse().unwrap();
        }
    }
    (schedules, zones)
}

async fn store_of(events: &[(Timestamp, i64)], schedules: &Schedules) -> MemoryStore {
    let schedule = schedules.of("web");
    let mut table = Table::new();
    for (moment, n) in events {
        for bucket in schedule.fan_out(schedule.bucket_at(*moment).unwrap()) {
            table.fold("web", "m", bucket, *n).unwrap();
        }
    }
    let store = MemoryStore::new();
    let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 };
    store.apply(&Arc::new(Batch::new(id, table.drain()))).await.unwrap();
    let mut recorded: Option<Schedules> = None;
    let text = schedules.to_string();
    for (line, _) in text.lines().enumerate() {
        let until: Vec<_> = text.lines().take(line + 1).collect();
        recorded = Some(store.record_schedules(&until.join("\n").parse().unwrap()).await.unwrap());
    }
    assert_eq!(recorded.as_ref(), Some(schedules));
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever settings the writers had, and whatever the reader is configured to, an answer is that of the events or is refused. A
    /// bucket whose instants all lie in one era and that is stored there is never refused.
    #[test]
    fn answers_equal_the_events_or_are_refused(
        settings in prop::collection::vec(setting(), 1..4),
        reader in setting(),
        start in 1_750_000_000_i64..1_800_000_000,
        distances in prop::collection::vec((0..4_usize, -200_000_i64..200_000), 1..40),
        requests in prop::collection::vec((0..8_usize, 0..40_usize), 1..12),
    ) {
        let begin = Timestamp::from_second(start).unwrap();
        let (schedules, zones) = schedules(&settings, begin);
        let events: Vec<_> = distances
            .iter()
            .enumerate()
            .map(|(at, (era, distance))| {
                let around = zones[(*era).min(zones.len() - 1)].0.max(begin);
                (Timestamp::from_second(around.as_second() + distance).unwrap(), 1 << at)
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = store_of(&events, &schedules).await;
            let configured = config(&reader).schedules().unwrap();
            let reader = Reader::of_store(Arc::new(store), Arc::new(configured));
            let metric = MetricName::new("m").unwrap();
            for (period, event) in requests {
                let period = Period::ALL[period];
                let (moment, _) = events[event % events.len()];
                let zone_at = |moment: Timestamp| {
                    &zones.iter().rev().find(|(since, _)| *since <= moment).unwrap().1
                };
                let requested = Bucket::containing(period, moment, zone_at(moment)).unwrap();
                let expected: i64 = events
                    .iter()
                    .filter(|(at, _)| Bucket::containing(period, *at, zone_at(*at)).unwrap() == requested)
                    .map(|(_, n)| n)
                    .sum();
                let context = format!("{requested} of\n{schedules}\nof {events:?}");
                let got = reader.get(&web(), &metric, requested).await;
                match &got {
                    Ok(got) => prop_assert_eq!(*got, Some(expected), "{}", context),
                    Err(error) => {
                        prop_assert!(!matches!(error, ReadError::Store(_)), "{error} {context}");
                        let stored = schedules.of("web").periods(moment).contains(&period);
                        // An id may stand for a bucket of another zone, too, which begins up to two days earlier or later.
                        let span = SignedDuration::from_hours(48);
                        let end = requested.next().map_or(Timestamp::MAX, |next| next.start_instant(&TimeZone::UTC));
                        let start = requested.start_instant(&TimeZone::UTC);
                        let is_near = zones[1..].iter().any(|(since, _)| {
                            start <= since.saturating_add(span).unwrap() && since.saturating_sub(span).unwrap() <= end
                        });
                        prop_assert!(!stored || is_near, "{context} is stored, and refused: {error}");
                    }
                }
                let series = reader.series(&web(), &metric, BucketRange::one(requested)).await;
                prop_assert_eq!(series.is_ok(), got.is_ok(), "{}", context);
                // The buckets around it, too.
                if let Some(next) = requested.next().and_then(|next| BucketRange::new(requested, next)) {
                    let Ok(series) = reader.series(&web(), &metric, next).await else { continue };
                    for (bucket, sum) in series {
                        let expected: i64 = events
                            .iter()
                            .filter(|(at, _)| Bucket::containing(period, *at, zone_at(*at)).unwrap() == bucket)
                            .map(|(_, n)| n)
                            .sum();
                        prop_assert_eq!(sum, expected, "{} in the series from {}", bucket, context);
                    }
                }
            }
            Ok(())
        })?;
    }
}
