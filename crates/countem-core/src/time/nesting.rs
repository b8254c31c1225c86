//! Stored periods whose buckets add up to those of another one.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{
    parts::Touched,
    schedule::Schedule,
    spans::{instant, spans},
};
use crate::{Bucket, BucketRange, Period};

/// The last instant of clocks that were off by parts of a minute, in Liberia.
const WHOLE_OFFSETS: i64 = 2 * 365 * 24 * 3600 + 7 * 24 * 3600;
/// Maximum difference between the beginnings of buckets with the same id in two zones, with some to spare.
const ZONES_APART: SignedDuration = SignedDuration::from_hours(48);
/// Instant until which the changes of a zone's clocks are looked at.
const LAST_CHANGE: i64 = 4_102_444_800;

impl Schedule {
    /// Returns the instant from which on the buckets of `fine` hold all counts that those of the coarser period `coarse` hold, and each lies in
    /// one of them; `None` where that is not so at the end of time.
    ///
    /// Counts in buckets that began before may be in other periods, or in buckets of another zone.
    pub fn nested_since(&self, fine: Period, coarse: Period) -> Option<Timestamp> {
        let last = self.eras.last()?;
        let zone = &last.zone;
        if fine >= coarse || !nests(fine, coarse, zone) {
            return None;
        }
        let alike = self.eras.iter().rev().take_while(|era| {
            era.zone == *zone && era.periods.contains(&fine) && era.periods.contains(&coarse)
        });
        let since = alike.last()?.since;
        let since = since.max(self.zone_since());
        let is_utc_in_days = !fine.is_civil() && fine != Period::Second && coarse.is_civil();
        if is_utc_in_days && coarse != Period::All && !is_utc(zone) {
            return Some(since.max(Timestamp::from_second(WHOLE_OFFSETS).unwrap_or(since)));
        }
        Some(since)
    }

    /// Returns true where some moment is counted in `bucket`: not for days that a zone left out, the first and the last hours of the
    /// calendar of instants, and buckets of a period that is not stored then.
    pub fn counts_in(&self, bucket: Bucket) -> bool {
        let range = BucketRange::one(bucket);
        let is_counted = |touched: &Touched<'_>, second: i64| {
            let moment = instant(second);
            Bucket::containing(bucket.period(), moment, &touched.era.zone) == Ok(bucket)
                && self.bucket_at(moment).is_ok()
        };
        let touched = self.touched(range);
        touched.iter().filter(|touched| touched.era.periods.contains(&bucket.period())).any(|touched| {
            spans(range, &touched.era.zone).iter().any(|span| {
                let (first, last) = (span.start.max(touched.from), span.end.min(touched.until) - 1);
                first <= last && (is_counted(touched, first) || is_counted(touched, last))
            })
        })
    }

    /// Returns the instant from which on no bucket holds a count of another zone than the last one.
    pub fn zone_since(&self) -> Timestamp {
        let zone = self.eras.last().map(|era| &era.zone);
        let other = self.eras.iter().rposition(|era| Some(&era.zone) != zone);
        let since = other.and_then(|other| self.eras.get(other + 1)).map(|era| era.since);
        since.map_or(Timestamp::MIN, |since| since.saturating_add(ZONES_APART).unwrap_or(Timestamp::MAX))
    }

    /// Returns the zone of days and coarser periods in the last era.
    pub fn last_zone(&self) -> &TimeZone {
        &self.eras[self.eras.len() - 1].zone
    }
}

fn is_utc(zone: &TimeZone) -> bool {
    zone.to_fixed_offset().is_ok_and(|offset| offset.is_zero())
}

/// Tells whether every bucket of `fine` since 1972 lies in one bucket of `coarse`.
fn nests(fine: Period, coarse: Period, zone: &TimeZone) -> bool {
    let length = match fine {
        _ if coarse == Period::All => return true,
        Period::Week | Period::All => return false,
        Period::Second | Period::Day | Period::Month | Period::Year => return true,
        _ if !coarse.is_civil() => return true,
        Period::Minute => 60,
        Period::Hour => 3600,
    };
    let Ok(first) = Timestamp::from_second(WHOLE_OFFSETS) else { return false };
    let is_whole = |seconds: i64| seconds.rem_euclid(length) == 0;
    is_whole(zone.to_offset(first).seconds().into())
        && zone.following(first).take_while(|change| change.timestamp().as_second() < LAST_CHANGE).all(
            |change| is_whole(change.offset().seconds().into()) && is_whole(change.timestamp().as_second()),
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Schedules;

    fn schedule(text: &str) -> Schedule {
        text.parse::<Schedules>().unwrap().default_schedule().clone()
    }

    fn since(text: &str, fine: Period, coarse: Period) -> Option<String> {
        schedule(text).nested_since(fine, coarse).map(|since| since.to_string())
    }

    #[test]
    fn nesting_begins_with_its_periods_and_zone() {
        let min = Some(Timestamp::MIN.to_string());
        let (hour, day, week, month) = (Period::Hour, Period::Day, Period::Week, Period::Month);
        let berlin = "beginning Europe/Berlin hour,day,week,month,all";
        assert_eq!(since(berlin, day, month), min);
        assert_eq!(since(berlin, week, Period::All), min);
        assert_eq!(since(berlin, week, month), None);
        assert_eq!(since(berlin, month, day), None);
        assert_eq!(since(berlin, hour, day), Some("1972-01-08T00:00:00Z".to_owned()));
        assert_eq!(since("beginning UTC hour,day", hour, day), min);
        assert_eq!(since("beginning Asia/Kolkata minute,hour,day", hour, day), None);
        assert!(since("beginning Asia/Kolkata minute,hour,day", Period::Minute, day).is_some());
        // Clocks were changed a minute after midnight.
        assert_eq!(since("beginning America/Goose_Bay hour,day", hour, day), None);
        assert_eq!(since("beginning UTC day", day, month), None);
        let changed = "beginning UTC day\n2026-11-20T00:00:00Z UTC day,month";
        assert_eq!(since(changed, day, month), Some("2026-11-20T00:00:00Z".to_owned()));
        let moved = "beginning UTC day,month\n2026-11-20T00:00:00Z Europe/Berlin day,month";
        assert_eq!(since(moved, day, month), Some("2026-11-22T00:00:00Z".to_owned()));
        assert_eq!(schedule(moved).last_zone().iana_name(), Some("Europe/Berlin"));
        assert_eq!(schedule(changed).zone_since(), Timestamp::MIN);
    }

    #[test]
    fn buckets_without_a_moment_count_nothing() {
        for (text, bucket, counts) in [
            ("beginning UTC day", "2026-11-20", true),
            ("beginning UTC day", "2026-11", false),
            ("beginning UTC day,month,all", "2026-11", true),
            ("beginning UTC day,month,all", "all", true),
            ("beginning Pacific/Apia day", "2011-12-29", true),
            ("beginning Pacific/Apia day", "2011-12-30", false),
            ("beginning Pacific/Apia hour,day", "2011-12-30T09", true),
            ("beginning UTC day", "9999-12-30", true),
            ("beginning UTC day", "9999-12-31", false),
            ("beginning Asia/Tokyo day", "9999-12-31", true),
            ("beginning UTC hour", "9999-12-31T01", false),
            ("beginning UTC hour,year", "0001-01-01T00", true),
            ("beginning America/New_York hour,day", "0001-01-01T00", false),
            ("beginning America/New_York hour,day", "0001-01-01T04", true),
            ("beginning America/New_York hour,day", "0001-01-01", true),
            ("beginning UTC day\n2026-11-20T00:00:00Z UTC hour,day", "2026-11-19T23", false),
            ("beginning UTC day\n2026-11-20T00:00:00Z UTC hour,day", "2026-11-20T00", true),
            ("beginning UTC hour,day\n2026-11-20T00:00:00Z UTC day", "2026-11-20T00", false),
            ("beginning UTC hour,day\n2026-11-20T00:00:00Z UTC day", "2026-11-19T23", true),
        ] {
            assert_eq!(schedule(text).counts_in(bucket.parse().unwrap()), counts, "{bucket} of {text}");
        }
    }

    proptest! {
        #[test]
        fn moment_counts_in_its_buckets(
            mask in 1..256_usize, zone in 0..7_usize, second in -62_135_596_800_i64..=253_402_207_200,
        ) {
            let zones = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia", "Africa/Monrovia", "Asia/Tokyo"];
            let periods: Vec<_> = Period::ALL.into_iter().filter(|period| mask >> (*period as usize) & 1 == 1).collect();
            let schedule = Schedule::new(&periods, TimeZone::get(zones[zone]).unwrap()).unwrap();
            if let Ok(counted) = schedule.bucket_at(Timestamp::from_second(second).unwrap()) {
                for bucket in schedule.fan_out(counted) {
                    prop_assert!(schedule.counts_in(bucket), "{}", bucket);
                }
            }
        }

        #[test]
        fn nested_buckets_are_those_of_the_moment(
            fine in 0..7_usize, coarse in 1..8_usize, zone in 0..6_usize, second in 100_000_000_i64..2_200_000_000,
        ) {
            let zones = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia", "Africa/Monrovia"];
            let (fine, coarse) = (Period::ALL[fine], Period::ALL[coarse]);
            let schedule = Schedule::new(&[fine, coarse], TimeZone::get(zones[zone]).unwrap()).unwrap();
            let moment = Timestamp::from_second(second).unwrap();
            if schedule.nested_since(fine, coarse).is_some_and(|since| since <= moment) {
                let zone = schedule.last_zone();
                let bucket = |period| Bucket::containing(period, moment, zone).unwrap();
                prop_assert_eq!(bucket(fine).rollup(coarse, zone), Some(bucket(coarse)));
            }
        }
    }
}
