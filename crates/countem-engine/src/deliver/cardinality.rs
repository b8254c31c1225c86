//! The cap on distinct metrics of a bucket.

use std::{
    collections::{BTreeMap, HashSet},
    hash::BuildHasher,
};

use countem_core::Bucket;
use foldhash::fast::RandomState;

/// Remembers which metrics each (collection, bucket) has, as 64-bit hashes, and admits no more than the cap.
///
/// Two metrics with the same hash count as one: the cap is then one higher for that bucket, and nothing else happens.
#[derive(Debug)]
pub(crate) struct Cardinality {
    max: usize,
    hasher: RandomState,
    seen: BTreeMap<Bucket, BTreeMap<Box<str>, HashSet<u64, RandomState>>>,
    remembered: usize,
}

/// Maximum number of hashes over all buckets; beyond it the oldest buckets are forgotten, and their cap starts anew.
const MAX_REMEMBERED: usize = 8_000_000;

/// Number of hashes that take as much memory as a collection in a bucket does by itself: buckets of a second hold few metrics.
const COLLECTION_COST: usize = 64;

impl Cardinality {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, hasher: RandomState::default(), seen: BTreeMap::new(), remembered: 0 }
    }

    /// Tells whether the metric is known in the bucket or may become so.
    pub(crate) fn admits(&mut self, collection: &str, bucket: Bucket, metric: &str) -> bool {
        let hash = self.hasher.hash_one(metric);
        let collections = self.seen.entry(bucket).or_default();
        let metrics = match collections.get_mut(collection) {
            Some(metrics) => metrics,
            None => {
                self.remembered += COLLECTION_COST;
                collections.entry(collection.into()).or_default()
            }
        };
        if metrics.contains(&hash) {
            return true;
        }
        if metrics.len() >= self.max {
            return false;
        }
        metrics.insert(hash);
        self.remembered += 1;
        if self.remembered > MAX_REMEMBERED.max(self.max) {
            self.forget_oldest(bucket);
        }
        true
    }

    fn forget_oldest(&mut self, except: Bucket) {
        let oldest = self.seen.keys().copied().find(|bucket| *bucket != except && *bucket != Bucket::ALL);
        if let Some(metrics) = oldest.and_then(|bucket| self.seen.remove(&bucket)) {
            self.remembered -= metrics.values().map(|metrics| COLLECTION_COST + metrics.len()).sum::<usize>();
        }
    }
}

#[cfg(test)]
mod tests {
    use countem_core::Period;

    use super::*;

    #[test]
    fn cap_holds_per_collection_and_bucket() {
        let mut cardinality = Cardinality::new(2);
        let (monday, tuesday) = ("2026-11-16".parse().unwrap(), "2026-11-17".parse().unwrap());
        assert!(cardinality.admits("web", monday, "a"));
        assert!(cardinality.admits("web", monday, "b"));
        assert!(!cardinality.admits("web", monday, "c"));
        assert!(cardinality.admits("web", monday, "a"), "a known metric stays known");
        assert!(cardinality.admits("web", tuesday, "c"));
        assert!(cardinality.admits("mail", monday, "c"));
    }

    #[test]
    fn second_buckets_are_forgotten() {
        let mut cardinality = Cardinality::new(2);
        let mut now: jiff::Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
        for _ in 0..2 * MAX_REMEMBERED / COLLECTION_COST {
            let second = Bucket::containing(Period::Second, now, &jiff::tz::TimeZone::UTC).unwrap();
            assert!(cardinality.admits("web", second, "a"));
            now += jiff::SignedDuration::from_secs(1);
        }
        assert!(cardinality.seen.len() <= MAX_REMEMBERED / COLLECTION_COST);
        let remembered = cardinality
            .seen
            .values()
            .flat_map(BTreeMap::values)
            .map(|metrics| COLLECTION_COST + metrics.len());
        assert_eq!(cardinality.remembered, remembered.sum::<usize>());
    }
}
