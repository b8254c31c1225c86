//! Maintenance of a journal and its store: auditing, retrying quarantined counts, replaying stored batches.
//!
//! Every action that changes a stored count sends a batch with an identity, or changes the count and its quarantine in one step,
//! so that it takes effect exactly once however often it is repeated.

mod audit;
mod error;
mod lookup;
mod quarantine;
mod replay;
mod scan;
mod send;

pub use audit::{AuditReport, MissingBatch, audit};
pub use error::MaintenanceError;
pub use lookup::{Lookup, look_up};
pub use quarantine::{
    RetryOutcome, RetryReport, drop_quarantined, held_by_store, release_held, retry_quarantined,
};
pub use replay::{Replay, ReplayReport, journal_config_for_replay};
pub use scan::{ScanReport, scan};

use std::{collections::BTreeMap, time::SystemTime};

use countem_core::BatchId;
use countem_journal::ResolvedBatch;

/// Splits stored batches of a journal into those that a store is sure to remember, as it remembers all batches that it got
/// `since` then, and those that are too old.
///
/// The batches of a lane are stored in order. So a batch before one that is too old is too old as well, whatever the clock
/// was.
fn split_by_age(stored: Vec<ResolvedBatch>, since: SystemTime) -> (Vec<ResolvedBatch>, Vec<ResolvedBatch>) {
    let lane = |id: &BatchId| (id.writer.clone(), id.lane);
    let mut too_old = BTreeMap::new();
    for batch in stored.iter().filter(|batch| batch.at < since) {
        let last = too_old.entry(lane(&batch.id)).or_insert(batch.id.seq);
        *last = batch.id.seq.max(*last);
    }
    stored
        .into_iter()
        .partition(|batch| too_old.get(&lane(&batch.id)).is_none_or(|&last| batch.id.seq > last))
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use countem_core::Writer;

    use super::*;

    #[test]
    fn batch_before_a_forgotten_one_is_too_old() {
        let batch = |lane, seq, second| ResolvedBatch {
            id: BatchId { writer: Writer::new(1, 1), lane, seq },
            at: UNIX_EPOCH + Duration::from_secs(second),
            counters: 1,
            increments: 1,
        };
        let stored =
            vec![batch(0, 1, 10), batch(0, 2, 90), batch(0, 3, 20), batch(0, 4, 50), batch(1, 1, 60)];
        let numbers = |batches: Vec<ResolvedBatch>| -> Vec<_> {
            batches.into_iter().map(|batch| (batch.id.lane, batch.id.seq)).collect()
        };
        let (remembered, too_old) = split_by_age(stored.clone(), UNIX_EPOCH + Duration::from_secs(50));
        assert_eq!(
            (numbers(remembered), numbers(too_old)),
            (vec![(0, 4), (1, 1)], vec![(0, 1), (0, 2), (0, 3)])
        );
        assert_eq!(split_by_age(stored, UNIX_EPOCH).1, []);
    }
}
