//! Sending again: exponential backoff with jitter.

use std::{sync::Arc, time::Duration};

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
/// Returns the answer of the store, and `true` if any attempt was in doubt: if none was, the store may forget the writer.
///
/// # Errors
/// The refusal of the store (an operator has to act), a conflict (the mark of the batch is elsewhere), or the last error when `deadline` has passed. It is in doubt if any
/// attempt was: the batch may then be stored, and only sending the same batch again can tell.
///
/// # Cancel safety
/// Dropping the future leaves the batch in doubt, and may drop the store's own future, which stores do not allow: give up on
/// a task that runs it instead.
pub async fn deliver(
    store: &dyn Store,
    batch: &Arc<Batch>,
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
        // The store looked for the batch before it compared the mark.
        if error.kind() == ErrorKind::Conflict {
            return Err(error);
        }
        let wait = retry.next_wait();
        let is_final = matches!(error.kind(), ErrorKind::Refused | ErrorKind::Unsupported);
        if is_final || tokio::time::Instant::now() + wait > deadline {
            return Err(if doubted { in_doubt(error) } else { error });
        }
        tracing::warn!(batch = %batch.id(), %error, "batch is not stored yet, trying again");
        tokio::time::sleep(wait).await;
    }
}

/// Returns the last error as one in doubt: an attempt before it may have succeeded.
fn in_doubt(last: StoreError) -> StoreError {
    if last.kind() == ErrorKind::InDoubt {
        return last;
    }
    StoreError::new(ErrorKind::InDoubt, "an attempt was never answered, so the batch may be stored")
        .with_source(last)
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use countem_core::{BatchId, Table, Writer};
    use countem_store::{Fault, FaultyStore, MemoryStore};

    use super::*;

    #[tokio::test]
    async fn delivery_ever_in_doubt_ends_in_doubt() {
        let mut table = Table::new();
        table.fold("c", "m", "2026-11-20".parse().unwrap(), 1).unwrap();
        let batch =
            Arc::new(Batch::new(BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 }, table.drain()));
        for (first, kind) in [(Fault::LoseReply, ErrorKind::InDoubt), (Fault::Fail, ErrorKind::NotApplied)] {
            let (store, faults) = FaultyStore::new(MemoryStore::new());
            faults.then([first]);
            faults.otherwise(Fault::Fail);
            let deadline = tokio::time::Instant::now() + Duration::from_millis(50);
            let retry = Retry::new(Duration::from_millis(1), Duration::from_millis(5));
            let error = deliver(&store, &batch, retry, deadline).await.unwrap_err();
            assert_eq!(error.kind(), kind);
        }
    }
}
