//! The current counting bucket of every collection.

use std::sync::Arc;

use countem_core::{AtomicBucket, Bucket, CollectionName, Schedule, Schedules};
use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// The schedule of every collection, and the bucket in which it is counted now.
#[derive(Debug)]
pub struct Calendar {
    schedules: Arc<Schedules>,
    default: Arc<BucketCache>,
    /// Collections with a schedule of their own. Empty in the normal case, which then costs nothing.
    own: HashMap<CollectionName, Arc<BucketCache>, RandomState>,
}

/// The current counting bucket of one schedule.
#[derive(Debug)]
pub(crate) struct BucketCache(CachePadded<AtomicBucket>);

impl BucketCache {
    fn new() -> Arc<Self> {
        Arc::new(Self(CachePadded::new(AtomicBucket::new(Bucket::ALL))))
    }

    /// Returns the bucket in which an increment is counted now.
    #[inline]
    pub(crate) fn current(&self) -> Bucket {
        self.0.load()
    }
}

/// Maximum time after which the counting buckets are determined again, although nothing is known to change.
const MAX_VALIDITY: SignedDuration = SignedDuration::from_hours(24);

impl Calendar {
    /// Returns a calendar of `schedules` that shows `now`.
    pub fn new(schedules: Arc<Schedules>, now: Timestamp) -> Self {
        let own = schedules.exceptions().map(|(name, _)| (name.clone(), BucketCache::new())).collect();
        let calendar = Self { schedules, default: BucketCache::new(), own };
        calendar.advance(now);
        calendar
    }

    /// Returns the schedules of all collections.
    pub fn schedules(&self) -> &Arc<Schedules> {
        &self.schedules
    }

    /// Returns the schedule of `collection`.
    pub fn schedule(&self, collection: &str) -> &Schedule {
        self.schedules.of(collection)
    }

    /// Returns the zone of days and coarser periods.
    pub fn zone(&self) -> &TimeZone {
        self.schedules.zone()
    }

    #[inline]
    pub(crate) fn buckets(&self, collection: &str) -> &Arc<BucketCache> {
        if self.own.is_empty() {
            return &self.default;
        }
        self.own.get(collection).unwrap_or(&self.default)
    }

    /// Returns the counting bucket of every collection, if it is the same for all.
    pub(crate) fn only_buckets(&self) -> Option<Arc<BucketCache>> {
        self.own.is_empty().then(|| Arc::clone(&self.default))
    }

    /// Makes `now` the time at which increments are counted, and returns how long that is valid.
    pub(crate) fn advance(&self, now: Timestamp) -> SignedDuration {
        let own = self.schedules.exceptions().map(|(name, schedule)| (schedule, &self.own[name]));
        let mut valid = MAX_VALIDITY;
        for (schedule, buckets) in own.chain([(self.schedules.default_schedule(), &self.default)]) {
            match schedule.bucket_at(now) {
                Ok(bucket) => buckets.0.store(bucket),
                Err(error) => {
                    tracing::error!(%error, "clock shows an impossible time, still counting at the time before")
                }
            }
            valid = valid.min(schedule.next_change(now).duration_since(now));
        }
        valid
    }
}
