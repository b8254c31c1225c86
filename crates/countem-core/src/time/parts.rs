//! The stored buckets that add up to requested ones.

use jiff::{Timestamp, tz::TimeZone};

use super::{
    schedule::{Era, Schedule},
    spans::{Span, instant, spans},
};
use crate::{Bucket, BucketRange, Period};

/// Stored buckets that hold counts of requested ones. Each holds those of one requested bucket only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    range: BucketRange,
    /// Only the buckets that begin here belong to the part; empty when all of the range do.
    within: Vec<Span>,
    zone: TimeZone,
}

/// An error: the counts of a bucket do not follow exactly from what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotExact {
    /// The stored periods do not add up to it.
    NotStored {
        /// The stored periods, from fine to coarse.
        stored: Vec<Period>,
    },
    /// The stored periods changed, and those of before or after do not add up to it.
    PeriodsChanged {
        /// The beginning of the new periods.
        since: Timestamp,
    },
    /// The zone changed inside it.
    ZoneChanged {
        /// The beginning of the new zone.
        since: Timestamp,
    },
}

impl Part {
    /// Returns the range of stored buckets to read.
    pub fn range(&self) -> BucketRange {
        self.range
    }

    /// Returns the bucket of `period` whose counts the stored bucket `stored` holds, `None` when it is not of this part.
    pub fn bucket(&self, stored: Bucket, period: Period) -> Option<Bucket> {
        let second = || stored.start_instant(&self.zone).as_second();
        let belongs = self.within.is_empty() || self.within.iter().any(|span| span.contains(&second()));
        belongs.then(|| stored.rollup(period, &self.zone)).flatten()
    }
}

/// An era that a range of buckets touches.
pub(super) struct Touched<'a> {
    pub(super) era: &'a Era,
    /// The first second of the era, and the first one after it.
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Schedule {
    /// Returns the stored buckets that hold the counts of the buckets of `range`, and no others.
    ///
    /// # Errors
    /// The first bucket that does not follow exactly from what is stored, and why. A range across a change of the zone is refused
    /// as a whole.
    pub fn parts(&self, range: BucketRange) -> Result<Vec<Part>, (Bucket, NotExact)> {
        let touched = self.touched(range);
        let first = touched.first().map_or(&self.eras[0], |touched| touched.era);
        let is_civil = range.period().is_civil() && range.period() != Period::All;
        if is_civil {
            let other = touched.iter().find(|touched| touched.era.zone != first.zone);
            let missed = self.missed(range, &touched, &first.zone);
            if let Some(since) = other.map(|other| other.era.since).or(missed) {
                return Err((range.first(), NotExact::ZoneChanged { since }));
            }
        }
        if let Some(part) = self.whole_part(range, &touched) {
            return Ok(vec![part]);
        }
        let is_one = range.first() == range.last();
        if is_one && is_civil && spans(range, &first.zone).is_empty() {
            // A day that a change of the date line left out.
            return Ok(Vec::new());
        }
        if is_one || !is_civil {
            let parts: Option<Vec<_>> =
                touched.iter().map(|era| self.part_of_era(range, era, &touched)).collect();
            return parts.ok_or_else(|| (range.first(), not_exact(&touched)));
        }
        // UTC spans nest in some civil buckets and not in others.
        let mut parts: Vec<Part> = Vec::new();
        for bucket in range.iter() {
            for part in self.parts(BucketRange::one(bucket))? {
                match parts.last_mut() {
                    Some(last) if last.continues_in(&part) => {
                        last.range =
                            BucketRange::new(last.range.first(), part.range.last()).unwrap_or(last.range);
                    }
                    _ => parts.push(part),
                }
            }
        }
        Ok(parts)
    }

    /// Lists the eras in which counts of `range` were made.
    pub(super) fn touched(&self, range: BucketRange) -> Vec<Touched<'_>> {
        let ends = self.eras[1..].iter().map(|era| era.since.as_second()).chain([i64::MAX]);
        let eras = self.eras.iter().zip(ends).enumerate().map(|(at, (era, until))| {
            let from = if at == 0 { i64::MIN } else { era.since.as_second() };
            Touched { era, from, until }
        });
        eras.filter(|touched| {
            let meets = |span: &Span| span.start < touched.until && touched.from < span.end;
            self.eras.len() == 1 || spans(range, &touched.era.zone).iter().any(meets)
        })
        .collect()
    }

    /// Returns the beginning of an era of another zone than `zone` that holds some of the instants of `range` in `zone`.
    fn missed(&self, range: BucketRange, touched: &[Touched<'_>], zone: &TimeZone) -> Option<Timestamp> {
        let (Some(first), Some(last), false) = (touched.first(), touched.last(), self.eras.len() == 1) else {
            return None;
        };
        let spans = spans(range, zone);
        let (start, end) = (spans.first()?.start, spans.last()?.end);
        if start < first.from {
            return Some(first.era.since);
        }
        let gap = touched.windows(2).find(|pair| pair[0].until != pair[1].from);
        gap.map(|pair| pair[0].until).or((last.until < end).then_some(last.until)).map(instant)
    }

    /// Returns the buckets of the coarsest period that is stored in all eras and nests in every bucket of `range`.
    fn whole_part(&self, range: BucketRange, touched: &[Touched<'_>]) -> Option<Part> {
        let era = touched.first()?.era;
        let is_stored = |period: Period| touched.iter().all(|touched| touched.era.periods.contains(&period));
        let mut periods = era.periods.iter().rev().copied().filter(|period| is_stored(*period));
        let period = periods.find(|period| nests(*period, range, &era.zone))?;
        Part::new(period, range, i64::MIN..i64::MAX, &era.zone)
    }

    /// Returns the buckets that hold the counts of `range` of one era, none of which holds counts of another era.
    fn part_of_era(&self, range: BucketRange, touched: &Touched<'_>, all: &[Touched<'_>]) -> Option<Part> {
        let (era, zone) = (touched.era, &touched.era.zone);
        let is_shared = |bucket: Bucket| {
            self.touched(BucketRange::one(bucket))
                .iter()
                .any(|other| other.from != touched.from && other.era.periods.contains(&bucket.period()))
        };
        // The same id may stand for a bucket of another zone, which begins up to two days earlier or later.
        let near = [
            touched.from,
            touched.from.saturating_add(30 * 3600),
            touched.until.saturating_sub(30 * 3600),
            touched.until.saturating_sub(1),
        ];
        let near = near.map(|second| second.clamp(touched.from, touched.until.saturating_sub(1)));
        let is_apart = |period| {
            all.len() == 1
                || near.iter().all(|second| {
                    let bucket = Bucket::containing(period, instant(*second), zone);
                    bucket.map_or(true, |bucket| !is_shared(bucket))
                })
        };
        let mut periods = era.periods.iter().rev().copied();
        let period = periods.find(|period| nests(*period, range, zone) && is_apart(*period))?;
        Part::new(period, range, touched.from..touched.until, zone)
    }
}

impl Part {
    /// Returns the buckets of `period`, which nests in every bucket of `range`, that begin or end in `era`.
    fn new(period: Period, range: BucketRange, era: Span, zone: &TimeZone) -> Option<Self> {
        let is_whole = era == (i64::MIN..i64::MAX);
        let part = |range, within| Some(Self { range, within, zone: zone.clone() });
        if period == range.period() && is_whole {
            return part(range, Vec::new());
        }
        if period.is_civil() && range.period() != Period::All && is_whole {
            let first = Bucket::of_civil(period, range.first().start())?;
            let end = range.last().next()?.start();
            let last = Bucket::of_civil(period, end.saturating_sub(jiff::SignedDuration::from_secs(1)))?;
            return part(BucketRange::new(first, last)?, Vec::new());
        }
        let every = BucketRange::every(period);
        let spans = spans(range, zone);
        let start = spans.first()?.start.max(era.start);
        let end = spans.last()?.end.min(era.end);
        let bucket = |second: i64, otherwise| match second {
            i64::MIN | i64::MAX => otherwise,
            _ => Bucket::containing(period, instant(second), zone).unwrap_or(otherwise),
        };
        let last = if end == i64::MAX { every.last() } else { bucket(end - 1, every.last()) };
        let range = BucketRange::new(bucket(start, every.first()), last)?;
        part(range, if spans.len() > 1 { spans } else { Vec::new() })
    }

    fn continues_in(&self, next: &Self) -> bool {
        self.within.is_empty()
            && next.within.is_empty()
            && self.range.last().next() == Some(next.range.first())
            && self.zone == next.zone
    }
}

/// Returns true where every bucket of `period` lies in one bucket of the period of `range`, as far as they meet `range`.
fn nests(period: Period, range: BucketRange, zone: &TimeZone) -> bool {
    let requested = range.period();
    if period == requested || requested == Period::All {
        return true;
    }
    if period > requested || period == Period::Week {
        return false;
    }
    if period.is_civil() || !requested.is_civil() {
        return true;
    }
    let seconds = match period {
        Period::Hour => 3600,
        Period::Minute => 60,
        _ => 1,
    };
    let is_boundary = |second: i64| second.rem_euclid(seconds) == 0;
    range.first() == range.last()
        && spans(range, zone).iter().all(|span| is_boundary(span.start) && is_boundary(span.end))
}

fn not_exact(touched: &[Touched<'_>]) -> NotExact {
    match touched {
        [only] => NotExact::NotStored { stored: only.era.periods.clone() },
        [_, second, ..] => NotExact::PeriodsChanged { since: second.era.since },
        [] => NotExact::NotStored { stored: Vec::new() },
    }
}

#[cfg(test)]
mod tests;
