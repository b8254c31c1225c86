//! The counting bucket of a moment, remembered from line to line.

use countem_core::{Bucket, Schedule};
use jiff::Timestamp;

use crate::ingest::added;

/// Finds the counting bucket of a moment and remembers the last few buckets with the seconds they hold.
///
/// Neighbouring lines lie in the same bucket, or go back and forth between two around midnight.
#[derive(Debug)]
pub(crate) struct BucketCache {
    schedule: Schedule,
    entries: [Entry; 4],
    /// Index of the entry of the current moment.
    current: usize,
    /// Index of the entry to replace next.
    oldest: usize,
}

/// Every second from `from` to before `until` is counted in `bucket`.
#[derive(Debug, Clone, Copy)]
struct Entry {
    from: i64,
    until: i64,
    bucket: Bucket,
    /// Hash of the bucket.
    hash: u64,
    /// Every stored bucket that follows from it had expired when it was learnt.
    has_expired: bool,
}

impl BucketCache {
    /// Returns an empty cache for `schedule`.
    pub(crate) fn new(schedule: Schedule) -> Self {
        let empty = Entry { from: 0, until: 0, bucket: Bucket::ALL, hash: 0, has_expired: false };
        Self { schedule, entries: [empty; 4], current: 0, oldest: 0 }
    }

    /// Returns the schedule.
    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Returns the bucket of the moment to which the cache was moved.
    #[inline]
    pub(crate) fn bucket(&self) -> Bucket {
        self.entries[self.current].bucket
    }

    /// Returns the hash of that bucket.
    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        self.entries[self.current].hash
    }

    /// Returns true where no count of that moment is kept.
    #[inline]
    pub(crate) fn has_expired(&self) -> bool {
        self.entries[self.current].has_expired
    }

    /// Moves to the bucket in which `second` is counted; `None` outside the years 0001 to 9999.
    #[inline]
    pub(crate) fn move_to(&mut self, second: i64) -> Option<()> {
        let holds = |entry: &Entry| entry.from <= second && second < entry.until;
        if !holds(&self.entries[self.current]) {
            self.current = match self.entries.iter().position(holds) {
                Some(known) => known,
                None => self.learn(second)?,
            };
        }
        Some(())
    }

    /// Returns the index of the entry for a further moment.
    #[cold]
    fn learn(&mut self, second: i64) -> Option<usize> {
        let moment = Timestamp::from_second(second).ok()?;
        let bucket = self.schedule.bucket_at(moment).ok()?;
        let until = self.schedule.next_change(moment).as_second();
        let known = self.entries.iter().position(|entry| entry.bucket == bucket && entry.until == until);
        if let Some(known) = known {
            let entry = &mut self.entries[known];
            entry.from = entry.from.min(second);
            return Some(known);
        }
        let index = self.oldest;
        let has_expired = self.schedule.has_expired_everywhere(bucket, Timestamp::now());
        let hash = added::of_bucket(bucket);
        self.entries[index] = Entry { from: second, until, bucket, hash, has_expired };
        self.oldest = (index + 1) % self.entries.len();
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use countem_core::Period;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cached_buckets_agree_with_the_schedule(
            mask in 1..256_u32, start in 1_000_000_000_i64..2_000_000_000, steps in prop::collection::vec(-100_000_i64..100_000, 1..200),
        ) {
            let periods: Vec<_> = Period::ALL.into_iter().filter(|p| mask & (1 << *p as u32) != 0).collect();
            let schedule = Schedule::new(&periods, TimeZone::get("Australia/Lord_Howe").unwrap()).unwrap();
            let mut buckets = BucketCache::new(schedule.clone());
            for step in steps {
                let moment = Timestamp::from_second(start + step).unwrap();
                prop_assert_eq!(buckets.move_to(start + step), Some(()));
                prop_assert_eq!(buckets.bucket(), schedule.bucket_at(moment).unwrap());
            }
        }
    }

    #[test]
    fn moment_outside_the_years_has_no_bucket() {
        let mut buckets = BucketCache::new(Schedule::new(&[Period::Day], TimeZone::UTC).unwrap());
        assert_eq!(buckets.move_to(i64::MAX), None);
        assert_eq!(buckets.move_to(-80_000_000_000), None);
        assert!(buckets.move_to(0).is_some());
    }
}
