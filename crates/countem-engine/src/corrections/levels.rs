//! The stored periods of a collection, and the buckets to which a correction goes.
//!
//! Every stored period has to stay the sum of its parts, also beside writers that count on. So a correction reads the finest buckets
//! that hold a count, and adds what it takes from them to all coarser buckets that contain them, in the same batch, as an
//! increment does. A coarser bucket is read on its own only where finer ones do not hold all of its counts: their retention is over,
//! or they are stored since later, or do not nest in it.

use std::ops::Range;

use countem_core::{
    Bucket, BucketRange, Period, Schedule,
    jiff::{Timestamp, tz::TimeZone},
};

/// The stored periods, from fine to coarse.
#[derive(Debug)]
pub(super) struct Levels {
    pub(super) levels: Vec<Level>,
    zone: TimeZone,
    /// The corrected instants, in seconds since 1970; `None` for all.
    span: Option<Range<i64>>,
}

/// A stored period.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) period: Period,
    /// A finer period, and the instant from which on its buckets hold all counts of this one.
    parent: Option<(Period, i64)>,
    kept_from: Option<Bucket>,
}

impl Levels {
    pub(super) fn new(schedule: &Schedule, span: Option<(i64, i64)>, now: Timestamp) -> Self {
        let zone = schedule.last_zone().clone();
        let stored: Vec<_> = schedule.ever_stored().into_iter().collect();
        let level = |period: Period| {
            let parents = stored.iter().rev().filter(|finer| **finer < period).filter_map(|finer| {
                let nested = schedule.nested_since(*finer, period)?;
                let kept = schedule.kept_from(*finer, now).map_or(nested, |kept| kept.start_instant(&zone));
                Some((*finer, nested.max(kept).as_second()))
            });
            Level {
                period,
                parent: parents.min_by_key(|(_, since)| *since),
                kept_from: schedule.kept_from(period, now),
            }
        };
        let levels = stored.iter().map(|period| level(*period)).collect();
        Self { levels, zone, span: span.map(|(from, until)| from..until) }
    }

    fn start(&self, bucket: Bucket) -> i64 {
        bucket.start_instant(&self.zone).as_second()
    }

    fn end(&self, bucket: Bucket) -> i64 {
        bucket.next().map_or(i64::MAX, |next| self.start(next))
    }

    /// Returns true where all of `bucket` is corrected.
    pub(super) fn is_whole(&self, bucket: Bucket) -> bool {
        self.span.as_ref().is_none_or(|span| span.start <= self.start(bucket) && self.end(bucket) <= span.end)
    }

    /// Returns true where the corrected part of `bucket` is the sum of buckets of the finer period.
    fn is_explained(&self, level: &Level, bucket: Bucket) -> bool {
        let start = self.start(bucket).max(self.span.as_ref().map_or(i64::MIN, |span| span.start));
        level.parent.is_some_and(|(_, since)| since <= start)
    }

    fn is_kept(level: &Level, bucket: Bucket) -> bool {
        level.kept_from.is_none_or(|kept_from| bucket >= kept_from)
    }

    /// Returns true for a bucket that is corrected on its own.
    pub(super) fn is_own(&self, bucket: Bucket) -> bool {
        let level = self.levels.iter().find(|level| level.period == bucket.period());
        level.is_some_and(|level| {
            Self::is_kept(level, bucket) && self.is_whole(bucket) && !self.is_explained(level, bucket)
        })
    }

    /// Returns `bucket`, which is corrected on its own, and the coarser ones that contain it and are not.
    pub(super) fn reached(&self, bucket: Bucket) -> Vec<Bucket> {
        let mut reached = vec![bucket];
        for level in self.levels.iter().filter(|level| level.period > bucket.period()) {
            let Some((parent, _)) = level.parent else { continue };
            let part = reached.iter().find(|reached| reached.period() == parent);
            let whole = part.and_then(|part| part.rollup(level.period, &self.zone));
            reached.extend(
                whole.filter(|whole| Self::is_kept(level, *whole) && self.is_explained(level, *whole)),
            );
        }
        reached
    }

    /// Returns the kept buckets of a period that the correction touches.
    pub(super) fn touched(&self, level: &Level) -> Option<BucketRange> {
        let every = BucketRange::every(level.period);
        let mut range = every;
        if let Some(span) = &self.span {
            let first = self.bucket_at(level.period, span.start).unwrap_or(every.first());
            let last = self.bucket_at(level.period, span.end - 1).unwrap_or(every.last());
            range = BucketRange::new(first, last)?;
        }
        match level.kept_from {
            Some(kept_from) => BucketRange::new(range.first().max(kept_from), range.last()),
            None => Some(range),
        }
    }

    /// Returns buckets of a period among which are all that are corrected on their own.
    pub(super) fn own(&self, level: &Level) -> Option<BucketRange> {
        let touched = self.touched(level)?;
        let Some((_, since)) = level.parent else { return Some(touched) };
        if self.is_explained(level, touched.first()) {
            return None;
        }
        // Those that begin earlier.
        let last = self.bucket_at(level.period, since - 1).unwrap_or(touched.last());
        BucketRange::new(touched.first(), last.min(touched.last()))
    }

    /// Lists the buckets of which a part is corrected that is not the sum of whole finer ones.
    pub(super) fn inexact(&self) -> impl Iterator<Item = Bucket> {
        self.levels.iter().flat_map(|level| {
            let ends = self.touched(level).map(|range| [range.first(), range.last()]);
            ends.into_iter()
                .flatten()
                .filter(|bucket| !self.is_whole(*bucket) && !self.is_explained(level, *bucket))
        })
    }

    fn bucket_at(&self, period: Period, second: i64) -> Option<Bucket> {
        Bucket::containing(period, Timestamp::from_second(second).ok()?, &self.zone).ok()
    }
}
