//! Days as people name them.

use std::{fmt, str::FromStr};

use countem_core::{Bucket, Period};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};

use crate::range::point::{Point, Unit};

/// A day, as people name it: `2015-05-17`, `today`, `yesterday`, or `-7d` for seven days ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    /// The day of this date.
    On(Date),
    /// The day that was this number of days before today.
    Ago(u32),
}

/// An error: the text names no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DayError {
    /// The text is no day at all.
    #[error("`{text}` is not a day; a day is such as 2015-05-17, today, yesterday or -7d")]
    Malformed {
        /// The refused text.
        text: String,
    },
    /// The date is not in the calendar.
    #[error("there is no day `{text}`")]
    NoSuchDay {
        /// The refused text.
        text: String,
    },
    /// The text is a bucket of another period.
    #[error("`{bucket}` is not a day but a bucket of the period {}: name it with `--bucket`", .bucket.period())]
    Bucket {
        /// The bucket.
        bucket: Bucket,
    },
    /// The text is a moment.
    #[error(
        "`{text}` is not a day but a time: name a bucket with `--bucket`, or count at a time with `--time`"
    )]
    Time {
        /// The refused text.
        text: String,
    },
}

impl Day {
    /// Returns the date; `now` and `zone` define today. `None` before the year 1.
    pub fn date(self, now: Timestamp, zone: &TimeZone) -> Option<Date> {
        match self {
            Self::On(date) => Some(date),
            Self::Ago(days) => {
                let today = zone.to_datetime(now).date();
                let date = today.checked_sub(Span::new().try_days(days).ok()?).ok()?;
                (date.year() >= 1).then_some(date)
            }
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(date) => write!(f, "{date}"),
            Self::Ago(days) => write!(f, "-{days}d"),
        }
    }
}

impl FromStr for Day {
    type Err = DayError;

    /// Reads the expressions of a [`TimeRange`](crate::TimeRange) that name one day.
    fn from_str(text: &str) -> Result<Self, DayError> {
        let shape: Vec<_> =
            text.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte }).collect();
        let is_time = shape.first() == Some(&b'0')
            && (shape.contains(&b':') || matches!(shape.get(10), Some(b'T' | b't' | b' ')));
        match text.parse() {
            Ok(Point::Ago(days, Unit::Day)) => Ok(Self::Ago(days)),
            Ok(Point::Bucket(bucket)) if bucket.period() == Period::Day => Ok(Self::On(bucket.date())),
            Ok(Point::Bucket(bucket)) => Err(DayError::Bucket { bucket }),
            _ if is_time => Err(DayError::Time { text: text.to_owned() }),
            _ if shape == b"0000-00-00" => Err(DayError::NoSuchDay { text: text.to_owned() }),
            _ => Err(DayError::Malformed { text: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> String {
        let now: Timestamp = "2026-11-20T23:30:00Z".parse().unwrap();
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        match text.parse::<Day>() {
            Ok(day) => day.date(now, &zone).map_or("none".to_owned(), |date| date.to_string()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn days_are_dates_or_relative_to_today() {
        assert_eq!(date("2015-05-17"), "2015-05-17");
        assert_eq!(date("today"), "2026-11-21");
        assert_eq!(date("yesterday"), "2026-11-20");
        assert_eq!(date("-0d"), "2026-11-21");
        assert_eq!(date("-7d"), "2026-11-14");
        assert_eq!(date("-365d"), "2025-11-21");
        assert_eq!(date("-4000000000d"), "none");
    }

    #[test]
    fn other_texts_are_refused_with_advice() {
        for (text, advice) in [
            ("2015-05", "month: name it with `--bucket`"),
            ("2015", "year: name it with `--bucket`"),
            ("2015-W20", "week: name it with `--bucket`"),
            ("2015-05-17T10", "hour: name it with `--bucket`"),
            ("all", "all: name it with `--bucket`"),
            ("2015-05-17T10:00:00Z", "with `--time`"),
            ("2015-05-17 10:00", "with `--time`"),
            ("2015-05-17T25", "with `--time`"),
            ("2015-02-30", "there is no day `2015-02-30`"),
            ("0000-01-01", "there is no day"),
            ("20150517", "is not a day; a day is such as"),
            ("1431820800", "is not a day; a day is such as"),
            ("-7", "is not a day; a day is such as"),
            ("-7w", "is not a day; a day is such as"),
            ("--7d", "is not a day; a day is such as"),
            ("-99999999999d", "is not a day; a day is such as"),
            ("tomorrow", "is not a day; a day is such as"),
            ("Today", "is not a day; a day is such as"),
            ("", "is not a day; a day is such as"),
        ] {
            assert!(date(text).contains(advice), "`{text}`: {}", date(text));
        }
    }
}
