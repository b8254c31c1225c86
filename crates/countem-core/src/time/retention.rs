//! Retention: the time for which buckets are kept after their end.

use std::{collections::BTreeMap, fmt};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::schedule::ScheduleError;
use crate::{Bucket, Period};

/// Time for which the buckets of each period are kept after their end. Those of a period without one are kept for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention(BTreeMap<Period, Option<SignedDuration>>);

/// The retention of an era. It also holds for every bucket of before, so that a shorter one takes effect on what is stored already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptEra {
    pub(super) since: Timestamp,
    /// The beginning of the next era, [`Timestamp::MAX`] in the last one.
    pub(super) until: Timestamp,
    pub(super) zone: TimeZone,
    pub(super) retention: Retention,
}

/// Maximum lead over its clock of a writer that has not learned of the next era: it may have begun buckets that far ahead.
const MAX_LEAD: SignedDuration = SignedDuration::from_hours(24);

/// With less, a bucket could be gone before its last counts are stored.
const MIN_KEEP: SignedDuration = SignedDuration::from_hours(1);
const MAX_KEEP: SignedDuration = SignedDuration::from_hours(36_525 * 24);

impl Retention {
    /// Returns the time for which buckets of `period` are kept after their end, `None` if that is for ever.
    pub fn of(&self, period: Period) -> Option<SignedDuration> {
        self.0.get(&period).copied().flatten()
    }

    /// Lists the periods that are named, also those that are kept for ever.
    pub fn periods(&self) -> impl Iterator<Item = Period> + '_ {
        self.0.keys().copied()
    }

    /// Lists the named periods, each with its time.
    pub fn iter(&self) -> impl Iterator<Item = (Period, Option<SignedDuration>)> + '_ {
        self.0.iter().map(|(period, keep)| (*period, *keep))
    }

    /// Returns true where nothing ever expires.
    pub fn is_forever(&self) -> bool {
        self.0.values().all(Option::is_none)
    }

    /// Checks that it can be recorded for stored `periods`.
    pub(super) fn check(&self, periods: &[Period]) -> Result<(), ScheduleError> {
        for (period, keep) in self.iter() {
            if !periods.contains(&period) {
                return Err(ScheduleError::RetentionNotStored { period });
            }
            let is_allowed = |keep: SignedDuration| {
                period != Period::All && (MIN_KEEP..=MAX_KEEP).contains(&keep) && keep.subsec_nanos() == 0
            };
            if !keep.is_none_or(is_allowed) {
                return Err(ScheduleError::RetentionRange { period });
            }
        }
        Ok(())
    }

    /// Returns the retention of `periods` alone, without those that are kept for ever.
    pub(super) fn limited_to(&self, periods: &[Period]) -> Self {
        let limited = self.0.iter().filter(|(period, keep)| keep.is_some() && periods.contains(period));
        Self(limited.map(|(period, keep)| (*period, *keep)).collect())
    }
}

impl FromIterator<(Period, Option<SignedDuration>)> for Retention {
    fn from_iter<I: IntoIterator<Item = (Period, Option<SignedDuration>)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<const N: usize> From<[(Period, SignedDuration); N]> for Retention {
    fn from(entries: [(Period, SignedDuration); N]) -> Self {
        entries.into_iter().map(|(period, keep)| (period, Some(keep))).collect()
    }
}

/// Writes such as `minute=48h,day=forever`.
impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (period, keep)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{period}={}", shown(keep))?;
        }
        Ok(())
    }
}

/// Returns a time to be kept in words, such as `48h` or `90d`.
pub(super) fn shown(keep: Option<SignedDuration>) -> String {
    let Some(keep) = keep else { return "forever".to_owned() };
    match keep.as_secs() {
        seconds if seconds % 86_400 == 0 && seconds >= 3 * 86_400 => format!("{}d", seconds / 86_400),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

impl KeptEra {
    /// Returns the first bucket of `period` that is kept at `now`, `None` where all are.
    pub(super) fn kept_from(&self, period: Period, now: Timestamp) -> Option<Bucket> {
        let keep = self.retention.of(period).filter(|_| period != Period::All && self.since <= now)?;
        let ended_by = now.saturating_sub(keep).unwrap_or(Timestamp::MIN);
        let mut first = Bucket::containing(period, ended_by, &self.zone).ok()?;
        // Where clocks are set back over midnight, an instant may lie in the day before the one that has begun already.
        while let Some(next) = first.next().filter(|next| next.start_instant(&self.zone) <= ended_by) {
            first = next;
        }
        if self.until == Timestamp::MAX {
            return Some(first);
        }
        let end = self.until.saturating_add(MAX_LEAD).unwrap_or(Timestamp::MAX);
        let mut later = Bucket::containing(period, end, &self.zone).ok()?;
        while let Some(next) = later.next().filter(|_| later.start_instant(&self.zone) < end) {
            later = next;
        }
        Some(first.min(later))
    }

    /// Returns the moment from which on `bucket` has expired, `None` if it is kept for ever.
    pub(super) fn expires_at(&self, bucket: Bucket) -> Option<Timestamp> {
        let keep = self.retention.of(bucket.period())?;
        let is_subject = self.until == Timestamp::MAX || {
            let end = self.until.saturating_add(MAX_LEAD).unwrap_or(Timestamp::MAX);
            bucket.start_instant(&self.zone) < end
        };
        let end = bucket.next().filter(|_| is_subject)?.start_instant(&self.zone);
        Some(end.checked_add(keep).ok()?.max(self.since))
    }
}

#[cfg(test)]
mod tests;
