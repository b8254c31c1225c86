//! The caps on distinct metrics of a bucket, and on distinct label sets of a metric.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::BuildHasher,
};

use countem_core::{Bucket, Labelled, Period};
use foldhash::fast::RandomState;

/// Remembers which metrics each (collection, bucket) has, as 64-bit hashes, and admits no more than the caps.
///
/// Two metrics with the same hash count as one: the cap is then one higher for that bucket, and nothing else happens.
#[derive(Debug)]
pub(crate) struct Cardinality {
    max: usize,
    max_label_sets: usize,
    hasher: RandomState,
    seen: BTreeMap<Bucket, Seen>,
    remembered: usize,
    rounds: u64,
}

/// The metrics of a bucket, by collection.
#[derive(Debug, Default)]
struct Seen {
    collections: BTreeMap<Box<str>, Metrics>,
    /// The newest round in which a counter was new in the bucket.
    used: u64,
}

/// The metrics of a collection in a bucket.
#[derive(Debug, Default)]
struct Metrics {
    hashes: HashSet<u64, RandomState>,
    /// Number of label sets, by the hash of the name that they share.
    label_sets: HashMap<u64, usize, RandomState>,
}

/// Answer of [`Cardinality::admit`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The metric is known in the bucket, or is from now on.
    Admitted,
    /// The bucket has no room for another metric.
    BeyondMetrics,
    /// The name has no room for another label set: its overflow, which is no longer than a metric may be, has to take it.
    BeyondLabelSets(String),
}

impl Seen {
    fn cost(&self) -> usize {
        let cost = |metrics: &Metrics| COLLECTION_COST + metrics.hashes.len() + metrics.label_sets.len();
        self.collections.values().map(cost).sum()
    }
}

/// Number of rounds after which a bucket in which nothing was counted is forgotten, unless it is the newest of its period.
const FORGET_AFTER: u64 = 6;

/// Maximum number of hashes over all buckets; beyond it the oldest buckets are forgotten, and their cap starts anew.
const MAX_REMEMBERED: usize = 8_000_000;

/// Number of hashes that take as much memory as a collection in a bucket does by itself: buckets of a second hold few metrics.
const COLLECTION_COST: usize = 64;

impl Cardinality {
    pub(crate) fn new(max: usize, max_label_sets: usize) -> Self {
        let (hasher, seen) = (RandomState::default(), BTreeMap::new());
        Self { max, max_label_sets, hasher, seen, remembered: 0, rounds: 0 }
    }

    /// Remembers the metric in the bucket, if there is room.
    pub(crate) fn admit(&mut self, collection: &str, bucket: Bucket, metric: &str) -> Admission {
        let hash = self.hasher.hash_one(metric);
        let seen = self.seen.entry(bucket).or_default();
        seen.used = self.rounds;
        let metrics = match seen.collections.get_mut(collection) {
            Some(metrics) => metrics,
            None => {
                self.remembered += COLLECTION_COST;
                seen.collections.entry(collection.into()).or_default()
            }
        };
        if metrics.hashes.contains(&hash) {
            return Admission::Admitted;
        }
        let split = Labelled::split(metric);
        let name = (!split.labels.is_empty()).then(|| self.hasher.hash_one(split.name));
        let label_sets = name.and_then(|name| metrics.label_sets.get(&name)).copied().unwrap_or(0);
        if label_sets >= self.max_label_sets
            && let Some(overflow) = split.overflow()
        {
            return Admission::BeyondLabelSets(overflow);
        }
        if metrics.hashes.len() >= self.max {
            return Admission::BeyondMetrics;
        }
        if let Some(name) = name {
            metrics.label_sets.insert(name, label_sets + 1);
            self.remembered += usize::from(label_sets == 0);
        }
        metrics.hashes.insert(hash);
        self.remembered += 1;
        if self.remembered > MAX_REMEMBERED.max(self.max) {
            self.forget_oldest(bucket);
        }
        Admission::Admitted
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

    fn admits(cardinality: &mut Cardinality, collection: &str, bucket: Bucket, metric: &str) -> bool {
        cardinality.admit(collection, bucket, metric) == Admission::Admitted
    }

    #[test]
    fn cap_of_label_sets_holds_per_name() {
        let mut cardinality = Cardinality::new(8, 2);
        let (monday, tuesday) = ("2026-11-16".parse().unwrap(), "2026-11-17".parse().unwrap());
        let mut admit = |bucket, metric| cardinality.admit("web", bucket, metric);
        for metric in [r#"m{a="1"}"#, r#"m{b="1"}"#, "m", r#"n{a="1"}"#, "m{a}", "m{b}", "m{c}"] {
            assert_eq!(admit(monday, metric), Admission::Admitted, "{metric}");
        }
        let overflow = || Admission::BeyondLabelSets(r#"m{__overflow__="true"}"#.to_owned());
        assert_eq!(admit(monday, r#"m{a="2"}"#), overflow());
        assert_eq!(admit(monday, r#"m{a="1"}"#), Admission::Admitted, "a known label set stays known");
        assert_eq!(admit(tuesday, r#"m{a="2"}"#), Admission::Admitted);
        assert_eq!(admit(monday, "o"), Admission::Admitted, "what is refused takes no room");
        assert_eq!(admit(monday, r#"p{a="1"}"#), Admission::BeyondMetrics);
        assert_eq!(admit(monday, r#"m{a="2"}"#), overflow(), "in a full bucket, too");
        assert_eq!(cardinality.remembered, cardinality.seen.values().map(Seen::cost).sum::<usize>());
    }

    #[test]
    fn cap_holds_per_collection_and_bucket() {
        let mut cardinality = Cardinality::new(2, 10);
        let (monday, tuesday) = ("2026-11-16".parse().unwrap(), "2026-11-17".parse().unwrap());
        assert!(admits(&mut cardinality, "web", monday, "a"));
        assert!(admits(&mut cardinality, "web", monday, "b"));
        assert!(!admits(&mut cardinality, "web", monday, "c"));
        assert!(admits(&mut cardinality, "web", monday, "a"), "a known metric stays known");
        assert!(admits(&mut cardinality, "web", tuesday, "c"));
        assert!(admits(&mut cardinality, "mail", monday, "c"));
    }

    #[test]
    fn second_buckets_are_forgotten() {
        let mut cardinality = Cardinality::new(2, 10);
        let mut now: jiff::Timestamp = "2026-11-20T00:00:00Z".parse().unwrap();
        for _ in 0..2 * MAX_REMEMBERED / COLLECTION_COST {
            let second = Bucket::containing(Period::Second, now, &jiff::tz::TimeZone::UTC).unwrap();
            assert!(admits(&mut cardinality, "web", second, "a"));
            now += jiff::SignedDuration::from_secs(1);
        }
        assert!(cardinality.seen.len() <= MAX_REMEMBERED / COLLECTION_COST);
        assert_eq!(cardinality.remembered, cardinality.seen.values().map(Seen::cost).sum::<usize>());
    }

    #[test]
    fn finished_buckets_are_forgotten() {
        let mut cardinality = Cardinality::new(100, 10);
        let day = |day: u64| -> Bucket { format!("2026-11-{day:02}").parse().unwrap() };
        for round in 0..30 {
            for metric in 0..100 {
                assert!(
                    admits(&mut cardinality, "web", day(1 + round / 2), &format!("{round} {metric}"))
                        || round % 2 > 0
                );
                assert!(admits(&mut cardinality, "web", Bucket::ALL, "m"));
            }
            cardinality.end_round();
        }
        assert!(cardinality.seen.len() <= 5, "{:?}", cardinality.seen.keys());
        assert_eq!(cardinality.remembered, cardinality.seen.values().map(Seen::cost).sum::<usize>());
        (0..100).for_each(|_| cardinality.end_round());
        assert_eq!(cardinality.seen.keys().copied().collect::<Vec<_>>(), [Bucket::ALL, day(15)]);
        assert!(!admits(&mut cardinality, "web", day(15), "new"), "the newest day goes on");
    }
}
