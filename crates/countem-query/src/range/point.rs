//! Expressions that name one span of time.

use std::{fmt, str::FromStr};

use countem_core::{Bucket, BucketError, BucketRange, Period};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};

use super::TimeRangeError;

/// One span of time, relative to the present or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Now,
    Bucket(Bucket),
    /// The quarter that begins with this month.
    Quarter(Bucket),
    /// The span of this unit that was so many before the present one.
    Ago(u32, Unit),
}

/// A unit of relative expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Unit {
    const ALL: [(Self, &str, &str); 8] = [
        (Self::Second, "s", "second"),
        (Self::Minute, "m", "minute"),
        (Self::Hour, "h", "hour"),
        (Self::Day, "d", "day"),
        (Self::Week, "w", "week"),
        (Self::Month, "mo", "month"),
        (Self::Quarter, "q", "quarter"),
        (Self::Year, "y", "year"),
    ];

    /// Parses a number and the unit's suffix, as in `24h`; an error where the number has too many digits.
    pub(super) fn counted(text: &str) -> Option<Result<(u32, Self), TimeRangeError>> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, suffix) = text.split_at(digits);
        let (unit, ..) = Self::ALL.into_iter().find(|(_, known, _)| *known == suffix)?;
        let too_many = || TimeRangeError::Year { text: text.to_owned() };
        (digits > 0).then(|| number.parse().map(|number| (number, unit)).map_err(|_| too_many()))
    }

    pub(super) fn suffix(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Returns the period of which the unit is one bucket, or three.
    fn period(self) -> Period {
        match self {
            Self::Second => Period::Second,
            Self::Minute => Period::Minute,
            Self::Hour => Period::Hour,
            Self::Day => Period::Day,
            Self::Week => Period::Week,
            Self::Month | Self::Quarter => Period::Month,
            Self::Year => Period::Year,
        }
    }

    fn spans(self, number: u32) -> Result<Span, jiff::Error> {
        let span = Span::new();
        match self {
            Self::Second => span.try_seconds(number),
            Self::Minute => span.try_minutes(number),
            Self::Hour => span.try_hours(number),
            Self::Day => span.try_days(number),
            Self::Week => span.try_weeks(number),
            Self::Month => span.try_months(number),
            Self::Quarter => span.try_months(i64::from(number) * 3),
            Self::Year => span.try_years(number),
        }
    }

    /// Returns the buckets of the unit that was `ago` before the present one.
    fn buckets(self, ago: u32, now: Timestamp, zone: &TimeZone) -> Option<BucketRange> {
        let present = Bucket::containing(self.period(), now, zone).ok()?;
        let present = if self == Self::Quarter { quarter(present)?.first() } else { present };
        let start = present.start().checked_sub(self.spans(ago).ok()?).ok()?;
        let start = TimeZone::UTC.to_timestamp(start).ok()?;
        let bucket = Bucket::containing(self.period(), start, &TimeZone::UTC).ok()?;
        if self == Self::Quarter { quarter(bucket) } else { Some(BucketRange::one(bucket)) }
    }
}

impl Point {
    /// Returns the period that the expression speaks of, `None` for the present moment.
    pub(super) fn period(self) -> Option<Period> {
        match self {
            Self::Now => None,
            Self::Bucket(bucket) | Self::Quarter(bucket) => Some(bucket.period()),
            Self::Ago(_, unit) => Some(unit.period()),
        }
    }

    /// Returns the buckets of the span; the present moment is a bucket of `step`.
    pub(super) fn buckets(
        self,
        step: Period,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<BucketRange, TimeRangeError> {
        let buckets = match self {
            Self::Now => Bucket::containing(step, now, zone).ok().map(BucketRange::one),
            Self::Bucket(bucket) => Some(BucketRange::one(bucket)),
            Self::Quarter(month) => quarter(month),
            Self::Ago(ago, unit) => unit.buckets(ago, now, zone),
        };
        buckets.ok_or_else(|| TimeRangeError::Year { text: self.to_string() })
    }
}

/// Returns the months of the quarter in which `month` lies.
fn quarter(month: Bucket) -> Option<BucketRange> {
    let date = month.date();
    let of = |month: i8| bucket(Date::new(date.year(), month, 1).ok()?, Period::Month);
    let first = (date.month() - 1) / 3 * 3 + 1;
    BucketRange::new(of(first)?, of(first + 2)?)
}

/// Returns the bucket of a civil period in which `date` lies.
pub(super) fn bucket(date: Date, period: Period) -> Option<Bucket> {
    Bucket::day(date).ok()?.rollup(period, &TimeZone::UTC)
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Now => f.write_str("now"),
            Self::Bucket(bucket) => bucket.fmt(f),
            Self::Quarter(month) => {
                let first = month.date();
                write!(f, "{:04}-Q{}", first.year(), (first.month() + 2) / 3)
            }
            Self::Ago(0, Unit::Day) => f.write_str("today"),
            Self::Ago(1, Unit::Day) => f.write_str("yesterday"),
            Self::Ago(0, unit) => write!(f, "this-{}", Unit::ALL[unit as usize].2),
            Self::Ago(1, unit) => write!(f, "last-{}", Unit::ALL[unit as usize].2),
            Self::Ago(ago, unit) => write!(f, "-{ago}{}", unit.suffix()),
        }
    }
}

impl FromStr for Point {
    type Err = TimeRangeError;

    fn from_str(text: &str) -> Result<Self, TimeRangeError> {
        match text {
            "now" => return Ok(Self::Now),
            "today" => return Ok(Self::Ago(0, Unit::Day)),
            "yesterday" => return Ok(Self::Ago(1, Unit::Day)),
            _ => {}
        }
        if let Some(counted) = text.strip_prefix('-').and_then(Unit::counted) {
            return counted.map(|(ago, unit)| Self::Ago(ago, unit));
        }
        for (prefix, ago) in [("this-", 0), ("last-", 1)] {
            let unit = text.strip_prefix(prefix);
            let unit = unit.and_then(|unit| Unit::ALL.into_iter().find(|(.., name)| *name == unit));
            if let Some((unit, ..)) = unit {
                return Ok(Self::Ago(ago, unit));
            }
        }
        if let Some((year, number @ ("1" | "2" | "3" | "4"))) = text.split_once("-Q")
            && let Ok(start) = year.parse::<Bucket>()
            && start.period() == Period::Year
            && let Ok(number) = number.parse::<i8>()
            && let Ok(start) = Date::new(start.date().year(), number * 3 - 2, 1)
            && let Some(month) = bucket(start, Period::Month)
        {
            return Ok(Self::Quarter(month));
        }
        text.parse().map(Self::Bucket).map_err(|error| match error {
            BucketError::NoSuchWeek { .. } => TimeRangeError::Bucket(error),
            _ if looks_like_date(text) => TimeRangeError::NoSuchTime { text: text.to_owned() },
            _ => TimeRangeError::Malformed { text: text.to_owned() },
        })
    }
}

/// Returns true for a text with the shape of a bucket, whose numbers name none.
fn looks_like_date(text: &str) -> bool {
    let shape: String = text.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    let shapes = [
        "0000",
        "0000-00",
        "0000-W00",
        "0000-Q0",
        "0000-00-00",
        "0000-00-00T00",
        "0000-00-00T00:00",
        "0000-00-00T00:00:00",
    ];
    shapes.contains(&&*shape)
}
