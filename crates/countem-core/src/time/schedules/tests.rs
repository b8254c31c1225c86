use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn config(zone: &str, periods: &[Period]) -> ScheduleConfig {
    ScheduleConfig {
        zone: Some(TimeZone::get(zone).unwrap()),
        change: true,
        ..ScheduleConfig::of_periods(periods.iter().copied())
    }
}

#[test]
fn text_reads_back_as_the_same_schedules() {
    for text in [
        "beginning UTC day",
        "beginning +05:30 day",
        "beginning -00:44:30 minute",
        "beginning Asia/Kolkata hour,day a.b=minute",
        "beginning UTC day\n2026-11-21T00:00:00Z Europe/Berlin hour,day app-events=minute,day\n\
         2026-11-22T23:00:00Z Europe/Berlin all",
    ] {
        let schedules: Schedules = text.parse().unwrap();
        assert_eq!(schedules.to_string(), text);
        assert_eq!(schedules.to_string().parse::<Schedules>().unwrap(), schedules);
    }
    assert_eq!(config("UTC", &[Period::Day]).schedules().unwrap().to_string(), "beginning UTC day");
}

#[test]
fn malformed_text_is_refused() {
    for text in [
        "",
        "beginning",
        "beginning UTC",
        "beginning UTC days",
        "beginning Mars/Olympus day",
        "beginning UTC day x",
        "beginning UTC day x=",
        "beginning  UTC day",
        "2026-11-21T00:00:00Z UTC day",
        "beginning UTC day\nbeginning UTC hour",
        "beginning UTC day\n2026-11-21 UTC hour",
        "beginning UTC day\n2026-11-21T00:00:00Z UTC hour\n2026-11-21T00:00:00Z UTC day",
    ] {
        assert!(text.parse::<Schedules>().is_err(), "{text:?} was accepted");
    }
}

#[test]
fn change_begins_with_a_whole_day() {
    let since = |zone, periods: &[Period], now| {
        let first = config(zone, periods).schedules().unwrap();
        let changed =
            config("UTC", &[Period::Second]).reconcile(&first, at(now), SignedDuration::from_mins(60));
        changed.unwrap().unwrap().changed_at().unwrap().to_string()
    };
    assert_eq!(since("UTC", &[Period::Day], "2026-11-20T12:00:00Z"), "2026-11-21T00:00:00Z");
    assert_eq!(since("UTC", &[Period::Day], "2026-11-20T22:54:59Z"), "2026-11-21T00:00:00Z");
    assert_eq!(since("UTC", &[Period::Day], "2026-11-20T22:55:00Z"), "2026-11-22T00:00:00Z");
    assert_eq!(since("Asia/Kolkata", &[Period::Hour], "2026-11-20T12:00:00Z"), "2026-11-20T18:30:00Z");
    assert_eq!(since("UTC", &[Period::Month, Period::All], "2026-11-20T12:00:00Z"), "2026-12-01T00:00:00Z");
    assert_eq!(since("UTC", &[Period::Week], "2026-11-20T12:00:00Z"), "2026-11-23T00:00:00Z");
    // The evening of the 3rd continues after the first minute of the 4th.
    assert_eq!(since("America/St_Johns", &[Period::Day], "2007-11-03T12:00:00Z"), "2007-11-05T03:30:00Z");
}

#[test]
fn only_what_is_configured_is_compared() {
    let recorded: Schedules = "beginning Asia/Kolkata hour,day own=minute".parse().unwrap();
    let reconcile = |config: ScheduleConfig| {
        config.reconcile(&recorded, at("2026-11-20T12:00:00Z"), SignedDuration::ZERO)
    };
    let own = |name: &str, periods: &[Period]| ScheduleConfig {
        own: [(CollectionName::new(name).unwrap(), periods.to_vec())].into(),
        ..ScheduleConfig::default()
    };
    use Period::{Day, Hour, Minute};
    for agreed in [
        ScheduleConfig::default(),
        ScheduleConfig::of_periods([Day, Hour, Day]),
        own("own", &[Minute]),
        own("other", &[Hour, Day]),
        config("Asia/Kolkata", &[Hour, Day]),
    ] {
        assert_eq!(reconcile(agreed.clone()), Ok(None), "{agreed:?}");
    }
    for (refused, values) in [
        (ScheduleConfig { change: false, ..config("UTC", &[Hour, Day]) }, ["`Asia/Kolkata`", "`UTC`"]),
        (ScheduleConfig::of_periods([Day]), ["`hour,day`", "`day`"]),
        (own("own", &[Hour, Day]), ["`minute` for `own`", "`hour,day`"]),
        (own("other", &[Minute]), ["`hour,day` for `other`", "`minute`"]),
    ] {
        let conflict = reconcile(refused).unwrap_err().to_string();
        assert!(values.iter().all(|value| conflict.contains(value)), "{conflict}");
    }
    let changed = reconcile(ScheduleConfig { change: true, ..own("other", &[Minute]) }).unwrap().unwrap();
    assert_eq!(
        changed.to_string(),
        "beginning Asia/Kolkata hour,day own=minute\n\
         2026-11-20T18:30:00Z Asia/Kolkata hour,day other=minute own=minute"
    );
}

const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Across changes, the counting bucket fans out to the buckets of the era of the moment, and stays the same until the
    /// announced change.
    #[test]
    fn fan_out_gives_the_buckets_of_the_era(
        masks in prop::collection::vec((0..ZONES.len(), 1..256_u32, 0..400_i64), 2..4),
        distance in -400_000_i64..400_000, era in 0..4_usize, later in 0..100_i64,
    ) {
        let periods = |mask: u32| -> Vec<_> {
            Period::ALL.into_iter().filter(|period| mask & (1 << *period as u32) != 0).collect()
        };
        let mut now = at("2026-10-20T12:00:00Z");
        let mut schedules = config(ZONES[masks[0].0], &periods(masks[0].1)).schedules().unwrap();
        let mut eras = vec![(Timestamp::MIN, masks[0])];
        for mask in &masks[1..] {
            now += SignedDuration::from_hours(mask.2);
            let wanted = config(ZONES[mask.0], &periods(mask.1));
            if let Some(changed) = wanted.reconcile(&schedules, now, SignedDuration::ZERO).unwrap() {
                schedules = changed;
                eras.push((schedules.changed_at().unwrap(), *mask));
            }
        }
        let around = eras[era.min(eras.len() - 1)].0.max(at("2026-10-20T12:00:00Z"));
        let moment = around + SignedDuration::from_secs(distance);
        let (_, (zone, mask, _)) = eras.iter().rev().find(|(since, _)| *since <= moment).unwrap();
        let zone = TimeZone::get(ZONES[*zone]).unwrap();
        let expected: Vec<_> =
            periods(*mask).into_iter().map(|period| Bucket::containing(period, moment, &zone).unwrap()).collect();
        let schedule = schedules.of("c");
        let counted = schedule.bucket_at(moment).unwrap();
        prop_assert_eq!(schedule.fan_out(counted).collect::<Vec<_>>(), expected, "{} at {}", schedules, moment);
        let end = schedule.next_change(moment);
        prop_assert!(end > moment);
        let within = (end.as_second() - moment.as_second() - 1) * later / 99;
        let still = Timestamp::from_second(moment.as_second() + within).unwrap();
        prop_assert_eq!(schedule.bucket_at(still).unwrap(), counted);
    }
}
