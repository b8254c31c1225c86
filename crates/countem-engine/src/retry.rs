//! Trying again: exponential backoff with jitter.

use std::time::Duration;

use countem_core::Batch;
use countem_store::{Applied, ErrorKind, Store, StoreError};
use rand::Rng;

/// Waits between attempts: each up to twice as long as the one before, of random length so that nodes do not retry in step.
#[derive(Debug, Clone)]
pub struct Retry {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Retry {
    /// Returns waits that begin with about `first` and never exceed `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first.min(longest) }
    }

    /// Returns the next wait: between half of and the whole current step.
    pub fn next_wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Begins with the first wait again.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.longest);
    }
}

/// Sends one batch until it is resolved, for callers that bring their own batches instead of counting through an engine.
///
/// Returns what the store did, and whether any attempt was ever in doubt: if none was, the writer may be retired.
///
/// # Errors
/// The last error, when the store refuses (a person has to act) or `deadline` has passed. The batch may then still be stored
/// if that error is in doubt; only sending the same batch again can tell.
///
/// # Cancel safety
/// Dropping the future leaves the batch in doubt.
pub async fn deliver(
    store: &dyn Store,
    batch: &Batch,
    mut retry: Retry,
    deadline: tokio::time::Instant,
) -> Result<(Applied, bool), StoreError> {
    let mut doubted = false;
    loop {
        let error = match store.apply(batch).await {
            Ok(applied) => return Ok((applied, doubted)),
            Err(error) => error,
        };
        doubted |= error.kind() == ErrorKind::InDoubt;
        if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Unsupported) {
            return Err(error);
        }
        let wait = retry.next_wait();
        if tokio::time::Instant::now() + wait > deadline {
            return Err(error);
        }
        tracing::warn!(batch = %batch.id(), %error, "batch is not stored yet, trying again");
        tokio::time::sleep(wait).await;
    }
}
