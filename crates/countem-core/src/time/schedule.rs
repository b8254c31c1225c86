//! Schedules: the stored periods of a collection, and the buckets of a moment.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::{Bucket, BucketError, CollectionName, Period};

/// The stored periods of a collection in one time zone.
///
/// An increment is counted in its *counting bucket*, which is so fine that every stored bucket follows from it. It is
/// chosen when counted (I3); [`fan_out`](Self::fan_out) to the stored buckets happens at flush time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// From fine to coarse, never empty, no period twice.
    periods: Vec<Period>,
    zone: TimeZone,
}

/// An error: the set of periods is empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a collection needs at least one stored period")]
pub struct ScheduleError;

/// Maximum time until [`Schedule::next_change`], for zones whose rules change while the process runs.
const MAX_UNCHANGED: SignedDuration = SignedDuration::from_hours(24);

impl Schedule {
    /// Returns the schedule of `periods` in `zone`.
    ///
    /// # Errors
    /// [`ScheduleError`] when there is no period.
    pub fn new(periods: &[Period], zone: TimeZone) -> Result<Self, ScheduleError> {
        let mut periods = periods.to_vec();
        periods.sort_unstable();
        periods.dedup();
        if periods.is_empty() { Err(ScheduleError) } else { Ok(Self { periods, zone }) }
    }

    /// Returns the stored periods from fine to coarse.
    pub fn periods(&self) -> &[Period] {
        &self.periods
    }

    /// Returns the zone of days and coarser periods.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Returns the counting bucket of an increment at `moment`.
    ///
    /// # Errors
    /// [`BucketError::Year`] when the moment lies outside the years 0001 to 9999.
    pub fn bucket_at(&self, moment: Timestamp) -> Result<Bucket, BucketError> {
        let finest = self.periods[0];
        if !self.is_mixed() {
            return Bucket::containing(self.nesting_period(), moment, &self.zone);
        }
        // UTC spans and civil days do not nest: cut time at the boundaries of both.
        let span = Bucket::containing(finest, moment, &self.zone)?;
        let day = Bucket::containing(Period::Day, moment, &self.zone)?;
        let mut start = span.start_instant(&self.zone);
        if let Some(midnight) = self.instant_as_at(moment, day) {
            start = start.max(midnight);
        }
        if let Some(change) = self.zone.preceding(moment).next() {
            start = start.max(change.timestamp());
        }
        // A clock change exactly at `moment` does not precede it.
        if let Some(change) = self.zone.following(start).next().filter(|change| change.timestamp() <= moment)
        {
            start = change.timestamp();
        }
        Bucket::containing(Period::Second, start, &self.zone)
    }

    /// Returns the instant after `moment` until which the counting bucket cannot change.
    pub fn next_change(&self, moment: Timestamp) -> Timestamp {
        let latest = moment.saturating_add(MAX_UNCHANGED).unwrap_or(Timestamp::MAX);
        let next = |period| Bucket::containing(period, moment, &self.zone).ok().and_then(Bucket::next);
        let midnight = next(Period::Day).and_then(|day| self.instant_as_at(moment, day));
        let span = next(self.periods[0]).filter(|span| !span.period().is_civil());
        let span = span.map(|span| span.start_instant(&self.zone));
        let change = self.zone.following(moment).next().map(|change| change.timestamp());
        [midnight, span, change].into_iter().flatten().fold(latest, Timestamp::min)
    }

    /// Returns the instant at which a civil bucket begins, by the zone's offset at `moment`. Where clocks are set back over
    /// midnight, a day begins twice, and the offset selects which of the two.
    fn instant_as_at(&self, moment: Timestamp, bucket: Bucket) -> Option<Timestamp> {
        self.zone.to_offset(moment).to_timestamp(bucket.start()).ok()
    }

    /// Lists the stored buckets that follow from a counting bucket, the finest first.
    pub fn fan_out(&self, counted: Bucket) -> impl Iterator<Item = Bucket> + '_ {
        self.periods.iter().filter_map(move |&period| counted.rollup(period, &self.zone))
    }

    /// Returns true for schedules that store both UTC spans and civil spans.
    fn is_mixed(&self) -> bool {
        let civil = self.periods.iter().any(|p| p.is_civil() && *p != Period::All);
        civil && !self.periods[0].is_civil()
    }

    /// The finest stored period, or a day where weeks are stored beside months or years, which do not contain them.
    fn nesting_period(&self) -> Period {
        match self.periods[0] {
            Period::Week if self.periods.iter().any(|p| matches!(p, Period::Month | Period::Year)) => {
                Period::Day
            }
            finest => finest,
        }
    }
}

/// The schedule of every collection: one for all, with exceptions for single collections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedules {
    default: Schedule,
    own: BTreeMap<CollectionName, Schedule>,
}

impl Schedules {
    /// Returns schedules that store `periods` in `zone`, and the periods of `own` for the collections named there.
    ///
    /// # Errors
    /// [`ScheduleError`] when a set of periods is empty.
    pub fn new(
        zone: &TimeZone,
        periods: &[Period],
        own: &BTreeMap<CollectionName, Vec<Period>>,
    ) -> Result<Self, ScheduleError> {
        let default = Schedule::new(periods, zone.clone())?;
        let own = own.iter().map(|(name, periods)| Ok((name.clone(), Schedule::new(periods, zone.clone())?)));
        Ok(Self { default, own: own.collect::<Result<_, ScheduleError>>()? })
    }

    /// Returns the schedule of `collection`.
    pub fn of(&self, collection: &str) -> &Schedule {
        if self.own.is_empty() {
            return &self.default;
        }
        self.own.get(collection).unwrap_or(&self.default)
    }

    /// Returns the schedule of the collections without an exception.
    pub fn default_schedule(&self) -> &Schedule {
        &self.default
    }

    /// Lists the collections that have a schedule of their own.
    pub fn exceptions(&self) -> impl ExactSizeIterator<Item = (&CollectionName, &Schedule)> {
        self.own.iter()
    }

    /// Returns the zone of days and coarser periods.
    pub fn zone(&self) -> &TimeZone {
        self.default.zone()
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
