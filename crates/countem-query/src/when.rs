//! The time parameter of a read.

use countem_core::{Bucket, BucketError, Period};
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::Day;

/// Selects the bucket of a read: a day, any bucket, or the current bucket of a period. Today by default.
///
/// Parameters are `impl Into<When>`, so that a caller passes `None`, a `Date`, a [`Day`], a [`Bucket`] or a [`Period`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// This day.
    Day(Day),
    /// This bucket.
    Bucket(Bucket),
    /// The bucket of this period that contains the present moment.
    Current(Period),
}

impl When {
    /// Returns the bucket; `now` and `zone` define the current buckets.
    ///
    /// # Errors
    /// [`BucketError::Year`]: the date or the moment lies outside the years 0001 to 9999.
    pub fn bucket(self, now: Timestamp, zone: &TimeZone) -> Result<Bucket, BucketError> {
        match self {
            Self::Day(day) => match day.date(now, zone) {
                Some(date) => Bucket::day(date),
                None => Err(BucketError::Year { moment: format!("`{day}`") }),
            },
            Self::Bucket(bucket) => Ok(bucket),
            Self::Current(period) => Bucket::containing(period, now, zone),
        }
    }
}

impl Default for When {
    fn default() -> Self {
        Self::Current(Period::Day)
    }
}

impl From<Day> for When {
    fn from(day: Day) -> Self {
        Self::Day(day)
    }
}

impl From<Date> for When {
    fn from(date: Date) -> Self {
        Self::Day(Day::On(date))
    }
}

impl From<Bucket> for When {
    fn from(bucket: Bucket) -> Self {
        Self::Bucket(bucket)
    }
}

impl From<Period> for When {
    fn from(period: Period) -> Self {
        Self::Current(period)
    }
}

/// The only conversion from an `Option`, so that the type of a bare `None` is inferred.
impl From<Option<Date>> for When {
    fn from(date: Option<Date>) -> Self {
        date.map_or_else(Self::default, Self::from)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn resolve(when: impl Into<When>) -> String {
        let now: Timestamp = "2026-11-20T23:30:00Z".parse().unwrap();
        when.into().bucket(now, &TimeZone::get("Europe/Berlin").unwrap()).unwrap().to_string()
    }

    #[test]
    fn nothing_means_today_in_the_zone() {
        assert_eq!(resolve(None), "2026-11-21");
    }

    #[test]
    fn dates_periods_and_buckets_are_accepted() {
        assert_eq!(resolve(date(2015, 5, 17)), "2015-05-17");
        assert_eq!(resolve(Some(date(2015, 5, 17))), "2015-05-17");
        assert_eq!(resolve(Period::Month), "2026-11");
        assert_eq!(resolve(Period::Hour), "2026-11-20T23");
        assert_eq!(resolve("2026-W47".parse::<Bucket>().unwrap()), "2026-W47");
    }
}
