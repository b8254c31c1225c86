//! The cap on distinct metrics of a bucket.

use std::{
    collections::{BTreeMap, HashSet},
    hash::BuildHasher,
};

use countem_core::{Bucket, Period};
use foldhash::fast::RandomState;

/// Remembers which metrics each (collection, bucket) has, as 64-bit hashes, and admits no more than the cap.
///
/// Two metrics with the same hash count as one: the cap is then one higher for that bucket, and nothing else happens.
#[derive(Debug)]
pub(crate) struct Cardinality {
    max: usize,
    hasher: RandomState,
    seen: BTreeMap<Bucket, Seen>,
    remembered: usize,
    rounds: u64,
}

/// The metrics of a bucket, by collection.
#[derive(Debug, Default)]
struct Seen {
    metrics: BTreeMap<Box<str>, HashSet<u64, RandomState>>,
    /// The newest round in which a counter was new in the bucket.
    used: u64,
}

impl Seen {
    fn cost(&self) -> usize {
        self.metrics.values().map(|metrics| COLLECTION_COST + metrics.len()).sum()
    }
}

/// Number of rounds after which a bucket in which nothing was counted is forgotten, unless it is the newest of its period.
const FORGET_AFTER: u64 = 6;

/// Maximum number of hashes over all buckets; beyond it the oldest buckets are forgotten, and their cap starts anew.
const MAX_REMEMBERED: usize = 8_000_000;

/// Number of hashes that take as much memory as a collection in a bucket does by itself: buckets of a second hold few metrics.
const COLLECTION_COST: usize = 64;

impl Cardinality {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, hasher: RandomState::default(), seen: BTreeMap::new(), remembered: 0, rounds: 0 }
    }

    /// Tells whether the metric is known in the bucket or may become so.
    pub(crate) fn admits(&mut self, collection: &str, bucket: Bucket, metric: &str) -> bool {
        let hash = self.hasher.hash_one(metric);
        let seen = self.seen.entry(bucket).or_default();
        seen.used = self.rounds;
        let metrics = match seen.metrics.get_mut(collection) {
            Some(metrics) => metrics,
            None => {
                self.remembered += COLLECTION_COST;
                seen.metrics.entry(collection.into()).or_default()
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
        if let Some(seen) = oldest.and_then(|bucket| self.seen.remove(&bucket)) {
            self.remembered -= seen.cost();
        }
    }

    /// Ends a round, between two freezes of the lane: forgets buckets that are over.
    pub(crate) fn end_round(&mut self) {
        self.rounds += 1;
        let newest: BTreeMap<Period, Bucket> =
            self.seen.keys().map(|bucket| (bucket.period(), *bucket)).collect();
        self.seen.retain(|bucket, seen| {
            let is_kept =
                newest.get(&bucket.period()) == Some(bucket) || self.rounds - seen.used < FORGET_AFTER;
            self.remembered -= if is_kept { 0 } else { seen.cost() };
            is_kept
        });
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(cardinality.remembered, cardinality.seen.values().map(Seen::cost).sum::<usize>());
    }

    #[test]
    fn finished_buckets_are_forgotten() {
        let mut cardinality = Cardinality::new(100);
        let day = |day: u64| -> Bucket { format!("2026-11-{day:02}").parse().unwrap() };
        for round in 0..30 {
            for metric in 0..100 {
                assert!(
                    cardinality.admits("web", day(1 + round / 2), &format!("{round} {metric}"))
                        || round % 2 > 0
                );
                assert!(cardinality.admits("web", Bucket::ALL, "m"));
            }
            cardinality.end_round();
        }
        assert!(cardinality.seen.len() <= 5, "{:?}", cardinality.seen.keys());
        assert_eq!(cardinality.remembered, cardinality.seen.values().map(Seen::cost).sum::<usize>());
        (0..100).for_each(|_| cardinality.end_round());
        assert_eq!(cardinality.seen.keys().copied().collect::<Vec<_>>(), [Bucket::ALL, day(15)]);
        assert!(!cardinality.admits("web", day(15), "new"), "the newest day goes on");
    }
}
