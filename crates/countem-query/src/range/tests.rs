use jiff::civil::{Date, date};
use proptest::prelude::*;

use super::*;

/// A Friday, 19:35 in Kolkata.
const NOW: &str = "2026-11-20T14:05:09Z";

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn buckets_at(now: &str, name: &str, text: &str, step: Period) -> String {
    let range =
        text.parse().and_then(|range: TimeRange| range.buckets(step, now.parse().unwrap(), &zone(name)));
    range.map_or_else(|error| error.to_string(), |range| expression(&range))
}

fn buckets(text: &str, step: Period) -> String {
    buckets_at(NOW, "Europe/Berlin", text, step)
}

fn instants(name: &str, text: &str) -> String {
    let span = text.parse().and_then(|range: TimeRange| range.resolve(NOW.parse().unwrap(), &zone(name)));
    span.map_or_else(|error| error.to_string(), |span| format!("{} {}", span.start, span.end))
}

#[test]
fn expressions_name_spans() {
    use Period::{Day, Hour, Minute, Month, Second, Week, Year};
    for (text, step, expected) in [
        ("2026-11-20", Day, "2026-11-20"),
        ("2026-11-20T14", Hour, "2026-11-20T14"),
        ("2026-11-20T14:05", Minute, "2026-11-20T14:05"),
        ("2026-11-20T14:05:09", Second, "2026-11-20T14:05:09"),
        ("2026-W47", Day, "2026-11-16..2026-11-22"),
        ("2026-11", Day, "2026-11-01..2026-11-30"),
        ("2026-Q4", Month, "2026-10..2026-12"),
        ("2026-Q1", Day, "2026-01-01..2026-03-31"),
        ("2026", Year, "2026"),
        ("2026", Month, "2026-01..2026-12"),
        ("today", Day, "2026-11-20"),
        ("yesterday", Day, "2026-11-19"),
        ("now", Minute, "2026-11-20T14:05"),
        ("now", Week, "2026-W47"),
        ("-7d", Day, "2026-11-13"),
        ("-24h", Hour, "2026-11-19T14"),
        ("-90m", Minute, "2026-11-20T12:35"),
        ("-10s", Second, "2026-11-20T14:04:59"),
        ("-4w", Week, "2026-W43"),
        ("-3mo", Month, "2026-08"),
        ("-1q", Month, "2026-07..2026-09"),
        ("-5q", Month, "2025-07..2025-09"),
        ("-1y", Year, "2025"),
        ("last-week", Day, "2026-11-09..2026-11-15"),
        ("this-month", Day, "2026-11-01..2026-11-30"),
        ("this-quarter", Month, "2026-10..2026-12"),
        ("last-year", Month, "2025-01..2025-12"),
        ("last-hour", Minute, "2026-11-20T13:00..2026-11-20T13:59"),
        ("30d", Day, "2026-10-22..2026-11-20"),
        ("1d", Day, "2026-11-20"),
        ("12w", Week, "2026-W36..2026-W47"),
        ("24h", Hour, "2026-11-19T15..2026-11-20T14"),
        ("90m", Minute, "2026-11-20T12:36..2026-11-20T14:05"),
        ("6mo", Month, "2026-06..2026-11"),
        ("3q", Month, "2026-04..2026-12"),
        ("2y", Year, "2025..2026"),
        ("2026-11-01..2026-11-20", Day, "2026-11-01..2026-11-20"),
        ("2025-12..2026-11-20", Day, "2025-12-01..2026-11-20"),
        ("2026-11-01..", Day, "2026-11-01..2026-11-20"),
        ("2026-11-01..now", Month, "2026-11"),
        ("2026-11-20..", Hour, "2026-11-19T23..2026-11-20T14"),
        ("yesterday..2026-12-24", Day, "2026-11-19..2026-12-24"),
        ("2026-11-20..2026-11-20T14", Hour, "2026-11-19T23..2026-11-20T14"),
        ("2026-11-19T23..2026-11-20T22", Day, "2026-11-20"),
        ("2026-11-01..2026-11-30", Month, "2026-11"),
        ("2026-11-30..2027-01-03", Week, "2026-W49..2026-W53"),
        ("all", Year, "0001..9999"),
        ("all", Period::All, "all"),
        ("2020..9999", Year, "2020..9999"),
        ("9999", Day, "9999-01-01..9999-12-31"),
        ("9999-12", Day, "9999-12-01..9999-12-31"),
        ("9999-12-29..9999-12-31", Day, "9999-12-29..9999-12-31"),
        ("9999-12-30", Day, "9999-12-30"),
    ] {
        assert_eq!(buckets(text, step), expected, "{text} by {step}");
    }
}

#[test]
fn today_is_that_of_the_zone() {
    let day = |now, zone, text| buckets_at(now, zone, text, Period::Day);
    assert_eq!(day("2026-11-19T19:30:00Z", "Asia/Manila", "today"), "2026-11-20");
    assert_eq!(day("2026-11-20T15:40:00Z", "Asia/Shanghai", "today"), "2026-11-20");
    assert_eq!(day("2026-11-20T15:40:00Z", "Asia/Shanghai", "yesterday"), "2026-11-19");
    assert_eq!(day("2026-10-25T23:30:00Z", "Europe/Madrid", "yesterday"), "2026-10-25");
    assert_eq!(day("2026-10-25T22:30:00Z", "Europe/Madrid", "yesterday"), "2026-10-24");
}

#[test]
fn weeks_belong_to_the_year_of_their_thursday() {
    let week = |now| buckets_at(now, "UTC", "this-week", Period::Week);
    assert_eq!(week("2027-01-01T12:00:00Z"), "2026-W53");
    assert_eq!(week("2025-12-29T12:00:00Z"), "2026-W01");
    assert_eq!(week("2024-12-30T12:00:00Z"), "2025-W01");
    assert_eq!(week("2026-12-31T12:00:00Z"), "2026-W53");
    assert_eq!(buckets("2026-W53", Period::Day), "2026-12-28..2027-01-03");
    assert_eq!(buckets("2025-W53", Period::Day), "there is no week `2025-W53`: 2025 has 52 weeks");
}

#[test]
fn days_with_clock_changes_are_whole() {
    let minutes = |text: &str| {
        let range: TimeRange = text.parse().unwrap();
        range.buckets(Period::Minute, NOW.parse().unwrap(), &zone("Australia/Lord_Howe")).unwrap()
    };
    assert_eq!(minutes("2026-04-05").len(), 1470);
    assert_eq!(expression(&minutes("2026-04-05")), "2026-04-04T13:00..2026-04-05T13:29");
    assert_eq!(minutes("2026-10-04").len(), 1410);
    assert_eq!(instants("Europe/Madrid", "2026-10-25"), "2026-10-24T22:00:00Z 2026-10-25T23:00:00Z");
    assert_eq!(instants("Europe/Madrid", "2026-10-26"), "2026-10-25T23:00:00Z 2026-10-26T23:00:00Z");
    assert_eq!(instants("America/Sao_Paulo", "2018-11-04"), "2018-11-04T03:00:00Z 2018-11-05T02:00:00Z");
}

#[test]
fn day_that_never_was_is_refused_alone() {
    let apia = |text, step| buckets_at(NOW, "Pacific/Apia", text, step);
    let error = "there was no `2011-12-30` in Pacific/Apia: clocks were set forward over the whole day";
    assert_eq!(apia("2011-12-30", Period::Day), error);
    assert_eq!(instants("Pacific/Apia", "2011-12-30"), error);
    assert_eq!(apia("2011-12-28..2012-01-02", Period::Day), "2011-12-28..2012-01-02");
    assert_eq!(apia("2011-12-28..2012-01-02", Period::Hour), "2011-12-28T10..2012-01-02T09");
    assert_eq!(apia("2011-12-29..2011-12-30", Period::Day), "2011-12-29");
    assert!(buckets_at("2011-12-31T00:00:00Z", "Pacific/Apia", "yesterday", Period::Day).contains("no"));
}

#[test]
fn clocks_set_back_over_midnight_split_a_day() {
    // At 00:01 of 29 October clocks were set back to 23:01 of the day before.
    let st_johns = |text, step| buckets_at(NOW, "America/St_Johns", text, step);
    assert_eq!(st_johns("2006-10-28", Period::Day), "2006-10-28");
    assert_eq!(st_johns("2006-10-29", Period::Day), "2006-10-29");
    assert!(
        st_johns("2006-10-28", Period::Minute)
            .contains("not made up of whole UTC minutes in America/St_Johns")
    );
    assert!(st_johns("2006-10-29", Period::Minute).contains("or the step day"));
    assert_eq!(st_johns("2006-10-28..2006-10-29", Period::Minute), "2006-10-28T02:30..2006-10-30T03:29");
    assert!(instants("America/St_Johns", "2006-10-28").contains("set back over midnight"));
}

#[test]
fn spans_without_whole_buckets_name_alternatives() {
    let berlin = "Europe/Berlin";
    for (zone, text, step, expected) in [
        (
            berlin,
            "2026-11-05..2026-12-10",
            Period::Month,
            "whole months: take `2026-11..2026-12`, or the step day",
        ),
        (berlin, "2026-W47", Period::Month, "whole months: take `2026-11`, or the step week"),
        (berlin, "2026-Q4", Period::Year, "whole years: take `2026`, or the step month"),
        (berlin, "2026-11", Period::Week, "take `2026-W44..2026-W49`, or the step day, or the step month"),
        (berlin, "2026-11-20", Period::All, "whole spans of all time: take the step day"),
        (berlin, "-7d..now", Period::Week, "take `2026-W46..2026-W47`, or the step day"),
        (
            "Asia/Kolkata",
            "2026-11-20",
            Period::Hour,
            "UTC hours in Asia/Kolkata: take `2026-11-19T18..2026-11-20T18`, or the step minute, or the step day",
        ),
    ] {
        let error = buckets_at(NOW, zone, text, step);
        assert!(error.contains(expected), "{text} by {step}: {error}");
        if let Some(wider) = error.split("take `").nth(1).and_then(|rest| rest.split('`').next()) {
            assert_eq!(buckets_at(NOW, zone, wider, step), wider);
        }
    }
}

#[test]
fn unusable_expressions_name_the_accepted_ones() {
    for (text, why) in [
        ("", "is not a time; accepted: 2026-11-20"),
        ("tomorrow", "is not a time; accepted"),
        ("Today", "is not a time; accepted"),
        ("7", "is not a time; accepted"),
        ("7x", "is not a time; accepted"),
        ("-d", "is not a time; accepted"),
        ("d", "is not a time; accepted"),
        ("--7d", "is not a time; accepted"),
        ("+7d", "is not a time; accepted"),
        ("-7 d", "is not a time; accepted"),
        ("next-week", "is not a time; accepted"),
        ("last-fortnight", "is not a time; accepted"),
        ("20261120", "is not a time; accepted"),
        ("2026-11-20 14:05", "is not a time; accepted"),
        ("2026-11-20T14:05:00Z", "is not a time; accepted"),
        ("2026-1-1", "is not a time; accepted"),
        ("٢٠٢٦", "is not a time; accepted"),
        ("2026-02-30", "there is no `2026-02-30` in the calendar"),
        ("2026-11-20T24", "in the calendar; accepted"),
        ("2026-W54", "in the calendar; accepted"),
        ("2026-Q5", "in the calendar; accepted"),
        ("0000", "in the calendar; accepted"),
        ("2026-13", "in the calendar; accepted"),
        ("2026-11-01..2026-11-31", "there is no `2026-11-31`"),
        ("2026-11-01...2026-11-30", "is not a time; accepted"),
        ("2026..2027..2028", "is not a time; accepted"),
        ("2026-01..30d", "is not a time; accepted"),
        ("..2026", "has no beginning; accepted: 2026-11-01..2026-11-20"),
        ("..", "has no beginning"),
        ("all..2026", "`all` cannot be an end of a range"),
        ("2026..all", "`all` cannot be an end of a range"),
        ("0d", "`0d` is no span; the shortest one is 1d"),
        ("00mo", "the shortest one is 1mo"),
        ("-99999999999d", "reaches outside the years 0001 to 9999"),
        ("99999999999d", "reaches outside the years 0001 to 9999"),
        ("-4000000000d", "reaches outside the years 0001 to 9999"),
        ("3000y", "reaches outside the years 0001 to 9999"),
        ("9999-12-31", "behind the last day of the calendar, 9999-12-30"),
        ("9999-12-31T05", "behind the last day of the calendar, 9999-12-30"),
        ("2026..9999-12-31T05", "behind the last day of the calendar, 9999-12-30"),
        ("2026-11-20..2026-11-19", "ends before it begins"),
        ("2026-11-20T14..2026-11-20T13", "ends before it begins"),
        ("2027..", "ends before it begins"),
        ("2026-11-21..2026-11-20T14", "ends before it begins"),
        ("today..yesterday", "ends before it begins"),
    ] {
        let error = buckets(text, Period::Day);
        assert!(error.contains(why), "`{text}`: {error}");
        assert!(!error.contains(['{', '(']) || error.contains("accepted"), "{error}");
    }
}

#[test]
fn endless_spans_are_measured_without_listing_them() {
    let all: TimeRange = "all".parse().unwrap();
    let seconds = all.buckets(Period::Second, NOW.parse().unwrap(), &zone("America/New_York")).unwrap();
    assert_eq!(seconds.len(), 3_652_059 * 86_400);
    let years: TimeRange = "0001..9999".parse().unwrap();
    let began = std::time::Instant::now();
    assert!(years.buckets(Period::Hour, NOW.parse().unwrap(), &zone("America/New_York")).is_err());
    assert!(began.elapsed().as_millis() < 1000, "{:?}", began.elapsed());
}

#[test]
fn natural_step_is_the_finest_period_named() {
    for (text, step) in [
        ("30d", Period::Day),
        ("2026-Q4", Period::Month),
        ("2026..2026-11-20", Period::Day),
        ("2026-W01..2026-11", Period::Day),
        ("2026-11..", Period::Month),
        ("12w", Period::Week),
        ("now", Period::Second),
        ("all", Period::All),
    ] {
        assert_eq!(text.parse::<TimeRange>().unwrap().period(), step, "{text}");
    }
}

#[test]
fn equal_spans_have_one_text() {
    for (text, canonical) in [
        ("-0d", "today"),
        ("1d", "today"),
        ("this-day", "today"),
        ("-1w", "last-week"),
        ("-29d..today", "30d"),
        ("2026-11..now", "2026-11.."),
        ("2026..2026", "2026"),
    ] {
        assert_eq!(text.parse::<TimeRange>().unwrap().to_string(), canonical);
    }
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
];

/// One end of a span, by another computation than the code's: days are civil, seconds are instants.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Day(Date),
    Second(i64),
}

/// A civil span as text, its first and its last day.
fn civil(today: Date, kinds: Range<u8>) -> impl Strategy<Value = (String, End, End)> {
    let parts = (1990_i16..2037, 1_i8..13, 1_i8..32, 0_i32..40, kinds);
    parts.prop_filter_map("a date of the calendar", move |(year, month, day, ago, kind)| {
        let number = |date: Date| i32::from(date.year()) * 12 + i32::from(date.month()) - 1;
        let month_of = |number: i32| {
            let month = i8::try_from(number.rem_euclid(12) + 1).unwrap();
            let first = date(i16::try_from(number.div_euclid(12)).unwrap(), month, 1);
            (first, first.last_of_month())
        };
        let quarter_of = |number: i32| (month_of(number / 3 * 3).0, month_of(number / 3 * 3 + 2).1);
        let back =
            |date: Date, days: i32| date.saturating_sub(SignedDuration::from_hours(i64::from(days) * 24));
        let monday = back(today, i32::from(today.weekday().to_monday_zero_offset()));
        let on = Date::new(year, month, day).ok()?;
        let (text, (first, last)) = match kind {
            0 => (on.to_string(), (on, on)),
            1 => (format!("{year}-{month:02}"), month_of(number(on))),
            2 => (year.to_string(), (on.first_of_year(), on.last_of_year())),
            3 => (format!("{year}-Q{}", (month + 2) / 3), quarter_of(number(on))),
            4 => (format!("-{ago}d"), (back(today, ago), back(today, ago))),
            5 => (format!("-{ago}mo"), month_of(number(today) - ago)),
            6 => (format!("-{ago}q"), quarter_of(number(today) - ago * 3)),
            7 => (format!("-{ago}w"), (back(monday, ago * 7), back(monday, ago * 7 - 6))),
            8 => (format!("{}d", ago + 1), (back(today, ago), today)),
            _ => (format!("{}mo", ago + 1), (month_of(number(today) - ago).0, today.last_of_month())),
        };
        Some((text, End::Day(first), End::Day(last)))
    })
}

/// An hour as text, its first second and the one after its last.
fn hour(now: i64) -> impl Strategy<Value = (String, End, End)> {
    let text = |start| Timestamp::from_second(start).unwrap().strftime("%Y-%m-%dT%H").to_string();
    let absolute = (175_320_i64..587_000).prop_map(move |hour| (text(hour * 3600), hour));
    let relative = (0_i64..50_000).prop_map(move |ago| (format!("-{ago}h"), now / 3600 - ago));
    prop_oneof![absolute, relative]
        .prop_map(|(text, hour)| (text, End::Second(hour * 3600), End::Second(hour * 3600 + 3600)))
}

/// A present moment in a zone, and a span.
fn spans() -> impl Strategy<Value = (Timestamp, &'static str, (String, End, End))> {
    (631_152_000_i64..2_000_000_000, prop::sample::select(&ZONES)).prop_flat_map(|(second, name)| {
        let now = Timestamp::from_second(second).unwrap();
        let today = zone(name).to_datetime(now).date();
        let end = || prop_oneof![3 => civil(today, 0..8), 1 => hour(second)];
        let range = (end(), end()).prop_map(|(a, b)| (format!("{}..{}", a.0, b.0), a.1, b.2));
        (Just(now), Just(name), prop_oneof![civil(today, 0..10), range])
    })
}

proptest! {
    #[test]
    fn buckets_hold_exactly_the_instants_of_the_span(
        (now, name, (text, begin, end)) in spans(), step in prop::sample::select(&Period::ALL[..7]),
    ) {
        let zone = zone(name);
        let range: TimeRange = text.parse().unwrap();
        prop_assert_eq!(range.to_string().parse::<TimeRange>().unwrap(), range);

        let at = |quarter: i64| Timestamp::from_second(quarter * 900).unwrap();
        let bucket = |quarter| Bucket::containing(step, at(quarter), &zone).unwrap();
        let is_inside = |quarter| {
            let day = zone.to_datetime(at(quarter)).date();
            let has_begun = match begin {
                End::Day(first) => day >= first,
                End::Second(first) => at(quarter).as_second() >= first,
            };
            has_begun && match end {
                End::Day(last) => day <= last,
                End::Second(end) => at(quarter).as_second() < end,
            }
        };
        // Quarters of an hour near both ends: only there an instant can be on the wrong side.
        let near = |by: i64| [begin, end].into_iter().flat_map(move |end| {
            let middle = match end {
                End::Day(day) => TimeZone::UTC.to_timestamp(day.at(12, 0, 0, 0)).unwrap().as_second(),
                End::Second(second) => second,
            };
            (-by..by).map(move |quarter| middle / 900 + quarter)
        });
        match range.buckets(step, now, &zone) {
            Ok(buckets) => for quarter in near(200) {
                prop_assert_eq!(buckets.contains(bucket(quarter)), is_inside(quarter), "{} {}", text, at(quarter));
            },
            Err(TimeRangeError::NotWhole { .. }) => {
                let mut is_first_inside = std::collections::HashMap::new();
                let is_torn = near(370 * 96).any(|quarter| {
                    let is_inside = is_inside(quarter);
                    *is_first_inside.entry(bucket(quarter)).or_insert(is_inside) != is_inside
                });
                prop_assert!(is_torn, "{} by {} is whole", text, step);
            }
            Err(TimeRangeError::Inverted { .. }) => {
                prop_assert!(!near(200).any(is_inside), "{} is not inverted", text);
            }
            Err(TimeRangeError::Skipped { .. }) => {
                prop_assert_eq!((name, begin, end), ("Pacific/Apia", end, End::Day(date(2011, 12, 30))));
            }
            Err(error) => prop_assert!(false, "{}: {}", text, error),
        }
    }

    #[test]
    fn any_text_is_understood_or_refused(text in "[-0-9TWQ:.dhmoqyw]{0,24}|(last|this)-[a-z]{0,7}|.{0,12}") {
        if let Ok(range) = text.parse::<TimeRange>() {
            prop_assert_eq!(range.to_string().parse::<TimeRange>().unwrap(), range);
            for step in Period::ALL {
                range.buckets(step, NOW.parse().unwrap(), &zone("Europe/Berlin")).ok();
            }
        }
    }
}
