//! The splits of documents that this store knows.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use countem_core::Bucket;
use parking_lot::Mutex;

use crate::partition::{Partition, Split};

/// Known splits of one bucket. Some may be missing; none is wrong, because a split stays as long as its bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct BucketSplits {
    splits: HashMap<Partition, Split>,
}

impl BucketSplits {
    /// Returns the lowest partition known to be responsible.
    pub(crate) fn leaf(&self, metric: u64, writer: u64) -> Partition {
        let mut partition = Partition::ROOT;
        while let Some(split) = self.splits.get(&partition) {
            partition = partition.child(*split, metric, writer);
        }
        partition
    }
}

/// Known splits of all buckets that were written to lately.
///
/// Holds only confirmed splits, which no failover can take back.
#[derive(Debug, Default)]
pub(crate) struct KnownSplits {
    buckets: Mutex<BTreeMap<(String, Bucket), Arc<BucketSplits>>>,
}

/// Maximum number of remembered buckets. A forgotten one costs one more round trip when it is written to again.
const MAX_BUCKETS: usize = 4096;

impl KnownSplits {
    pub(crate) fn of(&self, collection: &str, bucket: Bucket) -> Option<Arc<BucketSplits>> {
        let buckets = self.buckets.lock();
        if buckets.is_empty() {
            return None;
        }
        buckets.get(&(collection.to_owned(), bucket)).cloned()
    }

    /// Forgets the splits of a bucket whose documents were removed.
    pub(crate) fn forget(&self, collection: &str, bucket: Bucket) {
        self.buckets.lock().remove(&(collection.to_owned(), bucket));
    }

    pub(crate) fn learn(&self, collection: &str, bucket: Bucket, partition: Partition, split: Split) {
        let mut buckets = self.buckets.lock();
        let known = buckets.entry((collection.to_owned(), bucket)).or_default();
        Arc::make_mut(known).splits.insert(partition, split);
        if buckets.len() > MAX_BUCKETS {
            let oldest = buckets.keys().min_by_key(|(_, bucket)| *bucket).cloned();
            oldest.and_then(|oldest| buckets.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::{By, hash};

    #[test]
    fn leaf_is_found_through_all_known_splits() {
        let split = |by, parts| Split::into_parts(by, parts).unwrap();
        let (metric, writer) = (hash("m"), hash("w"));
        let (known, bucket) = (KnownSplits::default(), Bucket::ALL);
        assert!(known.of("c", bucket).is_none());
        known.learn("c", bucket, Partition::ROOT, split(By::Metrics, 8));
        let child = known.of("c", bucket).unwrap().leaf(metric, writer);
        known.learn("c", bucket, child, split(By::Writers, 2));
        let grandchild = known.of("c", bucket).unwrap().leaf(metric, writer);
        assert_eq!(grandchild, child.child(split(By::Writers, 2), metric, writer));
        assert!(known.of("d", bucket).is_none());
    }
}
