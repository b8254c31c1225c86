//! Ranges of buckets of one period.

use jiff::tz::TimeZone;

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
}
