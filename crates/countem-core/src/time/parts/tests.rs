use std::collections::HashSet;

use jiff::tz;

use super::*;

/// A day in seconds.
const DAY: i64 = 86_400;

/// The offsets of a zone in order, each with the second from which it holds.
fn offsets(zone: &TimeZone) -> Vec<(i64, i64)> {
    let (begin, end): (Timestamp, Timestamp) =
        ("1989-12-01T00:00:00Z".parse().unwrap(), "2037-02-01T00:00:00Z".parse().unwrap());
    let mut offsets = vec![(i64::MIN, i64::from(zone.to_offset(begin).seconds()))];
    for change in zone.following(begin).take_while(|change| change.timestamp() < end) {
        let offset = i64::from(change.offset().seconds());
        if offsets.last().is_some_and(|(_, last)| *last != offset) {
            offsets.push((change.timestamp().as_second(), offset));
        }
    }
    offsets
}

fn day_of(second: i64, offsets: &[(i64, i64)]) -> i64 {
    let (_, offset) = offsets[offsets.partition_point(|(since, _)| *since <= second) - 1];
    (second + offset).div_euclid(DAY)
}

fn bucket(period: Period, second: i64, zone: &TimeZone) -> Bucket {
    Bucket::containing(period, Timestamp::from_second(second).unwrap(), zone).unwrap()
}

/// For all zones of the database, days around every change of offset from 1990 to 2036, and stored minutes, hours and days:
/// the parts of a day hold each of its quarters of an hour once and no other, or the day is refused because an hour lies in two.
#[test]
fn days_around_clock_changes_are_exact_or_refused() {
    let mut seen = HashSet::new();
    let (mut changes, mut refused) = (0, 0);
    for name in tz::db().available() {
        let zone = TimeZone::get(name.as_str()).unwrap();
        let offsets = offsets(&zone);
        // Most zones are another name of one that was there before.
        if !seen.insert(offsets.clone()) {
            continue;
        }
        for (change, _) in &offsets[1..] {
            changes += 1;
            refused += check_days_around(*change, &offsets, &zone, name.as_str());
        }
    }
    assert!(seen.len() > 200 && changes > 5_000, "{} zones, {changes} changes", seen.len());
    assert!(refused > 100, "some zones are half an hour off: {refused}");
}

/// Returns the number of refused days.
fn check_days_around(change: i64, offsets: &[(i64, i64)], zone: &TimeZone, name: &str) -> usize {
    let mut refused = 0;
    let today = day_of(change, offsets);
    // All that are near the change or a midnight, and every eighth hour.
    let near = |second: i64| (-4..=4).any(|at| day_of(second + at * 900, offsets) != day_of(second, offsets));
    let quarters = (-2 * 96..2 * 96).map(|at| (at, (change.div_euclid(900) + at) * 900));
    let quarters: Vec<_> = quarters
        .filter(|(at, second)| at % 32 == 0 || at.abs() <= 8 || near(*second))
        .map(|(_, second)| second)
        .collect();
    let days: Vec<_> = quarters.iter().map(|second| day_of(*second, offsets)).collect();
    let two_days: HashSet<_> = quarters
        .iter()
        .zip(&days)
        .filter(|(second, day)| day_of(second.div_euclid(3600) * 3600, offsets) != **day)
        .map(|(second, _)| second.div_euclid(3600))
        .collect();
    for period in [Period::Minute, Period::Hour, Period::Day] {
        let schedule = Schedule::new(&[period], zone.clone()).unwrap();
        for day in today - 1..=today + 1 {
            let requested: Bucket = bucket(Period::Day, day * DAY, &TimeZone::UTC);
            let context = || format!("{name} {requested} from {period}");
            let has_two = quarters.iter().zip(&days).any(|(second, of)| {
                *of == day && period == Period::Hour && two_days.contains(&second.div_euclid(3600))
            });
            let Ok(parts) = schedule.parts(BucketRange::one(requested)) else {
                assert!(has_two, "{} is refused", context());
                refused += 1;
                continue;
            };
            assert!(!has_two, "{} has an hour in two days", context());
            for (second, of) in quarters.iter().zip(&days).filter(|(_, of)| (day - 1..=day + 1).contains(*of))
            {
                let stored = match period {
                    Period::Day => bucket(Period::Day, *of * DAY, &TimeZone::UTC),
                    _ => bucket(period, *second, &TimeZone::UTC),
                };
                let held = parts.iter().filter(|part| {
                    part.range().contains(stored) && part.bucket(stored, Period::Day) == Some(requested)
                });
                assert_eq!(held.count(), usize::from(*of == day), "{}: second {second}", context());
            }
        }
    }
    refused
}

fn days_of(id: &str) -> (String, usize) {
    let schedule = Schedule::new(&[Period::Day], TimeZone::UTC).unwrap();
    let parts = schedule.parts(BucketRange::one(id.parse().unwrap())).unwrap();
    let [part] = &parts[..] else { panic!("{parts:?}") };
    (part.range().first().to_string(), part.range().iter().count())
}

#[test]
fn weeks_and_months_are_made_of_days() {
    assert_eq!(days_of("2026-W47"), ("2026-11-16".to_owned(), 7));
    assert_eq!(days_of("2024-02"), ("2024-02-01".to_owned(), 29));
    assert_eq!(days_of("2026"), ("2026-01-01".to_owned(), 365));
}

#[test]
fn day_of_a_clock_change_has_23_hours() {
    let schedule = Schedule::new(&[Period::Hour], TimeZone::get("Europe/Berlin").unwrap()).unwrap();
    let parts = schedule.parts(BucketRange::one("2026-03-29".parse().unwrap())).unwrap();
    assert_eq!(parts[0].range().first().to_string(), "2026-03-28T23");
    assert_eq!(parts[0].range().iter().count(), 23);
}
