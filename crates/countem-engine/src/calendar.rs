//! Which slot is current, per collection.

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{AtomicBucket, Bucket, CollectionName, Period, Schedule, ScheduleError, Schedules};
use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// Knows the stored periods of every collection and the slot in which it is counted now.
#[derive(Debug)]
pub struct Calendar {
    schedules: Arc<Schedules>,
    default: Arc<Class>,
    /// Collections with periods of their own. Empty in the normal case, which then costs nothing.
    own: HashMap<CollectionName, Arc<Class>, RandomState>,
}

/// Collections that store the same periods share a schedule and a current slot.
#[derive(Debug)]
pub(crate) struct Class {
    schedule: Schedule,
    slot: CachePadded<AtomicBucket>,
}

impl Class {
    fn new(periods: &[Period], zone: &TimeZone) -> Result<Self, ScheduleError> {
        let schedule = Schedule::new(periods, zone.clone())?;
        Ok(Self { schedule, slot: CachePadded::new(AtomicBucket::new(Bucket::ALL)) })
    }

    /// Returns the slot in which an increment is counted now.
    #[inline]
    pub(crate) fn slot(&self) -> Bucket {
        self.slot.load()
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

impl Calendar {
    /// Returns a calendar for `periods`, with exceptions for single collections.
    ///
    /// # Errors
    /// [`ScheduleError`] when a set of periods is empty.
    pub fn new(
        zone: &TimeZone,
        periods: &[Period],
        own: &BTreeMap<CollectionName, Vec<Period>>,
        now: Timestamp,
    ) -> Result<Self, ScheduleError> {
        let schedules = Arc::new(Schedules::new(zone, periods, own)?);
        let default = Arc::new(Class::new(periods, zone)?);
        let own = own.iter().map(|(name, periods)| Ok((name.clone(), Arc::new(Class::new(periods, zone)?))));
        let calendar = Self { schedules, default, own: own.collect::<Result<_, ScheduleError>>()? };
        calendar.turn(now);
        Ok(calendar)
    }

    /// Returns the stored periods of `collection` and their zone.
    pub fn schedule(&self, collection: &str) -> &Schedule {
        self.class(collection).schedule()
    }

    /// Returns the schedules of all collections.
    pub fn schedules(&self) -> &Arc<Schedules> {
        &self.schedules
    }

    /// Returns the zone of days and coarser periods.
    pub fn zone(&self) -> &TimeZone {
        self.default.schedule.zone()
    }

    #[inline]
    pub(crate) fn class(&self, collection: &str) -> &Arc<Class> {
        if self.own.is_empty() {
            return &self.default;
        }
        self.own.get(collection).unwrap_or(&self.default)
    }

    /// Returns the class of every collection, if it is the same for all.
    pub(crate) fn only_class(&self) -> Option<Arc<Class>> {
        self.own.is_empty().then(|| Arc::clone(&self.default))
    }

    fn classes(&self) -> impl Iterator<Item = &Arc<Class>> {
        self.own.values().chain([&self.default])
    }

    /// Makes `now` the time at which increments are counted, and returns how long that holds.
    pub(crate) fn turn(&self, now: Timestamp) -> SignedDuration {
        let mut holds = SignedDuration::from_hours(24);
        for class in self.classes() {
            match class.schedule.bucket_at(now) {
                Ok(slot) => class.slot.store(slot),
                Err(error) => {
                    tracing::error!(%error, "clock shows an impossible time, still counting at the time before")
                }
            }
            holds = holds.min(class.schedule.next_change(now).duration_since(now));
        }
        holds
    }
}
