//! The current counting bucket of every collection.

use std::sync::Arc;

use countem_core::{AtomicBucket, Bucket, BucketError, CollectionName, Period, Schedules};
use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use parking_lot::RwLock;

/// The schedule of every collection, and the bucket in which it is counted now.
#[derive(Debug)]
pub struct Calendar {
    schedules: RwLock<Arc<Schedules>>,
    /// Also of the collections that got a schedule of their own later: it is so fine that all their buckets follow from it.
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

    fn show(&self, bucket: Result<Bucket, BucketError>) -> Result<(), BucketError> {
        bucket.map(|bucket| self.0.store(bucket))
    }

    /// Returns the bucket in which an increment is counted now.
    #[inline]
    pub(crate) fn current(&self) -> Bucket {
        self.0.load()
    }
}

/// The counting buckets after the calendar has been advanced.
#[derive(Debug)]
#[must_use = "an impossible time has to be logged"]
pub(crate) struct Advanced {
    valid: SignedDuration,
    outcome: Result<(), BucketError>,
}

impl Advanced {
    /// Logs an impossible time, and returns how long the buckets stay as they are. The caller holds no lock: a subscriber of the log may
    /// count through the same engine.
    pub(crate) fn log(self) -> SignedDuration {
        if let Err(error) = self.outcome {
            tracing::error!(%error, "clock shows an impossible time, still counting at the time before");
        }
        self.valid
    }
}

/// Maximum time after which the counting buckets are determined again, although nothing is known to change.
const MAX_VALIDITY: SignedDuration = SignedDuration::from_hours(24);

impl Calendar {
    /// Returns a calendar of `schedules` that shows `now`.
    pub fn new(schedules: Arc<Schedules>, now: Timestamp) -> Self {
        let own = schedules.exceptions().map(|(name, _)| (name.clone(), BucketCache::new())).collect();
        let calendar = Self { schedules: RwLock::new(schedules), default: BucketCache::new(), own };
        calendar.advance(now).log();
        calendar
    }

    /// Returns the schedules of all collections.
    pub fn schedules(&self) -> Arc<Schedules> {
        Arc::clone(&self.schedules.read())
    }

    /// Returns the counting bucket of an increment to `collection` at `moment`.
    pub(crate) fn bucket_at(&self, collection: &str, moment: Timestamp) -> Result<Bucket, BucketError> {
        self.schedules.read().of(collection).bucket_at(moment)
    }

    /// Returns true where every stored bucket of an increment to `collection` at `moment` has expired at `now`.
    pub(crate) fn has_expired(&self, collection: &str, moment: Timestamp, now: Timestamp) -> bool {
        let schedules = self.schedules.read();
        let schedule = schedules.of(collection);
        let bucket = schedule.expires().then(|| schedule.bucket_at(moment).ok()).flatten();
        bucket.is_some_and(|bucket| schedule.has_expired_everywhere(bucket, now))
    }

    /// Replaces the schedules by those that became of them, and makes `now` the time at which increments are counted.
    pub(crate) fn adopt(&self, schedules: Arc<Schedules>, now: Timestamp) -> Advanced {
        *self.schedules.write() = schedules;
        self.advance(now)
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

    /// Makes `now` the time at which increments are counted.
    pub(crate) fn advance(&self, now: Timestamp) -> Advanced {
        let schedules = self.schedules();
        let zone = schedules.zone(now);
        let mut valid = MAX_VALIDITY;
        let mut outcome = Ok(());
        let mut default = schedules.default_schedule().bucket_at(now);
        valid = valid.min(schedules.default_schedule().next_change(now).duration_since(now));
        for (name, schedule) in schedules.exceptions() {
            let bucket = schedule.bucket_at(now);
            valid = valid.min(schedule.next_change(now).duration_since(now));
            match self.own.get(name) {
                Some(buckets) => outcome = outcome.and(buckets.show(bucket)),
                None => default = default.and_then(|default| finest(default, bucket?, zone)),
            }
        }
        Advanced { valid, outcome: outcome.and(self.default.show(default)) }
    }
}

/// Returns the counting bucket that begins where the later one of two begins, by which both schedules can count.
fn finest(one: Bucket, other: Bucket, zone: &TimeZone) -> Result<Bucket, BucketError> {
    if one == other {
        return Ok(one);
    }
    let start = one.start_instant(zone).max(other.start_instant(zone));
    Bucket::containing(Period::Second, start, zone)
}
