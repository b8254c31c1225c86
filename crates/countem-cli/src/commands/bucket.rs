//! Flags that choose a bucket.

use anyhow::Result;
use clap::Args;
use countem_core::{Bucket, BucketRange, Period};
use countem_query::{Day, Reader, TimeRange, When};
use jiff::{Timestamp, tz::TimeZone};

use crate::exit::UsageError;

/// Flags that choose the bucket to read; today by default.
#[derive(Debug, Args)]
pub(crate) struct BucketFlags {
    /// The day, as in 2015-05-17, today, yesterday or -7d [default: today in the zone of the store]
    #[arg(long, value_name = "DAY", allow_hyphen_values = true)]
    date: Option<Day>,
    /// The bucket of this period that contains the day: day, week, month, year or all; hour and finer mean now
    #[arg(long)]
    period: Option<Period>,
    /// The bucket itself, as in 2015-05-17T10, 2015-W20, 2015-05, 2015 or all
    #[arg(long, value_name = "ID", conflicts_with_all = ["date", "period"])]
    bucket: Option<Bucket>,
}

/// Flags that choose what to read: a bucket, or a range of time.
#[derive(Debug, Args)]
pub(crate) struct RangeFlags {
    #[command(flatten)]
    bucket: BucketFlags,
    /// A range of time: 30d (the last 30 days, today included), 2015-05, 2015-W20, last-week, 2015-05-01..2015-05-17, 2015-05-01..
    /// (until now); both ends are included
    #[arg(long, value_name = "RANGE", conflicts_with_all = ["date", "period", "bucket"], allow_hyphen_values = true)]
    range: Option<TimeRange>,
}

impl RangeFlags {
    /// Returns the range now, in the zone of the store that `reader` reads.
    ///
    /// # Errors
    /// As [`BucketFlags::of`].
    pub(crate) async fn of(&self, reader: &Reader) -> Result<TimeRange> {
        Ok(match self.range {
            Some(range) => range,
            None => self.bucket.of(reader).await?.into(),
        })
    }
}

impl BucketFlags {
    /// Returns the bucket now, in the zone of the store that `reader` reads.
    ///
    /// # Errors
    /// A [`UsageError`] for a day in a period that is finer; else the error of the store.
    pub(crate) async fn of(&self, reader: &Reader) -> Result<Bucket> {
        let now = Timestamp::now();
        self.bucket(now, reader.schedules().await?.zone(now))
    }

    fn bucket(&self, now: Timestamp, zone: &TimeZone) -> Result<Bucket> {
        if let Some(bucket) = self.bucket {
            return Ok(bucket);
        }
        let period = self.period.unwrap_or(Period::Day);
        let Some(day) = self.date else { return Ok(Bucket::containing(period, now, zone)?) };
        let day = day_bucket(day, now, zone)?;
        day.rollup(period, zone).ok_or_else(|| {
            UsageError::new(format!("a day has many {period} buckets: name one with `--bucket`")).into()
        })
    }
}

/// Checks that `bucket` is one that the clocks of `zone` showed.
///
/// # Errors
/// A [`UsageError`]: a change of the date line left it out.
pub(super) fn require_existence(bucket: Bucket, zone: &TimeZone) -> Result<(), UsageError> {
    if BucketRange::one(bucket).spans(zone).is_empty() {
        let zone = zone.iana_name().unwrap_or("this zone");
        let why = format!("there was no {bucket} in {zone}: clocks were set forward over the whole day");
        return Err(UsageError::new(why));
    }
    Ok(())
}

/// Returns the bucket of a day.
///
/// # Errors
/// A [`UsageError`]: the day is before the year 1.
pub(super) fn day_bucket(day: Day, now: Timestamp, zone: &TimeZone) -> Result<Bucket, UsageError> {
    When::from(day).bucket(now, zone).map_err(|error| UsageError::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(date: Option<&str>, period: Option<&str>) -> Result<String> {
        let flags = BucketFlags {
            date: date.map(|date| date.parse().unwrap()),
            period: period.map(|period| period.parse().unwrap()),
            bucket: None,
        };
        let now: Timestamp = "2026-11-20T23:30:00Z".parse().unwrap();
        Ok(flags.bucket(now, &TimeZone::get("Europe/Berlin").unwrap())?.to_string())
    }

    #[test]
    fn today_is_that_of_the_zone() {
        assert_eq!(bucket(None, None).unwrap(), "2026-11-21");
        assert_eq!(bucket(None, Some("hour")).unwrap(), "2026-11-20T23");
        assert_eq!(bucket(None, Some("week")).unwrap(), "2026-W47");
    }

    #[test]
    fn day_lies_in_coarser_buckets_only() {
        assert_eq!(bucket(Some("2015-05-17"), None).unwrap(), "2015-05-17");
        assert_eq!(bucket(Some("2015-05-17"), Some("month")).unwrap(), "2015-05");
        assert_eq!(bucket(Some("2015-05-17"), Some("all")).unwrap(), "all");
        assert!(bucket(Some("2015-05-17"), Some("hour")).unwrap_err().to_string().contains("--bucket"));
    }
}
