//! Reading the times of lines.

mod clf;

use jiff::{Timestamp, civil::DateTime, fmt::strtime, tz::TimeZone};

use self::clf::Clf;
use crate::DefinitionError;

/// Notation of times, the value of `--time-format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// `17/May/2015:10:05:03 +0000`
    Clf,
    /// RFC 3339, `20150517` or `20150517100503`, or a number of seconds or milliseconds since 1970.
    Auto,
    /// RFC 3339 or ISO 8601; without an offset in the configured zone.
    Rfc3339,
    /// Seconds since 1970, with or without a fraction.
    Unix,
    /// Milliseconds since 1970.
    UnixMillis,
    /// A pattern of `strptime`.
    Strptime(String),
}

/// Reads times, and remembers the last one: neighbouring lines are often of the same second or day.
#[derive(Debug, Clone)]
pub struct Times {
    format: TimeFormat,
    zone: TimeZone,
    clf: Clf,
    last_text: Vec<u8>,
    last: Option<i64>,
}

impl TimeFormat {
    /// Reads the value of `--time-format`.
    ///
    /// # Errors
    /// A [`DefinitionError`] when it is neither a known word nor a usable pattern.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        Ok(match text {
            "auto" => Self::Auto,
            "clf" => Self::Clf,
            "rfc3339" => Self::Rfc3339,
            "unix" => Self::Unix,
            "unix-millis" => Self::UnixMillis,
            pattern if pattern.contains('%') => Self::Strptime(check_pattern(pattern)?),
            other => {
                let known = "auto, rfc3339, unix, unix-millis, clf or a pattern such as `%Y-%m-%d %H:%M:%S`";
                return Err(
                    DefinitionError::new(format!("`{other}` is no time format: expected {known}")).into()
                );
            }
        })
    }
}

impl Times {
    /// Prepares to read times written as `format`; those without an offset are in `zone`.
    pub fn new(format: TimeFormat, zone: TimeZone) -> Self {
        // The empty text is no time in any format, so the initial memory is right.
        Self { format, zone, clf: Clf::default(), last_text: Vec::new(), last: None }
    }

    /// Returns the second since 1970 that `text` lies in, `None` when it is no time.
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
        self.last
    }

    #[inline(never)]
    fn parse(&self, text: &str) -> Option<i64> {
        let moment = match &self.format {
            TimeFormat::Clf => return None,
            TimeFormat::Auto if is_number(text) => match compact(text) {
                Some(civil) => self.civil(civil)?,
                None => number(text)?,
            },
            TimeFormat::Auto | TimeFormat::Rfc3339 => self.rfc3339(text)?,
            TimeFormat::Unix => seconds(text)?,
            TimeFormat::UnixMillis => Timestamp::from_millisecond(text.parse().ok()?).ok()?,
            TimeFormat::Strptime(pattern) => self.strptime(pattern, text)?,
        };
        Some(floor(moment))
    }

    fn rfc3339(&self, text: &str) -> Option<Timestamp> {
        text.parse().ok().or_else(|| self.civil(text.parse().ok()?))
    }

    fn strptime(&self, pattern: &str, text: &str) -> Option<Timestamp> {
        let parsed = strtime::parse(pattern, text).ok()?;
        parsed.to_timestamp().ok().or_else(|| {
            let date = parsed.to_date().ok()?;
            let time = parsed.to_time().unwrap_or(jiff::civil::Time::midnight());
            self.civil(date.to_datetime(time))
        })
    }

    fn civil(&self, civil: DateTime) -> Option<Timestamp> {
        Some(self.zone.to_ambiguous_zoned(civil).compatible().ok()?.timestamp())
    }
}

/// The last second of the year 9999. A larger number counts milliseconds, since no counter is stored for such a year.
const LAST_SECOND: i64 = 253_402_300_799;

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Reads a date, or a date and a time, in digits alone. As numbers they would be seconds before 1973, or milliseconds after
/// 2286, which are unlikely in a log.
fn compact(text: &str) -> Option<DateTime> {
    let parsed = match text.len() {
        8 => strtime::parse("%Y%m%d", text).ok()?,
        14 => strtime::parse("%Y%m%d%H%M%S", text).ok()?,
        _ => return None,
    };
    let date = parsed.to_date().ok()?;
    let is_likely = (1900..2200).contains(&date.year());
    is_likely.then(|| date.to_datetime(parsed.to_time().unwrap_or(jiff::civil::Time::midnight())))
}

fn number(text: &str) -> Option<Timestamp> {
    match text.parse::<i64>() {
        Ok(n) if n.abs() > LAST_SECOND => Timestamp::from_millisecond(n).ok(),
        _ => seconds(text),
    }
}

/// Reads seconds exactly: a float would move times near midnight.
fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let second: i64 = whole.parse().ok()?;
    let before = whole.starts_with('-') && fraction.bytes().any(|b| b != b'0');
    Timestamp::from_second(second.checked_sub(i64::from(before))?).ok()
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
    let parsed = strtime::parse(pattern, &text).map_err(|error| refuse(error.to_string()))?;
    if parsed.to_timestamp().is_err() && parsed.to_date().is_err() {
        return Err(refuse("it does not say the day".to_owned()).into());
    }
    Ok(pattern.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(format: &str, text: &str) -> Option<String> {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let second = Times::new(TimeFormat::parse(format).unwrap(), zone).second(text.as_bytes())?;
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
            ("auto", "20151301", "1970-08-22T05:35:01Z"),
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
            ("auto", "99999999999999999999"),
            ("rfc3339", "1431857103"),
            ("unix", "1431857103Z"),
            ("unix", "1e9"),
            ("unix-millis", "1.5"),
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
    fn failed_time_does_not_return_the_last_one() {
        let mut times = Times::new(TimeFormat::Auto, TimeZone::UTC);
        assert!(times.second(b"1431857103").is_some());
        assert_eq!(times.second(b"x"), None);
        assert_eq!(times.second(b""), None);
        assert!(times.second(b"1431857103").is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_time_format_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            for format in ["auto", "rfc3339", "unix", "unix-millis", "clf", "%Y-%m-%d %H:%M:%S"] {
                Times::new(TimeFormat::parse(format).unwrap(), TimeZone::UTC).second(&text);
            }
        }
    }
}
