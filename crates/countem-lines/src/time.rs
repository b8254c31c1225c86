//! Reading the times of lines.

mod clf;
mod text;

use jiff::{
    Timestamp,
    civil::DateTime,
    fmt::strtime,
    tz::{AmbiguousOffset, TimeZone},
};

use self::{
    clf::Clf,
    text::{Written, in_year, nearest},
};
use crate::{DefinitionError, number::Decimal};

/// Notation of times, the value of `--time-format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// `17/May/2015:10:05:03 +0000`
    Clf,
    /// Any text that is clearly a time, `20150517`, `201505171005`, `20150517100503`, or a number of seconds, milliseconds, microseconds or
    /// nanoseconds since 1970, told apart by magnitude: from 1e8, 1e11, 1e14 and 1e17.
    Auto,
    /// RFC 3339 or ISO 8601; without an offset in the zone of the lines.
    Rfc3339,
    /// A number that counts units of `10^-digits` seconds since 1970, with or without a fraction.
    Unix {
        /// 0 for seconds, 3 for milliseconds, 6 for microseconds, 9 for nanoseconds.
        digits: u32,
    },
    /// A pattern of `strptime`.
    Strptime(String),
}

/// Reads times, and remembers the last one: neighbouring lines are often of the same second or day.
#[derive(Debug, Clone)]
pub struct Times {
    format: TimeFormat,
    zone: TimeZone,
    /// Present time: a time without a year is in the year that brings it nearest to this.
    now: DateTime,
    /// Year of times without one, instead.
    year: Option<i16>,
    clf: Clf,
    last_text: Vec<u8>,
    last: Option<Read>,
}

/// A time that was read.
#[derive(Debug, Clone, Copy)]
struct Read {
    /// `None` where the clocks skipped the time.
    second: Option<i64>,
    /// The clocks showed the time twice, and this is the second one.
    repeated: Option<i64>,
}

/// Notations with a name, as `--time-format` has them.
const NAMED: [(&str, TimeFormat); 7] = [
    ("auto", TimeFormat::Auto),
    ("rfc3339", TimeFormat::Rfc3339),
    ("unix", TimeFormat::Unix { digits: 0 }),
    ("unix-millis", TimeFormat::Unix { digits: 3 }),
    ("unix-micros", TimeFormat::Unix { digits: 6 }),
    ("unix-nanos", TimeFormat::Unix { digits: 9 }),
    ("clf", TimeFormat::Clf),
];

impl TimeFormat {
    /// Reads the value of `--time-format`.
    ///
    /// # Errors
    /// A [`DefinitionError`] when it is neither a known word nor a usable pattern.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        if let Some((_, format)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(format.clone());
        }
        if text.contains('%') {
            return check_pattern(text).map(Self::Strptime);
        }
        let names = NAMED.map(|(name, _)| name).join(", ");
        let expected = format!("{names} or a pattern such as `%Y-%m-%d %H:%M:%S`");
        Err(DefinitionError::new(format!("`{text}` is no time format: expected {expected}")))
    }
}

impl Times {
    /// Prepares to read times written as `format`; those without an offset are in `zone`, those without a year near `now`.
    pub fn new(format: TimeFormat, zone: TimeZone, now: Timestamp) -> Self {
        let now = zone.to_datetime(now);
        // The empty text is no time in any format, so the initial memory is right.
        Self { format, zone, now, year: None, clf: Clf::default(), last_text: Vec::new(), last: None }
    }

    /// Takes times without an offset to be in `zone`.
    #[must_use]
    pub fn in_zone(self, zone: TimeZone) -> Self {
        Self { zone, last_text: Vec::new(), last: None, ..self }
    }

    /// Takes times without a year to be in `year`.
    #[must_use]
    pub fn in_year(self, year: Option<i16>) -> Self {
        Self { year, ..self }
    }

    /// Returns the second since 1970 that `text` lies in, `None` when it is no time. Of a time that the clocks showed twice it is the
    /// first; a time that they skipped is none.
    #[inline]
    pub fn second(&mut self, text: &[u8]) -> Option<i64> {
        if self.format == TimeFormat::Clf {
            return self.clf.second(text);
        }
        if self.last_text != text {
            self.last = str::from_utf8(text).ok().and_then(|text| self.parse(text.trim()));
            self.last_text.clear();
            self.last_text.extend_from_slice(text);
        }
        self.last.and_then(|read| read.second)
    }

    /// Returns the other second that the last text stands for, if the clocks showed it twice.
    #[inline]
    pub fn repeated(&self) -> Option<i64> {
        self.last.and_then(|read| read.repeated)
    }

    /// Tells whether the last text is a time that the clocks skipped.
    pub fn is_skipped(&self) -> bool {
        self.last.is_some_and(|read| read.second.is_none())
    }

    #[inline(never)]
    fn parse(&self, text: &str) -> Option<Read> {
        if has_impossible_offset(text) {
            return None;
        }
        let once = |second| Read { second: Some(second), repeated: None };
        let written = match &self.format {
            TimeFormat::Clf => return None,
            TimeFormat::Unix { digits } => {
                return Decimal::parse(text)?.second_of(*digits).filter(is_storable).map(once);
            }
            TimeFormat::Auto => match (compact(text), Decimal::parse(text)) {
                (Some(civil), _) => Written::Civil(civil),
                (None, Some(number)) => return number.second().filter(is_storable).map(once),
                (None, None) => text::read(text)?,
            },
            TimeFormat::Rfc3339 => text::iso(text)?,
            TimeFormat::Strptime(pattern) => strptime(pattern, text)?,
        };
        let (civil, zone) = match written {
            Written::Moment(moment) => return Some(once(floor(moment))),
            Written::Civil(civil) => (civil, &self.zone),
            Written::InZone(civil, ref zone) => (civil, zone),
            Written::WithoutYear(civil) => match self.year {
                Some(year) => (in_year(civil, year)?, &self.zone),
                None => (nearest(civil, self.now)?, &self.zone),
            },
        };
        let found = zone.to_ambiguous_timestamp(civil);
        match found.offset() {
            AmbiguousOffset::Unambiguous { .. } => Some(once(floor(found.unambiguous().ok()?))),
            AmbiguousOffset::Gap { .. } => Some(Read { second: None, repeated: None }),
            AmbiguousOffset::Fold { .. } => {
                let repeated = Some(floor(found.later().ok()?));
                Some(Read { second: Some(floor(found.earlier().ok()?)), repeated })
            }
        }
    }
}

/// Tells whether a time of day is followed by an offset of 24 hours or more, as in `10:05+25:00`. No clock shows one.
fn has_impossible_offset(text: &str) -> bool {
    let after_time =
        text.find(':').and_then(|colon| text[colon..].find(['+', '-']).map(|sign| &text[colon + sign + 1..]));
    let hours = after_time
        .and_then(|offset| offset.get(..2))
        .filter(|hours| hours.bytes().all(|byte| byte.is_ascii_digit()));
    hours.is_some_and(|hours| hours >= "24")
}

/// Tells whether counters can be stored for the year of `second`.
fn is_storable(second: &i64) -> bool {
    Timestamp::from_second(*second).is_ok()
}

/// A year that stands for none in a pattern without one; a leap year.
const NO_YEAR: i16 = 2000;

fn strptime(pattern: &str, text: &str) -> Option<Written> {
    let mut parsed = strtime::parse(pattern, text).ok()?;
    if let Ok(moment) = parsed.to_timestamp() {
        return Some(Written::Moment(moment));
    }
    let time = parsed.to_time().unwrap_or(jiff::civil::Time::midnight());
    if let Ok(date) = parsed.to_date() {
        return Some(Written::Civil(date.to_datetime(time)));
    }
    if parsed.year().is_some() {
        return None;
    }
    parsed.set_year(Some(NO_YEAR)).ok()?;
    Some(Written::WithoutYear(parsed.to_date().ok()?.to_datetime(time)))
}

/// Reads a date, or a date and a time, in digits alone. As numbers they would be seconds before 1973, milliseconds of 1976 or
/// after 2286, or microseconds after 2570, which are unlikely in a log.
fn compact(text: &str) -> Option<DateTime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let parsed = match (whole.len(), whole == text) {
        (8, true) => strtime::parse("%Y%m%d", text).ok()?,
        (12, true) => strtime::parse("%Y%m%d%H%M", text).ok()?,
        // With milliseconds behind it, or a fraction.
        (17, true) | (14, _) => strtime::parse("%Y%m%d%H%M%S", &whole[..14]).ok()?,
        _ => return None,
    };
    let date = parsed.to_date().ok()?;
    let is_likely = (1900..2200).contains(&date.year());
    is_likely.then(|| date.to_datetime(parsed.to_time().unwrap_or(jiff::civil::Time::midnight())))
}

fn floor(moment: Timestamp) -> i64 {
    moment.as_second() - i64::from(moment.subsec_nanosecond() < 0)
}

/// Refuses a pattern that cannot read any line.
fn check_pattern(pattern: &str) -> Result<String, DefinitionError> {
    let refuse =
        |why: String| DefinitionError::new(format!("cannot understand `--time-format {pattern}`: {why}"));
    let sample = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    let text = strtime::format(pattern, &sample).map_err(|error| refuse(error.to_string()))?;
    strtime::parse(pattern, &text).map_err(|error| refuse(error.to_string()))?;
    match strptime(pattern, &text) {
        Some(_) => Ok(pattern.to_owned()),
        None => Err(refuse("it does not say the day".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(format: &str, text: &str) -> Option<String> {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let second = Times::new(TimeFormat::parse(format).unwrap(), zone, Timestamp::UNIX_EPOCH)
            .second(text.as_bytes())?;
        Some(Timestamp::from_second(second).unwrap().to_string())
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let good = [
            ("auto", "2015-05-17T10:05:03Z", "2015-05-17T10:05:03Z"),
            ("auto", " 2015-05-17T10:05:03.999+02:00 ", "2015-05-17T08:05:03Z"),
            ("auto", "2015-05-17 10:05:03", "2015-05-17T08:05:03Z"),
            ("auto", "1431857103", "2015-05-17T10:05:03Z"),
            ("auto", "20150517", "2015-05-16T22:00:00Z"),
            ("auto", "20150517100503", "2015-05-17T08:05:03Z"),
            ("auto", "201505171005", "2015-05-17T08:05:00Z"),
            ("auto", "20150517100503.123", "2015-05-17T08:05:03Z"),
            ("auto", "20150517100503123", "2015-05-17T08:05:03Z"),
            ("auto", "1431857103999999", "2015-05-17T10:05:03Z"),
            ("unix", "20151301", "1970-08-22T05:35:01Z"),
            ("unix", "1.431857103e9", "2015-05-17T10:05:03Z"),
            ("unix-millis", "1431857103999.5", "2015-05-17T10:05:03Z"),
            ("unix-nanos", "1431857103999999999", "2015-05-17T10:05:03Z"),
            ("%b %d %H:%M:%S", "Dec 31 23:00:00", "1969-12-31T22:00:00Z"),
            ("auto", "1431857103.75", "2015-05-17T10:05:03Z"),
            ("auto", "1431857103999", "2015-05-17T10:05:03Z"),
            ("rfc3339", "2015-05-17T10:05:03Z", "2015-05-17T10:05:03Z"),
            ("unix", "-0.5", "1969-12-31T23:59:59Z"),
            ("unix", "1431857103", "2015-05-17T10:05:03Z"),
            ("unix-millis", "-1", "1969-12-31T23:59:59Z"),
            ("%Y/%m/%d %H:%M:%S", "2015/05/17 10:05:03", "2015-05-17T08:05:03Z"),
            ("%d.%m.%Y", "17.05.2015", "2015-05-16T22:00:00Z"),
            ("%Y-%m-%d %H:%M:%S,%f", "2015-05-17 10:05:03,123", "2015-05-17T08:05:03Z"),
            ("%Y-%m-%dT%H:%M:%S%z", "2015-05-17T10:05:03-0700", "2015-05-17T17:05:03Z"),
            ("clf", "17/May/2015:10:05:03 -0700", "2015-05-17T17:05:03Z"),
        ];
        for (format, text, expected) in good {
            assert_eq!(read(format, text).as_deref(), Some(expected), "{text} as {format}");
        }
    }

    #[test]
    fn text_that_is_no_time_is_refused() {
        for (format, text) in [
            ("auto", ""),
            ("auto", "yesterday"),
            ("auto", "2015-02-30T00:00:00Z"),
            ("auto", "1.2.3"),
            ("auto", "."),
            ("auto", "100000000000000000000"),
            ("rfc3339", "1431857103"),
            ("unix", "1431857103Z"),
            ("auto", "20151301"),
            ("auto", "42"),
            ("unix", "1e99"),
            ("unix", "nan"),
            ("clf", "17/Foo/2015:10:05:03 +0000"),
        ] {
            assert_eq!(read(format, text), None, "{text:?} as {format}");
        }
    }

    #[test]
    fn format_that_never_works_is_refused() {
        for bad in ["", "iso", "%H:%M", "%Y-%Q", "%"] {
            assert!(TimeFormat::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn times_around_clock_changes_are_told_apart() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let mut times = Times::new(TimeFormat::Auto, zone, Timestamp::UNIX_EPOCH);
        let mut read = |text: &str| {
            let moment = |second: i64| Timestamp::from_second(second).unwrap().to_string();
            let second = times.second(text.as_bytes());
            (second.map(moment), times.repeated().map(moment))
        };
        let first = Some("2017-10-29T00:30:00Z".to_owned());
        let again = Some("2017-10-29T01:30:00Z".to_owned());
        assert_eq!(read("2017-10-29T02:30:00"), (first.clone(), again.clone()));
        assert_eq!(read("2017-10-29 02:30:00 Europe/Berlin"), (first.clone(), again.clone()));
        assert_eq!(read("2017-10-29T02:30:00+02:00"), (first, None));
        assert_eq!(read("2017-10-29T03:30:00").1, None);
        assert_eq!(read("2017-03-26T02:59:33"), (None, None), "the clocks skipped it");
        assert_eq!(read("2011-12-30 12:00:00 Pacific/Apia"), (None, None), "a day that never was");
    }

    #[test]
    fn failed_time_does_not_return_the_last_one() {
        let mut times = Times::new(TimeFormat::Auto, TimeZone::UTC, Timestamp::UNIX_EPOCH);
        assert!(times.second(b"1431857103").is_some());
        assert_eq!(times.second(b"x"), None);
        assert_eq!(times.second(b""), None);
        assert!(times.second(b"1431857103").is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_time_format_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            for format in ["auto", "rfc3339", "unix", "unix-millis", "clf", "%Y-%m-%d %H:%M:%S"] {
                Times::new(TimeFormat::parse(format).unwrap(), TimeZone::UTC, Timestamp::UNIX_EPOCH).second(&text);
            }
        }
    }
}
