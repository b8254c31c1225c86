//! Log messages of a lane, logged once its lock is given back: a subscriber of the log may count through the same engine.

use countem_core::{Bucket, Quarantined};

/// Log messages of a lane that were not logged yet.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The first delta that was quarantined, and how many there were.
    quarantined: Option<(Quarantined, u64)>,
    overflowed: Vec<(String, Bucket)>,
    /// Deltas that stay out of the journal, and why the last one does.
    not_recorded: Option<(u64, String)>,
}

impl Notes {
    pub(super) fn quarantined(&mut self, delta: &Quarantined) {
        self.quarantined.get_or_insert_with(|| (delta.clone(), 0)).1 += 1;
    }

    /// Notes the first metric of a collection that is counted as `__overflow__`.
    pub(super) fn overflowed(&mut self, collection: &str, bucket: Bucket) {
        self.overflowed.push((collection.to_owned(), bucket));
    }

    pub(super) fn not_recorded(&mut self, why: String) {
        let before = self.not_recorded.take().map_or(0, |(deltas, _)| deltas);
        self.not_recorded = Some((before + 1, why));
    }

    pub(super) fn log(self) {
        if let Some((first, counters)) = self.quarantined {
            tracing::error!(
                counters,
                collection = first.collection,
                metric = first.metric,
                bucket = %first.bucket,
                n = first.n,
                reason = first.reason,
                "counters are quarantined, this one first"
            );
        }
        for (collection, bucket) in self.overflowed {
            tracing::warn!(
                collection,
                %bucket,
                "bucket has reached `limits.metrics_per_bucket`, new metrics are counted as `__overflow__`"
            );
        }
        if let Some((deltas, error)) = self.not_recorded {
            tracing::error!(deltas, error, "deltas stay out of the journal until they are frozen");
        }
    }
}
