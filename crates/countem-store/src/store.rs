//! The contract of a store.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use countem_core::{
    Batch, Bucket, BucketRange, Claim, CollectionName, MetricName, Quarantined, Schedules, Writer,
    jiff::Timestamp,
};

use crate::{ErrorKind, Held, Release, Released, RowQuery, Rows, StoreError, extent};

/// A place that keeps counters for ever and adds every batch exactly once.
///
/// # The contract
///
/// **Identity.** A batch is recognised by its [`BatchId`](countem_core::BatchId). One writer sends the batches of one lane in
/// the order of `seq`, and the next one only after the one before is resolved. Two lanes never touch the same collection.
///
/// **`apply` is idempotent.** Applying a batch twice equals applying it once, whatever happened in between: a copy of
/// batch `n` that arrives after `n + 1` was applied changes nothing. A store may therefore remember a single number per
/// (writer, lane), or per document and writer, and must remember it in the same atomic step as the counts.
///
/// **`apply` is additive.** Concurrent batches of different writers to the same counter all count.
///
/// **`apply` reports what is known.** `Ok` means that every delta but the quarantined ones is stored durably, as safely as
/// the store was configured to be. An error of kind [`NotApplied`](crate::ErrorKind::NotApplied) or
/// [`Refused`](crate::ErrorKind::Refused) means that nothing was stored *by this call*;
/// [`InDoubt`](crate::ErrorKind::InDoubt) means that any part of it may have been. In each case the caller sends the *same batch*
/// again until it is resolved.
///
/// **A mark moves with its batch.** A batch with a [`Mark`](countem_core::Mark) is added only while the mark is at the value
/// that the batch expects, and moves it in the same atomic step; otherwise nothing is stored
/// ([`Conflict`](crate::ErrorKind::Conflict)). The identity is checked first, so a copy of the batch is no conflict.
///
/// **One bad counter spoils nothing else.** A delta that cannot be added (the sum leaves `i64`, the stored value is
/// no number) is quarantined alone and durably reported: applying the same batch again reports it again, until the
/// batch's writer has moved on. Unless a journal keeps it ([`Batch::is_journaled`]), the store does until it is
/// [released](Self::release).
///
/// **Reads are exact.** A read sees every batch that was resolved before it began. `in_flight` is the caller's own
/// unresolved batch: the read answers as if it had been applied exactly once, whether or not it already was. A page
/// ([`Select::Page`](crate::Select::Page)) holds in each bucket the first selected metrics in byte order, `in_flight` included.
/// A counter without an exact value (the sum leaves `i64`, a stored value is no whole number) is in the answer as
/// [`Unreadable`](crate::Unreadable), neither left out nor guessed, and spoils no other.
///
/// **Names are opaque.** Whatever the rules of [`CollectionName`] and [`MetricName`](countem_core::MetricName) admit is stored and read back
/// identically, and no two names are ever mixed up.
///
/// Implementations are called from many tasks at once. Callers do not drop the future of `apply` before it is finished.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Adds a batch exactly once; see the contract above.
    ///
    /// # Errors
    /// The kind of the error says what is known; the caller sends the same batch again.
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError>;

    /// Forgets the bookkeeping of a writer that ended with every batch resolved and none ever in doubt.
    ///
    /// Called at most once per writer, as its last call, and only when no late copy of any of its batches can exist. A store may
    /// forget later, at the latest when it is dropped.
    ///
    /// # Errors
    /// The bookkeeping stays, which is harmless.
    async fn forget(&self, writer: &Writer) -> Result<(), StoreError>;

    /// Registers `writer` for this process, before its first batch; for writers whose identity lies on a disk, which may be copied.
    ///
    /// The default, for stores without a register, returns [`Registration::Fresh`].
    ///
    /// # Errors
    /// The registration is not known to be stored. Registering again is harmless.
    async fn register(&self, writer: &Writer) -> Result<Registration, StoreError> {
        let _ = writer;
        Ok(Registration::Fresh)
    }

    /// Tells whether this store would recognise a batch of `writer` that it has. It does not once the bookkeeping of the writer
    /// is forgotten, and says so for ever of every writer that was registered, and of those of its node before it. The batch
    /// of an old backup of a journal must not be sent then: it would be added a second time.
    ///
    /// The default, for stores without a register, returns true.
    ///
    /// # Errors
    /// It is not known.
    async fn remembers(&self, writer: &Writer) -> Result<bool, StoreError> {
        let _ = writer;
        Ok(true)
    }

    /// Retires a writer that ended with every batch resolved, of which some may have been in doubt: its bookkeeping may be
    /// forgotten once no late copy of a batch can exist. The default keeps it.
    ///
    /// # Errors
    /// The bookkeeping stays, which is harmless.
    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        let _ = writer;
        Ok(())
    }

    /// Retires the earlier writers of the node of `writer`, which were killed and could not do it themselves: all their batches are
    /// resolved, by `writer` or before. The default keeps their bookkeeping.
    ///
    /// # Errors
    /// The bookkeeping stays, which is harmless.
    async fn retire_predecessors(&self, writer: &Writer) -> Result<(), StoreError> {
        let _ = writer;
        Ok(())
    }

    /// Returns the counters that `query` selects, as if `in_flight` had been applied exactly once.
    ///
    /// # Errors
    /// The store could not be read.
    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError>;

    /// Lists all collections that hold a counter, sorted.
    ///
    /// # Errors
    /// The store could not be read.
    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError>;

    /// Returns the buckets from the first to the last of `range` in which `collection` has a counter; `None` where none has.
    ///
    /// # Errors
    /// The store could not be read.
    async fn extent(
        &self,
        collection: &CollectionName,
        range: BucketRange,
    ) -> Result<Option<BucketRange>, StoreError> {
        Ok(extent(&self.read(&RowQuery::any_metric(collection.clone(), range), None).await?))
    }

    /// Lists the counts in the store's own quarantine.
    ///
    /// # Errors
    /// The store could not be read. The default returns [`Unsupported`](crate::ErrorKind::Unsupported): the store has no quarantine.
    async fn quarantined(&self) -> Result<Vec<Held>, StoreError> {
        Err(no_quarantine())
    }

    /// Ends the quarantine of a count, in one step with what becomes of it: however often it is repeated, a count is added at
    /// most once, and is in quarantine or released.
    ///
    /// # Errors
    /// As [`apply`](Self::apply). Releasing again is harmless.
    async fn release(&self, held: &Held, release: Release) -> Result<Released, StoreError> {
        let _ = (held, release);
        Err(no_quarantine())
    }

    /// Returns the marks whose keys begin with `prefix`, by key. A batch that moves one of them and is not resolved is
    /// either in its mark and in the counters, or in neither.
    ///
    /// # Errors
    /// The store could not be read, or it has no marks ([`Unsupported`](crate::ErrorKind::Unsupported)).
    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError>;

    /// Claims idempotency keys at `now`, each for its entry, and returns the outcomes in the order of `claims`. No key comes twice.
    ///
    /// Of all entries that claim a key one wins, until the claim has expired; claiming again for the same entry wins again. An outcome
    /// is as durable as a batch. The batch of a claim is added exactly once if the claim wins, and nothing of it otherwise: before
    /// another entry learns that it repeats that one.
    ///
    /// # Errors
    /// [`InDoubt`](crate::ErrorKind::InDoubt): any of the claims may have won. Other kinds: this call has claimed nothing. Claiming again
    /// is harmless. The default returns [`Unsupported`](crate::ErrorKind::Unsupported): the store keeps no keys.
    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        let _ = (claims, now);
        Err(StoreError::new(ErrorKind::Unsupported, "this store keeps no idempotency keys"))
    }

    /// Returns the recorded schedules, by which everything in the store is counted; `None` when none were ever recorded.
    ///
    /// The default, for stores without a record, returns `None`: readers and writers then go by their configuration.
    ///
    /// # Errors
    /// The store could not be read.
    async fn schedules(&self) -> Result<Option<Schedules>, StoreError> {
        Ok(None)
    }

    /// Records `schedules` if the store has those of the [revision](Schedules::revision) before, and returns what is recorded then: the
    /// same, or what another process has recorded. What is returned is stored as durably as a batch.
    ///
    /// The default, for stores without a record, returns `schedules`.
    ///
    /// # Errors
    /// The record is not known to be stored. Recording again is harmless.
    async fn record_schedules(&self, schedules: &Schedules) -> Result<Schedules, StoreError> {
        Ok(schedules.clone())
    }

    /// Removes counters of buckets that had expired two hours before `now` by the recorded schedules, at most `limit` of them, in one
    /// short transaction. Returns how many were removed; zero when none is left. A delta for a bucket that may have been removed is
    /// quarantined from then on.
    ///
    /// The default, for stores without a record or with a removal of their own, removes nothing.
    ///
    /// # Errors
    /// It is not known what was removed. Removing again is harmless.
    async fn remove_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let _ = (now, limit);
        Ok(0)
    }

    /// Removes those of `counters` whose value is zero, so that they are listed no more, and returns how many: a counter that was
    /// renamed or deleted. Each is looked at and removed in one step, so that no count of a writer is lost, and no sum ever changes.
    ///
    /// A store may keep a zero that it cannot remove in one step. The default keeps all.
    ///
    /// # Errors
    /// It is not known what was removed. Removing again is harmless.
    async fn remove_zeros(
        &self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        let _ = (collection, counters);
        Ok(0)
    }

    /// Compacts buckets that had ended two days before `now`: looks at no more than `limit` of them, and returns at how many; zero when
    /// nothing is left to do for now. No value of a counter changes, whatever else writes or reads at the same time, and no batch that
    /// [is remembered](Self::remembers) is forgotten.
    ///
    /// The default, for stores that keep a counter in one place anyway, has nothing to do.
    ///
    /// # Errors
    /// Some buckets were not compacted. Compacting again is harmless.
    async fn compact(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let _ = (now, limit);
        Ok(0)
    }

    /// Checks that the store can be reached and used with the given rights.
    ///
    /// # Errors
    /// [`StoreError`]: the obstacle, in words that help to remove it.
    async fn check(&self) -> Result<(), StoreError>;

    /// Examines how the counters are stored, and returns what is damaged, in words. The default has nothing to examine: a read
    /// finds all damage.
    ///
    /// # Errors
    /// The store could not be examined.
    async fn verify(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Returns the URI of the store without any secret, for logs and messages.
    fn location(&self) -> String;
}

/// Result of [`Store::register`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// No other process has used this writer, nor a later incarnation of its node.
    Fresh,
    /// Another process has: the data directory was copied, or restored from an older copy. The process needs a new identity before
    /// it counts; batches that are frozen already keep theirs, because every copy of the directory has the same batches.
    Cloned,
}

/// Result of [`Store::apply`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Deltas that could not be added. All others were.
    pub quarantined: Vec<Quarantined>,
}

/// Outcome of a claim in [`Store::claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The key belongs to this entry: the request is counted by it. Holds the result of the claim's batch.
    Won(Applied),
    /// Another entry has the key, with the same body: the request is counted by that one.
    Repeat,
    /// Another entry has the key, with another body: the request is not counted.
    Mismatch,
}

fn no_quarantine() -> StoreError {
    StoreError::new(ErrorKind::Unsupported, "this store keeps no quarantine")
}

#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        (**self).apply(batch).await
    }
    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        (**self).forget(writer).await
    }
    async fn register(&self, writer: &Writer) -> Result<Registration, StoreError> {
        (**self).register(writer).await
    }
    async fn remembers(&self, writer: &Writer) -> Result<bool, StoreError> {
        (**self).remembers(writer).await
    }
    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        (**self).retire(writer).await
    }
    async fn retire_predecessors(&self, writer: &Writer) -> Result<(), StoreError> {
        (**self).retire_predecessors(writer).await
    }
    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        (**self).read(query, in_flight).await
    }
    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        (**self).collections().await
    }
    async fn extent(
        &self,
        collection: &CollectionName,
        range: BucketRange,
    ) -> Result<Option<BucketRange>, StoreError> {
        (**self).extent(collection, range).await
    }
    async fn quarantined(&self) -> Result<Vec<Held>, StoreError> {
        (**self).quarantined().await
    }
    async fn release(&self, held: &Held, release: Release) -> Result<Released, StoreError> {
        (**self).release(held, release).await
    }
    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        (**self).marks(prefix).await
    }
    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        (**self).claim(claims, now).await
    }
    async fn schedules(&self) -> Result<Option<Schedules>, StoreError> {
        (**self).schedules().await
    }
    async fn record_schedules(&self, schedules: &Schedules) -> Result<Schedules, StoreError> {
        (**self).record_schedules(schedules).await
    }
    async fn remove_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        (**self).remove_expired(now, limit).await
    }
    async fn remove_zeros(
        &self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        (**self).remove_zeros(collection, counters).await
    }
    async fn compact(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        (**self).compact(now, limit).await
    }
    async fn check(&self) -> Result<(), StoreError> {
        (**self).check().await
    }
    async fn verify(&self) -> Result<Vec<String>, StoreError> {
        (**self).verify().await
    }
    fn location(&self) -> String {
        (**self).location()
    }
}
