//! One span of time with a readable, sortable identity.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicI64, Ordering},
};

use jiff::{
    Timestamp,
    civil::{Date, DateTime, ISOWeekDate, Weekday, date},
    tz::TimeZone,
};

use crate::Period;

/// One span of time: a period and the civil moment at which the span begins.
///
/// Eight bytes, `Copy`, and independent of any time zone once it exists. [`Display`](fmt::Display) and
/// [`FromStr`] convert to and from the id under which stores keep it:
///
/// | period | id | | period | id |
/// |---|---|---|---|---|
/// | second | `2026-11-20T14:05:09` | | week | `2026-W47` |
/// | minute | `2026-11-20T14:05` | | month | `2026-11` |
/// | hour | `2026-11-20T14` | | year | `2026` |
/// | day | `2026-11-20` | | all | `all` |
///
/// Years run from 0001 to 9999. The order is by start, then from fine to coarse.
//
// Seconds of civil time since 1970-01-01T00:00:00, times eight, plus the code of the period.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(i64);

/// An error: the text or the moment is not a bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    /// The text is not the id of a bucket, or names a day that does not exist.
    #[error("`{text}` is not a bucket; examples: 2026-11-20, 2026-11-20T14, 2026-W47, 2026-11, 2026, all")]
    Malformed {
        /// The refused text.
        text: String,
    },
    /// The year has fewer weeks.
    #[error("there is no week `{text}`: {year} has {weeks} weeks")]
    NoSuchWeek {
        /// The refused text.
        text: String,
        /// The year of the ISO calendar.
        year: i16,
        /// Number of its weeks.
        weeks: i8,
    },
    /// The moment lies outside the years 0001 to 9999.
    #[error("{moment} is outside the years 0001 to 9999")]
    Year {
        /// The refused moment.
        moment: String,
    },
}

pub(super) const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

impl Bucket {
    /// Returns the only bucket of period `all`.
    pub const ALL: Self = Self(Period::All as i64);

    /// Returns the bucket of `period` that contains `moment`: hours and finer in UTC, days and coarser in `zone`.
    ///
    /// # Errors
    /// [`BucketError::Year`] when the moment lies outside the years 0001 to 9999.
    pub fn containing(period: Period, moment: Timestamp, zone: &TimeZone) -> Result<Self, BucketError> {
        let civil = match period {
            Period::All => return Ok(Self::ALL),
            _ if period.is_civil() => zone.to_datetime(moment),
            _ => TimeZone::UTC.to_datetime(moment),
        };
        if !(1..=9999).contains(&civil.year()) {
            return Err(BucketError::Year { moment: moment.to_string() });
        }
        Self::of_civil(period, civil).ok_or_else(|| BucketError::Year { moment: moment.to_string() })
    }

    /// Returns the day bucket of `date`.
    ///
    /// # Errors
    /// [`BucketError::Year`] when the date lies outside the years 0001 to 9999.
    pub fn day(date: Date) -> Result<Self, BucketError> {
        match date.year() {
            1..=9999 => Ok(Self::pack(Period::Day, date.into())),
            _ => Err(BucketError::Year { moment: date.to_string() }),
        }
    }

    /// The bucket of `period` that contains the civil moment, `None` where a week begins before year 1.
    pub(super) fn of_civil(period: Period, civil: DateTime) -> Option<Self> {
        let day = civil.date();
        let start: DateTime = match period {
            Period::Second => civil.with().subsec_nanosecond(0).build().ok()?,
            Period::Minute => civil.with().second(0).subsec_nanosecond(0).build().ok()?,
            Period::Hour => day.at(civil.hour(), 0, 0, 0),
            Period::Day => day.into(),
            Period::Week => {
                let monday =
                    ISOWeekDate::new(day.iso_week_date().year(), day.iso_week_date().week(), Weekday::Monday);
                monday.ok()?.date().into()
            }
            Period::Month => day.first_of_month().into(),
            Period::Year => day.first_of_year().into(),
            Period::All => return Some(Self::ALL),
        };
        (start.year() >= 1).then(|| Self::pack(period, start))
    }

    fn pack(period: Period, start: DateTime) -> Self {
        Self(start.duration_since(EPOCH).as_secs() << 3 | period.code())
    }

    /// Returns the granularity.
    pub fn period(self) -> Period {
        Period::from_code(self.0)
    }

    /// Returns the civil moment at which the span begins, 1970-01-01 for `all`.
    pub fn start(self) -> DateTime {
        EPOCH.saturating_add(jiff::SignedDuration::from_secs(self.0 >> 3))
    }

    /// Returns the civil moment at which the span begins, as seconds since 1970-01-01T00:00:00.
    pub(super) fn civil_second(self) -> i64 {
        self.0 >> 3
    }

    /// Returns the civil date on which the span begins, 1970-01-01 for `all`.
    pub fn date(self) -> Date {
        self.start().date()
    }

    /// Returns the instant at which the span begins: UTC for hours and finer, `zone` for days and coarser.
    ///
    /// A civil midnight that a clock change skipped begins at the first instant after it.
    pub fn start_instant(self, zone: &TimeZone) -> Timestamp {
        match self.period() {
            Period::All => Timestamp::MIN,
            period if period.is_civil() => zone
                .to_ambiguous_zoned(self.start())
                .compatible()
                .map_or(Timestamp::MAX, |zoned| zoned.timestamp()),
            _ => TimeZone::UTC.to_timestamp(self.start()).unwrap_or(Timestamp::MAX),
        }
    }

    /// Returns the bucket of the same period that follows, `None` at the end of time and for `all`.
    pub fn next(self) -> Option<Self> {
        let span = match self.period() {
            Period::Second => jiff::Span::new().seconds(1),
            Period::Minute => jiff::Span::new().minutes(1),
            Period::Hour => jiff::Span::new().hours(1),
            Period::Day => jiff::Span::new().days(1),
            Period::Week => jiff::Span::new().weeks(1),
            Period::Month => jiff::Span::new().months(1),
            Period::Year => jiff::Span::new().years(1),
            Period::All => return None,
        };
        Some(Self::pack(self.period(), self.start().checked_add(span).ok()?))
    }

    /// Returns the bucket of `period` that contains this whole bucket, `None` where the periods do not nest
    /// (a week may lie in two months or years; nothing lies in a finer period).
    ///
    /// A UTC span counts to the civil day of `zone` in which it begins. That is exact only for spans that lie in one day.
    pub fn rollup(self, period: Period, zone: &TimeZone) -> Option<Self> {
        let own = self.period();
        if period == own || period == Period::All {
            return Some(if period == own { self } else { Self::ALL });
        }
        if period < own || own == Period::Week {
            return None;
        }
        let civil = if period.is_civil() && !own.is_civil() {
            zone.to_datetime(self.start_instant(zone))
        } else {
            self.start()
        };
        Self::of_civil(period, civil)
    }
}

/// A [`Bucket`] that one thread replaces while others read it: one relaxed load on the counting path.
///
/// Relaxed is enough, because no other memory is published with the bucket.
#[derive(Debug)]
pub struct AtomicBucket(AtomicI64);

impl AtomicBucket {
    /// Returns a cell that holds `bucket`.
    pub fn new(bucket: Bucket) -> Self {
        Self(AtomicI64::new(bucket.0))
    }

    /// Returns the present bucket.
    #[inline]
    pub fn load(&self) -> Bucket {
        Bucket(self.0.load(Ordering::Relaxed))
    }

    /// Replaces the bucket.
    pub fn store(&self, bucket: Bucket) {
        self.0.store(bucket.0, Ordering::Relaxed);
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start();
        let (year, month, day) = (start.year(), start.month(), start.day());
        match self.period() {
            Period::Second => {
                let (hour, minute, second) = (start.hour(), start.minute(), start.second());
                write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
            }
            Period::Minute => {
                write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}", start.hour(), start.minute())
            }
            Period::Hour => write!(f, "{year:04}-{month:02}-{day:02}T{:02}", start.hour()),
            Period::Day => write!(f, "{year:04}-{month:02}-{day:02}"),
            Period::Week => {
                let week = start.date().iso_week_date();
                write!(f, "{:04}-W{:02}", week.year(), week.week())
            }
            Period::Month => write!(f, "{year:04}-{month:02}"),
            Period::Year => write!(f, "{year:04}"),
            Period::All => f.write_str("all"),
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Bucket {
    type Err = BucketError;

    fn from_str(text: &str) -> Result<Self, BucketError> {
        parse(text).ok_or_else(|| {
            let text = text.to_owned();
            match text.strip_suffix("-W53").filter(|year| year.len() == 4).and_then(number) {
                Some(year @ 1..) => BucketError::NoSuchWeek { text, year, weeks: 52 },
                _ => BucketError::Malformed { text },
            }
        })
    }
}

fn parse(text: &str) -> Option<Bucket> {
    if text == "all" {
        return Some(Bucket::ALL);
    }
    let year: i16 = number(text.get(0..4)?)?;
    if year < 1 {
        return None;
    }
    if let Some(week) = text.get(4..).and_then(|rest| rest.strip_prefix("-W")) {
        let week = if week.len() == 2 { number(week)? } else { return None };
        let monday = ISOWeekDate::new(year, week, Weekday::Monday).ok()?.date();
        return (monday.year() >= 1).then(|| Bucket::pack(Period::Week, monday.into()));
    }
    // One template per length: `-` where the pattern has one, two digits between.
    let field = |at: usize, mark: u8| -> Option<i8> {
        (text.as_bytes().get(at - 1) == Some(&mark)).then(|| number(text.get(at..at + 2)?)).flatten()
    };
    let (month, day) = match text.len() {
        4 => return Some(Bucket::pack(Period::Year, date(year, 1, 1).into())),
        7 => {
            let month = Date::new(year, field(5, b'-')?, 1).ok()?;
            return Some(Bucket::pack(Period::Month, month.into()));
        }
        10 | 13 | 16 | 19 => (field(5, b'-')?, field(8, b'-')?),
        _ => return None,
    };
    let day = Date::new(year, month, day).ok()?;
    let (period, hour, minute, second) = match text.len() {
        10 => (Period::Day, 0, 0, 0),
        13 => (Period::Hour, field(11, b'T')?, 0, 0),
        16 => (Period::Minute, field(11, b'T')?, field(14, b':')?, 0),
        _ => (Period::Second, field(11, b'T')?, field(14, b':')?, field(17, b':')?),
    };
    let start = DateTime::new(day.year(), day.month(), day.day(), hour, minute, second, 0).ok()?;
    Some(Bucket::pack(period, start))
}

/// Parses digits only: `FromStr` of the integers also accepts a sign.
fn number<N: FromStr>(digits: &str) -> Option<N> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn ids_are_those_of_the_design() {
        let moment = at("2026-11-20T14:05:09.999Z");
        let ids = Period::ALL.map(|p| Bucket::containing(p, moment, &TimeZone::UTC).unwrap().to_string());
        assert_eq!(
            ids,
            [
                "2026-11-20T14:05:09",
                "2026-11-20T14:05",
                "2026-11-20T14",
                "2026-11-20",
                "2026-W47",
                "2026-11",
                "2026",
                "all"
            ]
        );
    }

    #[test]
    fn days_are_civil_and_hours_are_utc() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let moment = at("2026-06-30T22:30:00Z");
        let id = |period| Bucket::containing(period, moment, &berlin).unwrap().to_string();
        assert_eq!(id(Period::Day), "2026-07-01");
        assert_eq!(id(Period::Hour), "2026-06-30T22");
        assert_eq!(id(Period::Month), "2026-07");
    }

    #[test]
    fn iso_week_belongs_to_year_of_its_thursday() {
        let week = |day: &str| {
            day.parse::<Bucket>().unwrap().rollup(Period::Week, &TimeZone::UTC).unwrap().to_string()
        };
        assert_eq!(week("2027-01-01"), "2026-W53");
        assert_eq!(week("2024-12-30"), "2025-W01");
        assert_eq!(week("2026-11-20"), "2026-W47");
    }

    #[test]
    fn a_week_rolls_up_to_all_only() {
        let week: Bucket = "2026-W47".parse().unwrap();
        assert_eq!(week.rollup(Period::Month, &TimeZone::UTC), None);
        assert_eq!(week.rollup(Period::Day, &TimeZone::UTC), None);
        assert_eq!(week.rollup(Period::All, &TimeZone::UTC), Some(Bucket::ALL));
    }

    #[test]
    fn day_with_clock_change_is_one_bucket() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let day = |moment| Bucket::containing(Period::Day, at(moment), &berlin).unwrap().to_string();
        assert_eq!(day("2026-03-28T22:59:59.999Z"), "2026-03-28");
        assert_eq!(day("2026-03-28T23:00:00Z"), "2026-03-29");
        assert_eq!(day("2026-03-29T21:59:59.999Z"), "2026-03-29");
        assert_eq!(day("2026-10-24T22:00:00Z"), "2026-10-25");
        assert_eq!(day("2026-10-25T22:59:59.999Z"), "2026-10-25");
        assert_eq!(day("2026-10-25T23:00:00Z"), "2026-10-26");
    }

    #[test]
    fn day_without_midnight_begins_after_the_gap() {
        let zone = TimeZone::get("America/Sao_Paulo").unwrap();
        let day: Bucket = "2018-11-04".parse().unwrap();
        assert_eq!(day.start_instant(&zone), at("2018-11-04T03:00:00Z"));
    }

    #[test]
    fn malformed_ids_are_refused() {
        for bad in [
            "",
            "2026-13",
            "2026-02-30",
            "2026-11-20T24",
            "2026-11-20T14:60",
            "2026-W54",
            "2026-W1",
            "+026",
            "2026-11-20 14",
            "2026-1-1",
            "0000",
            "2026-11-20T14:05:60",
            "All",
            "2026-W+1",
            "２０２６",
            "2026-11-20T",
        ] {
            assert!(bad.parse::<Bucket>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn an_id_reads_back_as_the_same_bucket(seconds in -62_000_000_000_i64..253_000_000_000, period in 0..8_i64) {
            let moment = Timestamp::from_second(seconds).unwrap();
            let bucket = Bucket::containing(Period::from_code(period), moment, &TimeZone::UTC).unwrap();
            prop_assert_eq!(bucket.to_string().parse::<Bucket>().unwrap(), bucket);
            prop_assert!(bucket.start_instant(&TimeZone::UTC) <= moment);
            if let Some(next) = bucket.next() {
                prop_assert!(next.start_instant(&TimeZone::UTC) > moment);
            }
        }

        #[test]
        fn rolling_up_agrees_with_asking_directly(seconds in 0_i64..4_000_000_000, fine in 0..8_i64, coarse in 0..8_i64) {
            let zone = TimeZone::get("America/New_York").unwrap();
            let moment = Timestamp::from_second(seconds).unwrap();
            let of = |code| Bucket::containing(Period::from_code(code), moment, &zone).unwrap();
            if let Some(rolled) = of(fine).rollup(Period::from_code(coarse), &zone) {
                prop_assert_eq!(rolled, of(coarse));
            }
        }
    }
}
