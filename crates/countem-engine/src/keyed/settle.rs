//! Claiming the keys of a group, and the outcome of each request.

use std::sync::Arc;

use countem_core::{Claim, Delta, Schedules};
use countem_store::{Claimed, ErrorKind, StoreError};

use super::{Desk, Keyed, KeyedError, desk::Entry};

impl Desk {
    /// Claims the keys of entries, and decides them.
    pub(super) async fn settle(self: &Arc<Self>, entries: Vec<Entry>) {
        if *self.is_over.read().await {
            return;
        }
        match self.claim(entries.iter().map(|entry| self.claim_of(entry)).collect()).await {
            Ok(outcomes) => {
                let decided = entries.into_iter().zip(outcomes).collect();
                match &self.recorder {
                    Some(recorder) => self.record(recorder, decided).await,
                    None => self.note_applied(decided).await,
                }
            }
            Err(error) => self.not_claimed(entries, &error).await,
        }
    }

    fn claim_of(&self, entry: &Entry) -> Claim {
        let batch = self.recorder.is_none().then(|| Arc::clone(&entry.entry.counts));
        Claim { batch, ..entry.entry.claim() }
    }

    async fn claim(&self, claims: Vec<Claim>) -> Result<Vec<Claimed>, StoreError> {
        let Some(store) = self.supervisor.store() else {
            return Err(StoreError::new(ErrorKind::NotApplied, "the collector was shut down"));
        };
        let (now, expected) = (self.intake.clock().now(), claims.len());
        // A task of its own: a store's future runs to its end, and may panic.
        let claimed = tokio::spawn(async move { store.claim(&claims, now).await }).await;
        let claimed = claimed.unwrap_or_else(|panicked| {
            Err(StoreError::new(ErrorKind::InDoubt, "the store panicked").with_source(panicked))
        })?;
        if claimed.len() != expected {
            return Err(StoreError::new(ErrorKind::InDoubt, "the store has not answered every claim"));
        }
        Ok(claimed)
    }

    /// Drops the entries of which the store certainly has no claim, and keeps the others for another attempt.
    async fn not_claimed(self: &Arc<Self>, mut entries: Vec<Entry>, error: &StoreError) {
        tracing::warn!(requests = entries.len(), %error, "idempotency keys are not claimed");
        let is_in_doubt = error.kind() == ErrorKind::InDoubt;
        entries.iter_mut().for_each(|entry| entry.may_be_claimed |= is_in_doubt);
        let (doubtful, free): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.may_be_claimed);
        let Some(recorder) = &self.recorder else {
            if is_in_doubt {
                self.change_writer();
            }
            for entry in free {
                self.finish(entry, Err(KeyedError::unavailable(error)));
            }
            return self.postpone(doubtful, &error.to_string().into());
        };
        self.drop_unclaimed(recorder, free, error).await;
        match error.kind() {
            ErrorKind::Unsupported => self.give_up(recorder, doubtful, error).await,
            _ => self.postpone(doubtful, &error.to_string().into()),
        }
    }

    /// Tells whether a delta that was counted by `counted` belongs into another bucket by `schedules`.
    pub(super) fn is_counted_otherwise(
        &self,
        delta: &Delta<'_>,
        counted: &Schedules,
        schedules: &Schedules,
    ) -> bool {
        let latest = self.intake.latest_possible_event();
        !schedules.of(delta.collection).counts_like(counted.of(delta.collection), delta.bucket, latest)
    }
}

/// Returns the answer to the caller of a request.
pub(super) fn answer(claimed: &Claimed) -> Keyed {
    match claimed {
        Claimed::Won(_) => Keyed::Counted,
        Claimed::Repeat => Keyed::Repeat,
        Claimed::Mismatch => Keyed::Mismatch,
    }
}
