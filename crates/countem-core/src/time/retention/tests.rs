use proptest::prelude::*;

use super::*;
use crate::{Schedule, ScheduleConfig, Schedules};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn bucket(id: &str) -> Bucket {
    id.parse().unwrap()
}

fn schedules(text: &str) -> Schedules {
    let schedules: Schedules = text.parse().unwrap();
    assert_eq!(schedules.to_string(), text);
    schedules
}

fn first(schedule: &Schedule, period: Period, now: &str) -> String {
    schedule.kept_from(period, at(now)).map_or("all".to_owned(), |bucket| bucket.to_string())
}

#[test]
fn bucket_expires_some_time_after_its_end() {
    let schedules = schedules("beginning Europe/Berlin minute:172800s,day:864000s,all own=day");
    let schedule = schedules.of("c");
    assert_eq!(first(schedule, Period::Minute, "2026-11-20T10:05:59Z"), "2026-11-18T10:05");
    assert_eq!(first(schedule, Period::Minute, "2026-11-20T10:06:00Z"), "2026-11-18T10:06");
    // The day of Berlin ends at 23:00 UTC.
    assert_eq!(first(schedule, Period::Day, "2026-11-20T22:59:59Z"), "2026-11-10");
    assert_eq!(first(schedule, Period::Day, "2026-11-20T23:00:00Z"), "2026-11-11");
    for period in [Period::Hour, Period::Month, Period::All] {
        assert_eq!(
            first(schedule, period, "2026-11-20T10:05:59Z"),
            "all",
            "{period} is not stored, or for ever"
        );
    }
    assert_eq!(first(schedules.of("own"), Period::Day, "2026-11-20T10:05:59Z"), "all");
    assert_eq!(schedule.expires_at(bucket("2026-11-10")), Some(at("2026-11-20T23:00:00Z")));
    assert_eq!(schedule.expires_at(Bucket::ALL), None);
}

#[test]
fn shorter_retention_holds_for_older_buckets() {
    let schedules = schedules("beginning UTC day:8640000s\n2026-11-20T00:00:00Z UTC day:864000s");
    let schedule = schedules.of("c");
    assert_eq!(first(schedule, Period::Day, "2026-11-19T23:59:59Z"), "2026-08-11");
    assert_eq!(first(schedule, Period::Day, "2026-11-20T00:00:00Z"), "2026-11-10");
    assert_eq!(schedule.expires_at(bucket("2026-10-01")), Some(at("2026-11-20T00:00:00Z")));
}

#[test]
fn longer_retention_brings_no_bucket_back() {
    let schedules = schedules("beginning UTC day:864000s\n2026-11-20T00:00:00Z UTC day:8640000s");
    let schedule = schedules.of("c");
    for (now, kept) in [
        ("2026-11-20T00:00:00Z", "2026-11-10"),
        ("2026-11-28T00:00:00Z", "2026-11-18"),
        // The shorter one may have been in effect for what began up to a day later.
        ("2026-12-03T00:00:00Z", "2026-11-21"),
        ("2027-02-28T00:00:00Z", "2026-11-21"),
        ("2027-03-02T00:00:00Z", "2026-11-22"),
    ] {
        assert_eq!(first(schedule, Period::Day, now), kept, "at {now}");
    }
}

#[test]
fn fan_out_leaves_out_what_has_expired() {
    let schedules = schedules("beginning UTC minute:3600s,day:86400s");
    let schedule = schedules.of("c");
    let moment = at("2026-11-20T10:05:00Z");
    let counted = schedule.bucket_at(moment).unwrap();
    let kept = |now: &str| -> Vec<_> {
        schedule.fan_out_kept(counted, at(now)).iter().map(ToString::to_string).collect()
    };
    assert_eq!(kept("2026-11-20T11:05:59Z"), ["2026-11-20T10:05", "2026-11-20"]);
    assert_eq!(kept("2026-11-20T11:06:00Z"), ["2026-11-20"]);
    assert_eq!(
        kept("2026-11-22T00:00:00Z"),
        ["2026-11-20T10:05", "2026-11-20"],
        "a delta has to go to some bucket"
    );
    assert!(schedule.has_expired_everywhere(counted, at("2026-11-22T00:00:00Z")));
    assert!(!schedule.has_expired_everywhere(counted, at("2026-11-21T23:59:59Z")));
}

#[test]
fn malformed_times_are_refused() {
    for stored in ["day:", "day:5", "day:-5s", "day:xs", "all:5s", ":5s", "day:99999999999s"] {
        assert!(format!("beginning UTC {stored}").parse::<Schedules>().is_err(), "{stored} was accepted");
    }
}

fn keep(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

#[test]
fn only_configured_retention_is_compared() {
    let recorded = schedules("beginning UTC minute:172800s,day own=minute,day:864000s");
    let name = |name: &str| crate::CollectionName::new(name).unwrap();
    let demand = |retention: Option<Retention>, own: Option<(&str, Retention)>| ScheduleConfig {
        retention,
        own_retention: own.into_iter().map(|(collection, retention)| (name(collection), retention)).collect(),
        ..ScheduleConfig::default()
    };
    let reconcile = |config: &ScheduleConfig| {
        config.reconcile(&recorded, at("2026-11-20T12:00:00Z"), SignedDuration::ZERO)
    };
    let minutes = |hours| Retention::from([(Period::Minute, keep(hours))]);
    let days = |hours| Retention::from([(Period::Day, keep(hours))]);
    for agreed in [
        ScheduleConfig::of_periods([Period::Minute, Period::Day]),
        demand(Some(minutes(48)), None),
        demand(None, Some(("own", days(240)))),
        demand(None, Some(("other", minutes(48)))),
    ] {
        assert_eq!(reconcile(&agreed), Ok(None), "{agreed:?}");
    }
    for (refused, words) in [
        (demand(Some(minutes(24)), None), ["minute buckets `48h`", "`24h` is configured"]),
        (demand(Some(Retention::default()), None), ["minute buckets `48h`", "`forever` is configured"]),
        (demand(None, Some(("own", days(24)))), ["day buckets for `own` `10d`", "`24h` is configured"]),
        (demand(None, Some(("other", days(240)))), ["minute buckets for `other` `48h`", "`forever`"]),
        (demand(Some([(Period::Hour, keep(1))].into()), None), ["the period `hour`", "not stored"]),
        (demand(Some([(Period::Day, keep(0))].into()), None), ["the period `day`", "from 1 hour"]),
    ] {
        let conflict = reconcile(&refused).unwrap_err().to_string();
        assert!(words.iter().all(|word| conflict.contains(word)), "{conflict}");
    }
    let changed = ScheduleConfig { change: true, ..demand(Some(minutes(24)), Some(("own", minutes(1)))) };
    assert_eq!(
        reconcile(&changed).unwrap().unwrap().to_string(),
        "beginning UTC minute:172800s,day own=minute,day:864000s\n\
         2026-11-21T00:00:00Z UTC minute:86400s,day own=minute:3600s,day"
    );
}

#[test]
fn retention_moves_no_count() {
    let plain = schedules("beginning UTC minute,day");
    let kept = schedules("beginning UTC minute,day\n2026-11-20T00:00:00Z UTC minute:172800s,day");
    let moment = at("2026-11-20T10:05:09Z");
    assert_eq!(kept.of("c").bucket_at(moment), plain.of("c").bucket_at(moment));
    assert!(kept.of("c").counts_like(plain.of("c"), bucket("2026-11-20T10:05"), moment));
    assert!(!kept.agree_until(&plain, moment), "they differ all the same");
}

const ZONES: [&str; 5] = ["UTC", "America/St_Johns", "Pacific/Apia", "Asia/Kolkata", "America/Los_Angeles"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// The first kept bucket and the moments at which buckets expire say the same, time only takes, and no later change gives back.
    #[test]
    fn expired_buckets_are_those_before_the_first_kept(
        eras in prop::collection::vec((0..ZONES.len(), 0..400_i64, 1..400_i64), 1..4),
        period in 0..7_usize, seconds in 1_190_000_000_i64..1_200_000_000, later in 0..2_000_000_i64, near in -30..30_i64,
    ) {
        let period = Period::ALL[period];
        let mut text = String::new();
        let mut since = at("2007-10-20T12:00:00Z");
        for (index, (zone, hours, lasts)) in eras.iter().enumerate() {
            let begin = if index == 0 { "beginning".to_owned() } else { since.to_string() };
            let keep = if *hours == 0 { String::new() } else { format!(":{}s", hours * 3600) };
            text += &format!("{}{begin} {} {period}{keep}", if index == 0 { "" } else { "\n" }, ZONES[*zone]);
            since += SignedDuration::from_hours(*lasts);
        }
        let all = schedules(&text);
        let schedule = all.of("c");
        let now = Timestamp::from_second(seconds).unwrap();
        let after = now + SignedDuration::from_secs(later);
        let Some(first) = schedule.kept_from(period, now) else { return Ok(()) };
        let mut other = first;
        let step = |bucket: Bucket| Bucket::of_civil(period, bucket.start() - SignedDuration::from_secs(1));
        for _ in 0..near.abs() {
            other = if near > 0 { other.next() } else { step(other) }.unwrap();
        }
        let expires_at = schedule.expires_at(other);
        prop_assert_eq!(expires_at.is_some_and(|at| at <= now), other < first, "{} {} {}", text, other, first);
        prop_assert_eq!(schedule.has_expired(other, now), other < first);
        prop_assert!(schedule.kept_from(period, after).unwrap() >= first);
        let before = text.rsplit_once('\n').filter(|_| since > now);
        if let Some((before, last)) = before
            && last.split(' ').next().is_some_and(|begin| at(begin) > now)
        {
            let had = schedules(before);
            prop_assert_eq!(had.of("c").kept_from(period, now), Some(first), "{}", text);
        }
    }
}
