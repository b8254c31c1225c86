//! Times as text, in the notations that logs have.

use jiff::{
    Timestamp, Zoned,
    civil::{Date, DateTime, Time},
    fmt::{rfc2822, strtime},
    tz::TimeZone,
};

use super::clf::Clf;

/// A moment, or a time of a wall clock that needs a zone or a year to be one.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Written {
    Moment(Timestamp),
    /// A date and a time without an offset.
    Civil(DateTime),
    /// A date and a time with the name of a zone.
    InZone(DateTime, TimeZone),
    /// Month, day and time without a year. The year of the value means nothing.
    WithoutYear(DateTime),
}

/// Notations without an offset that are not ISO 8601, and that begin with a year.
const WITH_YEAR: [&str; 3] = ["%Y/%m/%d %H:%M:%S", "%Y-%m-%d-%H:%M:%S", "%Y-%m-%d_%H:%M:%S"];
/// The same with the year at the end, as `ctime` writes it.
const CTIME: [&str; 2] = ["%a %b %e %H:%M:%S %Y", "%b %e %H:%M:%S %Y"];
/// Abbreviations of standard time that are also names of zones with summer time.
const STANDARD: [&str; 4] = ["CET", "EET", "MET", "WET"];
/// As the syslog of old writes it.
const SYSLOG: &str = "%Y %b %e %H:%M:%S";
/// A leap year, so that 29 February can be read.
const ANY_YEAR: &str = "2000 ";

/// Reads RFC 3339, ISO 8601, RFC 2822, access log, `ctime` and syslog times; `None` for any other text.
pub(super) fn read(text: &str) -> Option<Written> {
    let text = without_monotonic_clock(text);
    iso(text)
        .or_else(|| with_zone_after_space(text))
        .or_else(|| {
            Clf::default()
                .second(text.as_bytes())
                .and_then(|second| Timestamp::from_second(second).ok())
                .map(Written::Moment)
        })
        .or_else(|| {
            WITH_YEAR.iter().chain(&CTIME).find_map(|pattern| civil(pattern, text)).map(Written::Civil)
        })
        .or_else(|| rfc2822::parse(text).ok().map(|zoned| Written::Moment(zoned.timestamp())))
        .or_else(|| civil(SYSLOG, &format!("{ANY_YEAR}{text}")).map(Written::WithoutYear))
}

/// Reads RFC 3339 and ISO 8601.
pub(super) fn iso(text: &str) -> Option<Written> {
    if !text.as_bytes().first()?.is_ascii_digit() && !text.starts_with(['+', '-']) {
        return None;
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(Written::Moment(moment));
    }
    if text.ends_with(']') {
        // A zone is honoured or the text is no time: dropping it would move the time.
        return text.parse::<Zoned>().ok().map(|zoned| Written::Moment(zoned.timestamp()));
    }
    text.parse().ok().map(Written::Civil)
}

/// Reads `2022-09-28 01:34:02 +0200`, `… UTC`, `… Europe/Berlin` and Go's `… +0000 UTC`.
fn with_zone_after_space(text: &str) -> Option<Written> {
    let (text, name) = text.trim_end().rsplit_once(' ')?;
    if let Some((text, offset)) = text.rsplit_once(' ')
        && offset.starts_with(['+', '-'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte))
    {
        // The name repeats the offset.
        return moment(text, offset);
    }
    moment(text, name)
}

fn moment(text: &str, zone_name: &str) -> Option<Written> {
    let civil: DateTime = match text.parse() {
        Ok(civil) => civil,
        Err(_) => WITH_YEAR.iter().find_map(|pattern| self::civil(pattern, text))?,
    };
    let zone = match zone_name.as_bytes().first()? {
        b'+' | b'-' => offset(zone_name)?,
        _ if ["UTC", "GMT", "Z", "UT"].contains(&zone_name) => TimeZone::UTC,
        _ => TimeZone::get(zone_name).ok().filter(|zone| !zone.is_unknown())?,
    };
    if STANDARD.contains(&zone_name) {
        // The abbreviation tells the two times of a repeated hour apart.
        let moment = zone.to_ambiguous_timestamp(civil).later().ok()?;
        // One of winter in summer: it is not known which of both is wrong.
        let is_summer = zone.to_offset_info(moment).dst().is_dst();
        return (!is_summer).then_some(Written::Moment(moment));
    }
    Some(Written::InZone(civil, zone))
}

fn offset(text: &str) -> Option<TimeZone> {
    let parsed = strtime::parse("%z", text).or_else(|_| strtime::parse("%:z", text)).ok();
    let offset = match parsed {
        Some(parsed) => parsed.offset()?,
        None => strtime::parse("%z", format!("{text}00")).ok()?.offset()?,
    };
    Some(TimeZone::fixed(offset))
}

fn civil(pattern: &str, text: &str) -> Option<DateTime> {
    // A fraction of a second ends the text in none of the patterns; what it adds is below a second.
    let text = text.split_once([',', '.']).map_or(text, |(whole, fraction)| {
        if fraction.bytes().all(|byte| byte.is_ascii_digit()) { whole } else { text }
    });
    let parsed = strtime::parse(pattern, text).ok()?;
    Some(parsed.to_date().ok()?.to_datetime(parsed.to_time().ok()?))
}

/// Drops ` m=+0.123`, which Go appends to a time that it prints.
fn without_monotonic_clock(text: &str) -> &str {
    text.split_once(" m=").map_or(text, |(text, _)| text)
}

/// Returns `civil` in the year in which it is nearest to `now`.
pub(super) fn nearest(civil: DateTime, now: DateTime) -> Option<DateTime> {
    // 29 February is missing for up to eight years.
    let years = (now.year() - 8..=now.year() + 8).filter_map(|year| in_year(civil, year));
    years.min_by_key(|candidate| now.duration_until(*candidate).unsigned_abs())
}

/// Returns `civil` in `year`, `None` where the year has no such day.
pub(super) fn in_year(civil: DateTime, year: i16) -> Option<DateTime> {
    let (date, time): (Date, Time) = (civil.date(), civil.time());
    Some(Date::new(year, date.month(), date.day()).ok()?.to_datetime(time))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn moment_of(text: &str) -> String {
        match read(text) {
            Some(Written::Moment(moment)) => moment.to_string(),
            Some(Written::Civil(civil)) => format!("civil {civil}"),
            Some(Written::InZone(civil, zone)) => zone.to_timestamp(civil).unwrap().to_string(),
            Some(Written::WithoutYear(civil)) => format!("yearless {}", civil.strftime("%m-%dT%H:%M:%S")),
            None => "no time".to_owned(),
        }
    }

    #[test]
    fn notations_of_logs_are_read() {
        for (text, expected) in [
            ("2022-09-28T01:34:02+02:00", "2022-09-27T23:34:02Z"),
            ("2022-09-28 01:34:02 +0200", "2022-09-27T23:34:02Z"),
            ("2022-09-28 01:34:02.123456 +02:00", "2022-09-27T23:34:02.123456Z"),
            ("2022-09-28 01:34:02 +02", "2022-09-27T23:34:02Z"),
            ("2022-09-27 23:34:02 UTC", "2022-09-27T23:34:02Z"),
            ("2022-09-27 23:34:02 +0000 UTC", "2022-09-27T23:34:02Z"),
            ("2022-09-27 23:34:02.5 +0000 UTC m=+0.1", "2022-09-27T23:34:02.5Z"),
            ("2022-09-28T01:34:02[Asia/Tokyo]", "2022-09-27T16:34:02Z"),
            ("2022-09-28 01:34:02 Europe/Berlin", "2022-09-27T23:34:02Z"),
            ("2022-01-28 01:34:02 CET", "2022-01-28T00:34:02Z"),
            ("2017-10-29 02:30:00 CET", "2017-10-29T01:30:00Z"),
            ("28/Sep/2022:01:34:02 +0200", "2022-09-27T23:34:02Z"),
            ("Wed, 28 Sep 2022 01:34:02 +0200", "2022-09-27T23:34:02Z"),
            ("2022-09-28 01:34:02", "civil 2022-09-28T01:34:02"),
            ("2022-09-28 01:34:02,123", "civil 2022-09-28T01:34:02.123"),
            ("2022-09-28", "civil 2022-09-28T00:00:00"),
            ("2022/09/28 01:34:02", "civil 2022-09-28T01:34:02"),
            ("Wed Sep 28 01:34:02 2022", "civil 2022-09-28T01:34:02"),
            ("Sep 28 01:34:02", "yearless 09-28T01:34:02"),
            ("Feb  6 12:14:14", "yearless 02-06T12:14:14"),
            ("Feb 29 12:14:14", "yearless 02-29T12:14:14"),
        ] {
            assert_eq!(moment_of(text), expected, "{text}");
        }
    }

    #[test]
    fn text_without_a_clear_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2022-02-30 00:00:00",
            "2022-09-28 01:34:02 XYZ",
            "2022-09-28 01:34:02 +9999",
            "2022-09-28T01:34:02[Nowhere/Land]",
            "Sep 31 01:34:02",
            "12:34:56",
            "2022-09-28 01:34:02 CEST",
            "2022-09-28 01:34:02 CET",
        ] {
            assert_eq!(moment_of(text), "no time", "{text}");
        }
    }

    #[test]
    fn missing_year_is_the_nearest_one() {
        let now = date(2024, 1, 3).at(0, 0, 0, 0);
        let nearest = |month, day| nearest(date(2000, month, day).at(0, 0, 0, 0), now).unwrap().date();
        assert_eq!(nearest(12, 31), date(2023, 12, 31));
        assert_eq!(nearest(1, 4), date(2024, 1, 4));
        assert_eq!(nearest(2, 29), date(2024, 2, 29));
    }
}
