//! How many distinct metrics a bucket has received on this node.

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
    most: usize,
    hasher: RandomState,
    seen: BTreeMap<Bucket, BTreeMap<Box<str>, HashSet<u64, RandomState>>>,
    remembered: usize,
}

/// Hashes kept over all buckets; beyond it the oldest buckets are forgotten, and their cap starts anew.
const REMEMBERED: usize = 8_000_000;

/// How many hashes take as much memory as a collection in a bucket does by itself: buckets of a second hold few metrics each.
const COLLECTION: usize = 64;

impl Cardinality {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, hasher: RandomState::default(), seen: BTreeMap::new(), remembered: 0 }
    }

    /// Tells whether the metric is known in the bucket or may become so.
    pub(crate) fn admits(&mut self, collection: &str, bucket: Bucket, metric: &str) -> bool {
        let hash = self.hasher.hash_one(metric);
        let collections = self.seen.entry(bucket).or_default();
        let metrics = match collections.get_mut(collection) {
            Some(metrics) => metrics,
            None => {
                self.remembered += COLLECTION;
                collections.entry(collection.into()).or_default()
            }
        };
        if metrics.contains(&hash) {
            return true;
        }
        if metrics.len() >= self.most {
            return false;
        }
        metrics.insert(hash);
        self.remembered += 1;
        if self.remembered > REMEMBERED.max(self.most) {
            self.forget_oldest(bucket);
        }
        true
    }

    fn forget_oldest(&mut self, but: Bucket) {
        let oldest = self.seen.keys().copied().find(|bucket| *bucket != but && *bucket != Bucket::ALL);
        if let Some(metrics) = oldest.and_then(|bucket| self.seen.remove(&bucket)) {
            self.remembered -= metrics.values().map(|metrics| COLLECTION + metrics.len()).sum::<usize>();
        }
    }
}

#[cfg(test)]
mod tests {
    use countem_core::Period;

    use super::*;

    #[test]
    fn the_cap_holds_per_collection_and_bucket() {
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
    fn buckets_of_seconds_are_forgotten_too() {
        let mut cardinality = Cardinality::new(2);
        let mut now: jiff::Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
        for _ in 0..2 * REMEMBERED / COLLECTION {
            let second = Bucket::containing(Period::Second, now, &jiff::tz::TimeZone::UTC).unwrap();
            assert!(cardinality.admits("web", second, "a"));
            now += jiff::SignedDuration::from_secs(1);
        }
        assert!(cardinality.seen.len() <= REMEMBERED / COLLECTION);
        let remembered =
            cardinality.seen.values().flat_map(BTreeMap::values).map(|metrics| COLLECTION + metrics.len());
        assert_eq!(cardinality.remembered, remembered.sum::<usize>());
    }
}
