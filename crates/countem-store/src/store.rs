//! The contract of a store.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use countem_core::{Batch, Bucket, BucketRange, CollectionName, Delta, MetricName, Quarantined, Writer};

use crate::StoreError;

/// The counters of one bucket: metric to value, sorted by metric.
pub type Counters = BTreeMap<String, i64>;

/// What a read returns: the counters of every bucket that has any.
pub type Rows = BTreeMap<Bucket, Counters>;

/// Keeps counters for ever and adds every batch exactly once.
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
/// **`apply` says what it knows.** `Ok` means that every delta but the quarantined ones is stored durably, as safely as
/// the store was configured to be. An error of kind [`NotApplied`](crate::ErrorKind::NotApplied) or
/// [`Refused`](crate::ErrorKind::Refused) means that nothing was stored *by this call*;
/// [`InDoubt`](crate::ErrorKind::InDoubt) means that any part of it may have been. In each case the caller sends the *same batch*
/// again until it is resolved.
///
/// **One bad counter spoils nothing else.** A delta that cannot be added (the sum leaves `i64`, the stored value is
/// no number) is quarantined alone and durably reported: applying the same batch again reports it again, until the
/// batch's writer has moved on.
///
/// **Reads are exact.** A read sees every batch that was resolved before it began. `in_flight` is the caller's own
/// unresolved batch: the read answers as if it had been applied exactly once, whether or not it already was.
///
/// **Names are opaque.** Whatever the rules of [`CollectionName`] and [`MetricName`] admit is stored and read back
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
    /// Called at most once per writer, as its last call, and only when no late copy of any of its batches can exist. A store may do
    /// it later, at the latest when it is dropped.
    ///
    /// # Errors
    /// Failing is harmless: bookkeeping stays behind.
    async fn forget(&self, writer: &Writer) -> Result<(), StoreError>;

    /// Claims `writer` for this process, before its first batch; for writers whose identity lies on a disk, which may be copied.
    ///
    /// The default, for stores that keep no register, finds every writer fresh.
    ///
    /// # Errors
    /// The claim is not known to be stored. Claiming again is harmless.
    async fn register(&self, writer: &Writer) -> Result<Registration, StoreError> {
        let _ = writer;
        Ok(Registration::Fresh)
    }

    /// Notes that `writer` ended with every batch resolved, although some may have been in doubt, or may have to be told apart
    /// from others for some time: its bookkeeping may go once no late copy can exist any more. The default keeps it.
    ///
    /// # Errors
    /// Failing is harmless: bookkeeping stays behind.
    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        let _ = writer;
        Ok(())
    }

    /// Returns the counters that `query` asks for, as if `in_flight` had been applied exactly once.
    ///
    /// # Errors
    /// The store could not be read.
    async fn read(&self, query: &Query, in_flight: Option<&Batch>) -> Result<Rows, StoreError>;

    /// Lists all collections that hold a counter, sorted.
    ///
    /// # Errors
    /// The store could not be read.
    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError>;

    /// Returns the value of the mark `key`, `None` when no batch has set it.
    ///
    /// # Errors
    /// The store could not be read, or it cannot set marks in the transaction of a batch
    /// ([`Unsupported`](crate::ErrorKind::Unsupported)).
    async fn mark(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// Checks that the store can be reached and used with the given rights.
    ///
    /// # Errors
    /// What a person has to know to repair it.
    async fn check(&self) -> Result<(), StoreError>;

    /// Names the store for people: a URI without any secret.
    fn location(&self) -> String;
}

/// What [`Store::register`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// No other process has used this writer, nor a later incarnation of its node.
    Fresh,
    /// Another process has: the data directory was copied, or restored from an older copy. The node needs a new identity before it
    /// counts; batches that it already froze keep theirs, because whoever has the same directory has the same batches.
    Cloned,
}

/// What [`Store::apply`] did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Deltas that could not be added. All others were.
    pub quarantined: Vec<Quarantined>,
}

/// What to read: some metrics of one collection in a range of buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The collection.
    pub collection: CollectionName,
    /// The buckets.
    pub range: BucketRange,
    /// The metrics.
    pub select: Select,
}

/// Which metrics of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// Every metric.
    All,
    /// One metric.
    One(MetricName),
}

impl Query {
    /// Asks for all metrics of one bucket.
    pub fn bucket(collection: CollectionName, bucket: Bucket) -> Self {
        Self { collection, range: BucketRange::one(bucket), select: Select::All }
    }

    /// Tells whether the query asks for the counter of `delta`.
    pub fn asks_for(&self, delta: &Delta<'_>) -> bool {
        delta.collection == self.collection.as_str()
            && self.range.contains(delta.bucket)
            && self.selects(delta.metric)
    }

    fn selects(&self, metric: &str) -> bool {
        match &self.select {
            Select::All => true,
            Select::One(one) => one.as_str() == metric,
        }
    }
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
    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        (**self).retire(writer).await
    }
    async fn read(&self, query: &Query, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        (**self).read(query, in_flight).await
    }
    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        (**self).collections().await
    }
    async fn mark(&self, key: &str) -> Result<Option<String>, StoreError> {
        (**self).mark(key).await
    }
    async fn check(&self) -> Result<(), StoreError> {
        (**self).check().await
    }
    fn location(&self) -> String {
        (**self).location()
    }
}
