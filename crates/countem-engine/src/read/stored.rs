//! Stored parts of answers, kept for reads that take an older one.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use countem_core::BatchId;
use countem_store::{RowQuery, Rows, Select};
use parking_lot::Mutex;

use crate::deliver::LaneState;

/// Moment between two batches of a lane. At the same one, the store has the same counts of this engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivered {
    resolved: u64,
    in_flight: Option<BatchId>,
}

/// The stored parts of single counters, in which the batch in flight is counted once. A bounded number of them is kept.
#[derive(Debug, Default)]
pub(super) struct StoredParts(Mutex<HashMap<RowQuery, StoredPart>>);

#[derive(Debug)]
struct StoredPart {
    /// The moment before the store was read.
    began: Instant,
    delivered: Delivered,
    rows: Arc<Rows>,
}

const MAX_PARTS: usize = 10_000;

/// Maximum number of buckets of a part. A counter of more is read anew.
const MAX_BUCKETS: usize = 100;

impl Delivered {
    pub(super) fn of(lane: &LaneState) -> Self {
        let in_flight = lane.in_flight().map(|batch| batch.id().clone());
        Self { resolved: lane.totals.batches, in_flight }
    }
}

impl StoredParts {
    /// Returns the part that was read at most `max_age` ago, unless this engine has delivered anything since.
    pub(super) fn get(
        &self,
        query: &RowQuery,
        delivered: &Delivered,
        max_age: Duration,
    ) -> Option<Arc<Rows>> {
        if max_age.is_zero() {
            return None;
        }
        let parts = self.0.lock();
        let part = parts.get(query)?;
        let is_current = part.delivered == *delivered && part.began.elapsed() <= max_age;
        is_current.then(|| Arc::clone(&part.rows))
    }

    /// Keeps a part whose read `began` then, for reads that take one of `max_age`.
    pub(super) fn put(
        &self,
        query: &RowQuery,
        delivered: &Delivered,
        began: Instant,
        rows: &Rows,
        max_age: Duration,
    ) {
        if max_age.is_zero() || !matches!(query.select, Select::One(_)) || rows.len() > MAX_BUCKETS {
            return;
        }
        let mut parts = self.0.lock();
        if parts.len() >= MAX_PARTS && !parts.contains_key(query) {
            parts.retain(|_, part| part.delivered == *delivered && part.began.elapsed() <= max_age);
        }
        if parts.len() < MAX_PARTS || parts.contains_key(query) {
            let part = StoredPart { began, delivered: delivered.clone(), rows: Arc::new(rows.clone()) };
            parts.insert(query.clone(), part);
        }
    }
}
