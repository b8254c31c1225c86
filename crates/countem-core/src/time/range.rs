//! Ranges of buckets of one period.

use std::ops::Range;

use jiff::tz::TimeZone;

use super::spans::spans;
use crate::{Bucket, Period};

/// The buckets of one period from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketRange {
    first: Bucket,
    last: Bucket,
}

impl BucketRange {
    /// Returns the buckets from `first` to `last`, `None` when their periods differ or `last` is before `first`.
    pub fn new(first: Bucket, last: Bucket) -> Option<Self> {
        (first.period() == last.period() && first <= last).then_some(Self { first, last })
    }

    /// Returns the range of one bucket.
    pub fn one(bucket: Bucket) -> Self {
        Self { first: bucket, last: bucket }
    }

    /// Returns every bucket of `period`.
    pub fn every(period: Period) -> Self {
        if period == Period::All {
            return Self::one(Bucket::ALL);
        }
        let bound = |text: &str| {
            let second: Bucket = text.parse().expect("a constant id is well formed");
            second.rollup(period, &TimeZone::UTC).expect("a second lies in a bucket of every period")
        };
        // The first ISO week that lies in the supported years begins on 0001-01-01, a Monday.
        Self { first: bound("0001-01-01T00:00:00"), last: bound("9999-12-31T23:59:59") }
    }

    /// Returns the period of all buckets in the range.
    pub fn period(&self) -> Period {
        self.first.period()
    }

    /// Returns the first bucket.
    pub fn first(&self) -> Bucket {
        self.first
    }

    /// Returns the last bucket, which belongs to the range.
    pub fn last(&self) -> Bucket {
        self.last
    }

    /// Returns true for a `bucket` of the range's period that lies in the range.
    pub fn contains(&self, bucket: Bucket) -> bool {
        bucket.period() == self.period() && self.first <= bucket && bucket <= self.last
    }

    /// Returns the number of buckets, without listing them.
    #[allow(clippy::len_without_is_empty, reason = "a range has at least one bucket")]
    pub fn len(&self) -> u64 {
        let (first, last) = (self.first.start(), self.last.start());
        let seconds = last.duration_since(first).as_secs();
        let years = i64::from(last.year() - first.year());
        let steps = match self.period() {
            Period::Second => seconds,
            Period::Minute => seconds / 60,
            Period::Hour => seconds / 3600,
            Period::Day => seconds / 86_400,
            Period::Week => seconds / (7 * 86_400),
            Period::Month => years * 12 + i64::from(last.month() - first.month()),
            Period::Year => years,
            Period::All => 0,
        };
        steps.unsigned_abs() + 1
    }

    /// Returns the instants of the range in order, as seconds since 1970-01-01T00:00:00Z.
    ///
    /// They are several spans where clocks are set back over midnight, because an evening then continues after the first minutes of
    /// the next day, and none for a day that a change of the date line left out.
    pub fn spans(&self, zone: &TimeZone) -> Vec<Range<i64>> {
        spans(*self, zone)
    }

    /// Lists the buckets in order.
    pub fn iter(&self) -> impl Iterator<Item = Bucket> + use<> {
        let last = self.last;
        std::iter::successors(Some(self.first), |bucket| bucket.next())
            .take_while(move |bucket| *bucket <= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(id: &str) -> Bucket {
        id.parse().unwrap()
    }

    #[test]
    fn range_contains_its_own_buckets_only() {
        let november = BucketRange::new(bucket("2026-11-01"), bucket("2026-11-30")).unwrap();
        assert!(november.contains(bucket("2026-11-30")));
        assert!(!november.contains(bucket("2026-12-01")));
        assert!(!november.contains(bucket("2026-11")));
        assert!(BucketRange::every(Period::Week).contains(bucket("0001-W01")));
        assert!(BucketRange::new(bucket("2026-11-02"), bucket("2026-11-01")).is_none());
    }

    #[test]
    fn length_is_that_of_the_list() {
        for (first, last) in [
            ("2026-11-20", "2026-11-20"),
            ("2024-01-01", "2026-12-31"),
            ("2024-W52", "2026-W53"),
            ("2024-11", "2026-02"),
            ("1999", "2026"),
            ("all", "all"),
            ("2026-11-20T22", "2026-11-22T03"),
            ("2026-11-20T22:50", "2026-11-21T00:10"),
            ("2026-11-20T23:59:50", "2026-11-21T00:00:10"),
        ] {
            let range = BucketRange::new(bucket(first), bucket(last)).unwrap();
            assert_eq!(range.len(), range.iter().count() as u64, "{first}..{last}");
        }
        assert_eq!(BucketRange::every(Period::Second).len(), 3_652_059 * 86_400);
    }
}
