//! Log messages of a lane, logged once its lock is given back: a subscriber of the log may count through the same engine.

use countem_core::{Bucket, Delta, Quarantined};

/// Log messages of a lane that were not logged yet.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The first delta that was quarantined, and how many there were.
    quarantined: Option<(Quarantined, u64)>,
    /// Collection, bucket, limit, and the metric of the overflow.
    overflowed: Vec<(String, Bucket, &'static str, String)>,
    /// Deltas that stay out of the journal, and why the last one does.
    not_recorded: Option<(u64, String)>,
}

impl Notes {
    pub(super) fn quarantined(&mut self, delta: &Quarantined) {
        self.quarantined.get_or_insert_with(|| (delta.clone(), 0)).1 += 1;
    }

    /// Notes the first delta of a collection that is beyond `limit` and counted under `metric`.
    pub(super) fn overflowed(&mut self, delta: &Delta<'_>, limit: &'static str, metric: &str) {
        self.overflowed.push((delta.collection.to_owned(), delta.bucket, limit, metric.to_owned()));
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
        for (collection, bucket, limit, metric) in self.overflowed {
            tracing::warn!(
                collection,
                %bucket,
                "bucket has reached `{limit}`, new metrics are counted as `{metric}`"
            );
        }
        if let Some((deltas, error)) = self.not_recorded {
            tracing::error!(deltas, error, "deltas stay out of the journal until they are frozen");
        }
    }
}
