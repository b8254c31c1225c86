//! Ranges of buckets of one period.

use std::{fmt, ops::Range};

use jiff::{
    SignedDuration,
    civil::{Date, date},
    tz::TimeZone,
};

use super::{bucket::EPOCH, spans::spans};
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
        let bound =
            |civil| Bucket::of_civil(period, civil).expect("a moment lies in a bucket of every period");
        // The first ISO week that lies in the supported years begins on 0001-01-01, a Monday.
        Self { first: bound(date(1, 1, 1).at(0, 0, 0, 0)), last: bound(date(9999, 12, 31).at(23, 59, 59, 0)) }
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
        (ordinal(self.last) - ordinal(self.first)).unsigned_abs() + 1
    }

    /// Splits the range behind its first `count` buckets, of which there is at least one.
    pub fn split_at(self, count: u64) -> (Self, Option<Self>) {
        let count = i64::try_from(count.max(1)).unwrap_or(i64::MAX);
        match at_ordinal(self.period(), ordinal(self.first).saturating_add(count)) {
            Some(next) if next <= self.last => {
                let before = at_ordinal(self.period(), ordinal(next) - 1).unwrap_or(self.first);
                (Self { first: self.first, last: before }, Some(Self { first: next, last: self.last }))
            }
            _ => (self, None),
        }
    }

    /// Returns the range of the same length that begins `count` buckets later, or earlier if negative; `None` outside the years
    /// 0001 to 9999, and for `all`.
    pub fn shifted(self, count: i64) -> Option<Self> {
        let shifted = |bucket| at_ordinal(self.period(), ordinal(bucket).checked_add(count)?);
        Self::new(shifted(self.first)?, shifted(self.last)?)
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

/// As `2026-11-01..2026-11-30`.
impl fmt::Display for BucketRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.last)
    }
}

/// Returns the number of buckets of the same period since 1970, negative before.
fn ordinal(bucket: Bucket) -> i64 {
    let seconds = bucket.civil_second();
    let start = bucket.start();
    let (year, month) = (i64::from(start.year()), i64::from(start.month()));
    match bucket.period() {
        Period::Second => seconds,
        Period::Minute => seconds.div_euclid(60),
        Period::Hour => seconds.div_euclid(3600),
        Period::Day => seconds.div_euclid(DAY),
        // The first day of 1970 was a Thursday.
        Period::Week => (seconds + 3 * DAY).div_euclid(7 * DAY),
        Period::Month => (year - 1970) * 12 + month - 1,
        Period::Year => year - 1970,
        Period::All => 0,
    }
}

/// Returns the bucket with this [`ordinal`], `None` outside the years 0001 to 9999.
fn at_ordinal(period: Period, ordinal: i64) -> Option<Bucket> {
    let seconds = |length: i64, offset: i64| {
        let second = ordinal.checked_mul(length)?.checked_sub(offset)?;
        // An instant would not do: the last days of 9999 have none in every zone.
        Bucket::of_civil(period, EPOCH.checked_add(SignedDuration::from_secs(second)).ok()?)
    };
    match period {
        Period::Second => seconds(1, 0),
        Period::Minute => seconds(60, 0),
        Period::Hour => seconds(3600, 0),
        Period::Day => seconds(DAY, 0),
        Period::Week => seconds(7 * DAY, 3 * DAY),
        Period::Month | Period::Year => {
            let months = if period == Period::Month { ordinal } else { ordinal.checked_mul(12)? };
            let year = i16::try_from(months.div_euclid(12).checked_add(1970)?).ok()?;
            let month = i8::try_from(months.rem_euclid(12) + 1).ok()?;
            Bucket::of_civil(period, Date::new(year, month, 1).ok()?.into())
        }
        Period::All => (ordinal == 0).then_some(Bucket::ALL),
    }
}

const DAY: i64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(id: &str) -> Bucket {
        id.parse().unwrap()
    }

    #[test]
    fn ranges_are_split_and_shifted_by_counting_buckets() {
        for (first, last) in [
            ("2023-12-28", "2024-03-04"),
            ("1969-12-30", "1970-01-02"),
            ("2026-W51", "2027-W03"),
            ("1969-W50", "1970-W03"),
            ("2024-11", "2026-02"),
            ("1968", "1972"),
            ("2026-11-20T22", "2026-11-21T03"),
            ("1969-12-31T23:58", "1970-01-01T00:02"),
            ("2026-11-20T23:59:58", "2026-11-21T00:00:01"),
            ("9999-12-30", "9999-12-31"),
            ("0001-01-01", "0001-01-03"),
            ("all", "all"),
        ] {
            let range = BucketRange::new(bucket(first), bucket(last)).unwrap();
            let buckets: Vec<_> = range.iter().collect();
            assert_eq!(range.len(), buckets.len() as u64, "{range:?}");
            for at in 1..=buckets.len() + 1 {
                let (head, tail) = range.split_at(at as u64);
                let listed: Vec<_> = head.iter().chain(tail.iter().flat_map(BucketRange::iter)).collect();
                assert_eq!((&listed, head.len()), (&buckets, at.min(buckets.len()) as u64));
            }
            if let Some(later) = range.shifted(3) {
                assert_eq!(later.shifted(-3), Some(range));
                assert_eq!(
                    Some(later.first()),
                    range.first().next().and_then(Bucket::next).and_then(Bucket::next)
                );
            }
        }
        assert_eq!(BucketRange::every(Period::All).shifted(1), None);
        assert_eq!(BucketRange::every(Period::Year).shifted(1), None);
        assert_eq!(BucketRange::every(Period::Second).len(), 315_537_897_600);
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
