//! Schedules: the stored periods of a collection over time, and the buckets of a moment.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::retention::{KeptEra, Retention};
use crate::{Bucket, BucketError, BucketRange, Period};

/// The zone and the stored periods of a collection. They may change: each era has its own.
///
/// An increment is counted in its *counting bucket*, which is so fine that every stored bucket follows from it. It is
/// chosen when counted (I3); [`fan_out`](Self::fan_out) to the stored buckets happens at flush time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// In order, never empty; the first one has no beginning.
    pub(super) eras: Vec<Era>,
    /// The eras in which some period is not kept for ever. They are apart from those of counting: a retention moves no count.
    pub(super) kept: Vec<KeptEra>,
}

/// A time in which zone and stored periods of a collection stay the same. It ends where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Era {
    /// A whole second; [`Timestamp::MIN`] for the first era.
    pub(super) since: Timestamp,
    /// From fine to coarse, never empty, no period twice.
    pub(super) periods: Vec<Period>,
    /// Zone of days and coarser periods.
    pub(super) zone: TimeZone,
}

/// An error: nothing can be counted by such a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The set of periods is empty.
    #[error("a collection needs at least one stored period")]
    NoPeriod,
    /// The zone has rules and no name, so that no store can record it.
    #[error("the time zone has no IANA name")]
    NamelessZone,
    /// A bucket cannot be kept for such a time.
    #[error(
        "buckets of the period `{period}` cannot be kept for that time; allowed: whole seconds from 1 hour to 100 years, and `all` has no end"
    )]
    RetentionRange {
        /// The period.
        period: Period,
    },
    /// A retention names a period that is not stored.
    #[error("a retention is set for the period `{period}`, which is not stored there")]
    RetentionNotStored {
        /// The period.
        period: Period,
    },
}

/// Maximum time until [`Schedule::next_change`], for zones whose rules change while the process runs.
const MAX_UNCHANGED: SignedDuration = SignedDuration::from_hours(24);

impl Schedule {
    /// Returns the schedule of `periods` in `zone`, which never changed.
    ///
    /// # Errors
    /// [`ScheduleError`]: there is no period.
    pub fn new(periods: &[Period], zone: TimeZone) -> Result<Self, ScheduleError> {
        Ok(Self { eras: vec![Era::new(Timestamp::MIN, periods, zone)?], kept: Vec::new() })
    }

    /// Changes the schedule from `era.since` on, which is after the beginning of the last era.
    pub(super) fn change(&mut self, era: Era) {
        if self.eras.last().is_none_or(|last| last.periods != era.periods || last.zone != era.zone) {
            self.eras.push(era);
        }
    }

    /// Returns the periods that are stored at `moment`, from fine to coarse.
    pub fn periods(&self, moment: Timestamp) -> &[Period] {
        &self.era_at(moment).periods
    }

    /// Lists the finest stored period of every era, and the zone of its days. Every count is in a bucket of one of them.
    pub fn finest(&self) -> impl Iterator<Item = (Period, &TimeZone)> {
        self.eras.iter().map(|era| (era.finest(), &era.zone))
    }

    /// Lists all periods that are or were stored, each once.
    pub fn ever_stored(&self) -> BTreeSet<Period> {
        self.eras.iter().flat_map(|era| era.periods.iter().copied()).collect()
    }

    /// Returns true for a period that was stored in every era.
    pub fn has_always_stored(&self, period: Period) -> bool {
        self.eras.iter().all(|era| era.periods.contains(&period))
    }

    /// Returns the counting bucket of an increment at `moment`.
    ///
    /// # Errors
    /// [`BucketError::Year`] when the moment lies outside the years 0001 to 9999.
    pub fn bucket_at(&self, moment: Timestamp) -> Result<Bucket, BucketError> {
        let era = self.era_at(moment);
        if self.eras.len() == 1 && !era.is_mixed() {
            return Bucket::containing(era.nesting_period(), moment, &era.zone);
        }
        // UTC spans, civil days and eras do not nest: cut time at the boundaries of all.
        let mut start = era.since;
        if !era.finest().is_civil() {
            let span = Bucket::containing(era.finest(), moment, &era.zone)?;
            start = start.max(span.start_instant(&era.zone));
        }
        let day = Bucket::containing(Period::Day, moment, &era.zone)?;
        if let Some(midnight) = era.instant_as_at(moment, day) {
            start = start.max(midnight);
        }
        if let Some(change) = era.zone.preceding(moment).next() {
            start = start.max(change.timestamp());
        }
        // A clock change exactly at `moment` does not precede it.
        if let Some(change) = era.zone.following(start).next().filter(|change| change.timestamp() <= moment) {
            start = change.timestamp();
        }
        Bucket::containing(Period::Second, start, &era.zone)
    }

    /// Returns the instant after `moment` until which the counting bucket cannot change.
    pub fn next_change(&self, moment: Timestamp) -> Timestamp {
        let latest = moment.saturating_add(MAX_UNCHANGED).unwrap_or(Timestamp::MAX);
        let Era { zone, .. } = self.era_at(moment);
        let next = |period| Bucket::containing(period, moment, zone).ok().and_then(Bucket::next);
        let midnight = next(Period::Day).and_then(|day| self.era_at(moment).instant_as_at(moment, day));
        let span = next(self.era_at(moment).finest()).filter(|span| !span.period().is_civil());
        let span = span.map(|span| span.start_instant(zone));
        let change = zone.following(moment).next().map(|change| change.timestamp());
        let era = self.eras.iter().map(|era| era.since).find(|since| *since > moment);
        [midnight, span, change, era].into_iter().flatten().fold(latest, Timestamp::min)
    }

    /// Lists the stored buckets that follow from a counting bucket, the finest first.
    pub fn fan_out(&self, counted: Bucket) -> impl Iterator<Item = Bucket> + '_ {
        let era = match counted.period() {
            Period::Second => self.era_at(counted.start_instant(&TimeZone::UTC)),
            // With several eras every counting bucket is a second. This one is older than the second era.
            _ => &self.eras[0],
        };
        era.periods.iter().filter_map(move |&period| counted.rollup(period, &era.zone))
    }

    /// Lists the stored buckets that follow from a counting bucket and have not expired at `now`, the finest first; all of them where
    /// all have expired, so that no delta is lost on its way. Those that are left out are refused by every reader.
    pub fn fan_out_kept(&self, counted: Bucket, now: Timestamp) -> Vec<Bucket> {
        let mut buckets: Vec<_> = self.fan_out(counted).collect();
        if !self.kept.is_empty() && buckets.iter().any(|bucket| !self.has_expired(*bucket, now)) {
            buckets.retain(|bucket| !self.has_expired(*bucket, now));
        }
        buckets
    }

    /// Returns true where every stored bucket that follows from a counting bucket has expired at `now`.
    pub fn has_expired_everywhere(&self, counted: Bucket, now: Timestamp) -> bool {
        !self.kept.is_empty() && self.fan_out(counted).all(|bucket| self.has_expired(bucket, now))
    }

    /// Returns true where `bucket` has expired at `now`: a reader refuses it, and a store may have removed it. A bucket that has
    /// expired stays so, whatever is changed.
    ///
    /// A bucket expires when, after its end, the shortest time has passed that was ever in effect for its period since it began, or
    /// up to a day before: a writer may have begun it before it learned of a longer one.
    pub fn has_expired(&self, bucket: Bucket, now: Timestamp) -> bool {
        self.kept_from(bucket.period(), now).is_some_and(|first| bucket < first)
    }

    /// Returns the first bucket of `period` that has not expired at `now`, `None` where none ever does.
    pub fn kept_from(&self, period: Period, now: Timestamp) -> Option<Bucket> {
        self.kept.iter().filter_map(|era| era.kept_from(period, now)).max()
    }

    /// Returns the moment from which on `bucket` has expired, as far as is known by now; `None` if it is kept for ever.
    pub fn expires_at(&self, bucket: Bucket) -> Option<Timestamp> {
        self.kept.iter().filter_map(|era| era.expires_at(bucket)).min()
    }

    /// Returns the retention at `moment`.
    pub fn retention(&self, moment: Timestamp) -> Retention {
        let era = self.kept.iter().find(|era| era.since <= moment && moment < era.until);
        era.map(|era| era.retention.clone()).unwrap_or_default()
    }

    /// Returns true where some bucket expires at some time.
    pub fn expires(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Returns true where counts of `bucket` that were made until `moment` are what `other` would have counted.
    pub fn counts_like(&self, other: &Self, bucket: Bucket, moment: Timestamp) -> bool {
        let eras = |schedule: &Self| {
            let touched = schedule.touched(BucketRange::one(bucket));
            let until = touched.iter().filter(|touched| touched.from <= moment.as_second()).enumerate();
            // The bucket begins at the same instant, if it is in the same zone.
            let eras = until
                .map(|(at, touched)| (if at == 0 { i64::MIN } else { touched.from }, touched.era.clone()));
            eras.map(|(from, era)| (from, era.periods, era.zone)).collect::<Vec<_>>()
        };
        eras(self) == eras(other)
    }

    pub(super) fn era_at(&self, moment: Timestamp) -> &Era {
        match &self.eras[..] {
            [only] => only,
            eras => &eras[eras.partition_point(|era| era.since <= moment).saturating_sub(1)],
        }
    }
}

impl Era {
    pub(super) fn new(since: Timestamp, periods: &[Period], zone: TimeZone) -> Result<Self, ScheduleError> {
        let mut periods = periods.to_vec();
        periods.sort_unstable();
        periods.dedup();
        if periods.is_empty() { Err(ScheduleError::NoPeriod) } else { Ok(Self { since, periods, zone }) }
    }

    fn finest(&self) -> Period {
        self.periods[0]
    }

    /// Returns the instant at which a civil bucket begins, by the zone's offset at `moment`. Where clocks are set back over
    /// midnight, a day begins twice, and the offset selects which of the two.
    fn instant_as_at(&self, moment: Timestamp, bucket: Bucket) -> Option<Timestamp> {
        self.zone.to_offset(moment).to_timestamp(bucket.start()).ok()
    }

    /// Returns true where both UTC spans and civil spans are stored.
    fn is_mixed(&self) -> bool {
        let civil = self.periods.iter().any(|p| p.is_civil() && *p != Period::All);
        civil && !self.finest().is_civil()
    }

    /// The finest stored period, or a day where weeks are stored beside months or years, which do not contain them.
    fn nesting_period(&self) -> Period {
        match self.finest() {
            Period::Week if self.periods.iter().any(|p| matches!(p, Period::Month | Period::Year)) => {
                Period::Day
            }
            finest => finest,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn daily_counters_are_counted_by_day() {
        let schedule = Schedule::new(&[Period::Day], TimeZone::get("Europe/Berlin").unwrap()).unwrap();
        let moment: Timestamp = "2026-10-25T22:59:59.999Z".parse().unwrap();
        assert_eq!(schedule.bucket_at(moment).unwrap().to_string(), "2026-10-25");
        assert_eq!(schedule.next_change(moment), "2026-10-25T23:00:00Z".parse().unwrap());
    }

    #[test]
    fn weeks_beside_months_are_counted_by_day() {
        let schedule = Schedule::new(&[Period::Month, Period::Week], TimeZone::UTC).unwrap();
        let counted = schedule.bucket_at("2026-12-01T10:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(
            schedule.fan_out(counted).map(|b| b.to_string()).collect::<Vec<_>>(),
            ["2026-W49", "2026-12"]
        );
    }

    #[test]
    fn schedule_needs_a_period() {
        assert!(Schedule::new(&[], TimeZone::UTC).is_err());
    }

    const ZONES: [&str; 7] = [
        "UTC",
        "Europe/Berlin",
        "Asia/Kolkata",
        "America/St_Johns",
        "America/Sao_Paulo",
        "Pacific/Apia",
        "Australia/Lord_Howe",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// For all sets of periods and zones, the counting bucket fans out to the buckets that contain the moment, and it
        /// stays the same until the announced change.
        #[test]
        fn fan_out_gives_the_buckets_of_the_moment(
            mask in 1..256_u32, zone in 0..ZONES.len(), seconds in 400_000_000_i64..2_200_000_000, later in 0..100_i64,
        ) {
            check(mask, ZONES[zone], Timestamp::from_second(seconds).unwrap(), later)?;
        }

        /// Random moments are rarely near a clock change.
        #[test]
        fn fan_out_is_exact_around_clock_changes(
            mask in 1..256_u32, zone in 1..ZONES.len(), seconds in 400_000_000_i64..2_200_000_000, around in -9_000..9_000_i64,
            later in 0..100_i64,
        ) {
            let before = Timestamp::from_second(seconds).unwrap();
            let rules = TimeZone::get(ZONES[zone]).unwrap();
            let change = rules.preceding(before).next().map_or(seconds, |change| change.timestamp().as_second());
            check(mask, ZONES[zone], Timestamp::from_second(change + around).unwrap(), later)?;
        }
    }

    fn check(mask: u32, zone: &str, moment: Timestamp, later: i64) -> Result<(), TestCaseError> {
        let zone = TimeZone::get(zone).unwrap();
        let periods: Vec<_> = Period::ALL.into_iter().filter(|p| mask & (1 << *p as u32) != 0).collect();
        let schedule = Schedule::new(&periods, zone.clone()).unwrap();
        let counted = schedule.bucket_at(moment).unwrap();
        let expected: Vec<_> =
            periods.iter().map(|p| Bucket::containing(*p, moment, &zone).unwrap()).collect();
        prop_assert_eq!(schedule.fan_out(counted).collect::<Vec<_>>(), expected);

        let end = schedule.next_change(moment);
        prop_assert!(end > moment);
        let within = (end.as_second() - moment.as_second() - 1) * later / 99;
        let still = Timestamp::from_second(moment.as_second() + within).unwrap();
        prop_assert_eq!(schedule.bucket_at(still).unwrap(), counted);
        Ok(())
    }

    #[test]
    fn repeated_day_ends_at_its_second_midnight() {
        // At 00:01 on the 4th the clocks of St. John's were set back to 23:01 on the 3rd.
        let zone = TimeZone::get("America/St_Johns").unwrap();
        let moment: Timestamp = "2007-11-04T02:45:00Z".parse().unwrap();
        let after: Timestamp = "2007-11-04T03:45:00Z".parse().unwrap();
        let daily = Schedule::new(&[Period::Day], zone.clone()).unwrap();
        assert_eq!(daily.bucket_at(moment).unwrap().to_string(), "2007-11-03");
        assert_eq!(daily.next_change(moment), "2007-11-04T03:30:00Z".parse().unwrap());
        let mixed = Schedule::new(&[Period::Hour, Period::Day], zone).unwrap();
        let buckets = |moment| -> Vec<_> {
            mixed.fan_out(mixed.bucket_at(moment).unwrap()).map(|bucket| bucket.to_string()).collect()
        };
        assert_eq!(buckets(moment), ["2007-11-04T02", "2007-11-03"]);
        assert_eq!(buckets(after), ["2007-11-04T03", "2007-11-04"]);
    }
}
