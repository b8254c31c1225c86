//! In which bucket a moment is counted.

use countem_core::{Bucket, Schedule};
use jiff::Timestamp;

/// Finds the slot of a moment, remembering the spans in which the slots last found hold.
///
/// Neighbouring lines lie in the same slot, or go back and forth between two around midnight.
#[derive(Debug)]
pub(crate) struct Slots {
    schedule: Schedule,
    known: [Known; 4],
    /// The one to give up next.
    oldest: usize,
}

/// Every second from `from` to before `until` lies in `slot`.
#[derive(Debug, Clone, Copy)]
struct Known {
    from: i64,
    until: i64,
    slot: Bucket,
}

impl Slots {
    /// Prepares to find the slots of `schedule`.
    pub(crate) fn new(schedule: Schedule) -> Self {
        let nothing = Known { from: 0, until: 0, slot: Bucket::ALL };
        Self { schedule, known: [nothing; 4], oldest: 0 }
    }

    /// Returns the schedule.
    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Returns the slot of `second`, `None` outside the years 0001 to 9999.
    #[inline]
    pub(crate) fn at(&mut self, second: i64) -> Option<Bucket> {
        let known = self.known.iter().find(|known| known.from <= second && second < known.until);
        match known {
            Some(known) => Some(known.slot),
            None => self.learn(second),
        }
    }

    #[cold]
    fn learn(&mut self, second: i64) -> Option<Bucket> {
        let moment = Timestamp::from_second(second).ok()?;
        let slot = self.schedule.bucket_at(moment).ok()?;
        let until = self.schedule.next_change(moment).as_second();
        let earlier = self.known.iter_mut().find(|known| known.slot == slot && known.until == until);
        match earlier {
            Some(known) => known.from = known.from.min(second),
            None => {
                self.known[self.oldest] = Known { from: second, until, slot };
                self.oldest = (self.oldest + 1) % self.known.len();
            }
        }
        Some(slot)
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
        fn what_is_remembered_agrees_with_the_schedule(
            mask in 1..256_u32, start in 1_000_000_000_i64..2_000_000_000, steps in prop::collection::vec(-100_000_i64..100_000, 1..200),
        ) {
            let periods: Vec<_> = Period::ALL.into_iter().filter(|p| mask & (1 << *p as u32) != 0).collect();
            let schedule = Schedule::new(&periods, TimeZone::get("Australia/Lord_Howe").unwrap()).unwrap();
            let mut slots = Slots::new(schedule.clone());
            for step in steps {
                let moment = Timestamp::from_second(start + step).unwrap();
                prop_assert_eq!(slots.at(start + step), schedule.bucket_at(moment).ok());
            }
        }
    }

    #[test]
    fn a_moment_outside_the_years_has_no_slot() {
        let mut slots = Slots::new(Schedule::new(&[Period::Day], TimeZone::UTC).unwrap());
        assert_eq!(slots.at(i64::MAX), None);
        assert_eq!(slots.at(-80_000_000_000), None);
        assert!(slots.at(0).is_some());
    }
}
