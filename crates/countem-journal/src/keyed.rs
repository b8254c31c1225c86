//! Requests with an idempotency key that are not decided.

use std::sync::Arc;

use countem_core::{Batch, Claim, IdempotencyKey, jiff::Timestamp};

/// An arrival of a request with an idempotency key: durable before its key is claimed, and not counted before the claim has won.
#[derive(Debug)]
pub struct KeyedEntry {
    /// The key.
    pub key: IdempotencyKey,
    /// Hash of the body.
    pub body: [u8; 32],
    /// Moment from which on the key may be claimed again, in milliseconds at most.
    pub expires_at: Timestamp,
    /// The deltas, in stored buckets that were fixed at the arrival. The identity is that of the entry: a [writer](crate::Journal::writer) and
    /// a position of its own in `seq`. It is no batch that is ever sent.
    pub counts: Arc<Batch>,
}

impl KeyedEntry {
    /// Returns the claim of the key for this entry.
    pub fn claim(&self) -> Claim {
        Claim {
            key: self.key.clone(),
            body: self.body,
            by: self.counts.id().clone(),
            expires_at: self.expires_at,
            batch: None,
        }
    }
}
