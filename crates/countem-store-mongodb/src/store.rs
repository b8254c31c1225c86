//! The store: the contract of [`Store`] on top of the other modules.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use countem_core::{
    Batch, Bucket, BucketRange, Claim, CollectionName, Delta, MetricName, Schedules, Writer, jiff::Timestamp,
};
use countem_store::{
    Applied, Claimed, ErrorKind, Held, Registration, Release, Released, RowQuery, Rows, Store, StoreError,
    async_trait,
};
use futures_util::{StreamExt, future, stream};
use mongodb::bson::rawdoc;

use crate::{
    MongoConfig,
    apply::{self, Context, Limits, Outcome},
    check, claims, command,
    compaction::Compaction,
    connection::Connection,
    document::{COUNTERS, DocumentId, KEYS},
    expiry::Indexes,
    held,
    known_splits::KnownSplits,
    marks,
    names::collection_in,
    read, registry, schedule,
    sent_batches::{SentBatches, SentBefore},
    zeros,
};

/// Keeps counters in a MongoDB database; see the [crate's documentation](crate) for the documents.
///
/// Belongs to the tokio runtime on which its methods are called: the first call that needs the server makes a client whose
/// connections live there.
#[derive(Debug)]
pub struct MongoStore {
    connection: Connection,
    splits: KnownSplits,
    sent: SentBatches,
    indexes: Indexes,
}

/// Maximum number of collections that are examined at once.
const MAX_CONCURRENT_LOOKUPS: usize = 8;

/// Age at which the watermarks of a retired writer are removed. Longer than any request or unresolved batch can live, and than
/// a journal keeps batches for a replay.
const WATERMARK_RETENTION: Duration = Duration::from_secs(48 * 3600);

impl MongoStore {
    /// Prepares a store; contacts no server. A server that is away is an error only of the first call that needs it, so that a
    /// service starts and counts without. [`check`](Store::check) tells at once.
    ///
    /// # Errors
    /// The URI is malformed, or has an option that does not exist.
    pub fn connect(config: MongoConfig) -> Result<Self, StoreError> {
        Ok(Self {
            connection: Connection::new(config)?,
            splits: KnownSplits::default(),
            sent: SentBatches::default(),
            indexes: Indexes::default(),
        })
    }

    /// Removes from long-lived documents (weeks, months, years and `all`) the watermarks of writers that were
    /// [retired](Store::retire) at least `age` ago, and returns how many documents had some.
    /// Documents of days and finer periods keep theirs.
    ///
    /// `age` has to be longer than any request or unresolved batch can live; 48 hours are meant.
    ///
    /// # Errors
    /// Some watermarks may be left. Pruning again goes on.
    pub async fn prune(&self, age: Duration) -> Result<usize, StoreError> {
        let writers = registry::retired_before(&self.connection, age).await?;
        if writers.is_empty() {
            return Ok(0);
        }
        registry::prune(&self.connection, &writers, &self.collections().await?).await
    }

    fn context(&self) -> Context<'_> {
        let config = &self.connection.config;
        let limits = Limits {
            metrics: config.metrics_per_document.get(),
            writer_shards: config.writer_shards.get().into(),
        };
        Context { connection: &self.connection, splits: &self.splits, indexes: &self.indexes, limits }
    }

    /// Adds the deltas of a batch to their documents, whatever its mark.
    async fn add(&self, batch: Arc<Batch>, is_new: bool) -> Result<Applied, StoreError> {
        let deltas: Vec<Delta<'_>> = batch.deltas().collect();
        let runs = deltas
            .chunk_by(|a, b| a.collection == b.collection)
            .map(|deltas| apply::apply(self.context(), &batch, deltas[0].collection, deltas, is_new));
        conclude(future::join_all(runs).await)
    }

    /// Tells whether a MongoDB collection holds documents of countem: it may be empty, or belong to another program.
    async fn holds_counters(&self, stored_in: &str) -> Result<bool, StoreError> {
        let any = rawdoc! {};
        // Documents whose counters were all renamed or deleted hold watermarks alone.
        let with_counters = rawdoc! { COUNTERS: { "$exists": true, "$ne": {} } };
        for filter in [any, with_counters] {
            let find = rawdoc! {
                "find": stored_in, "filter": filter, "projection": { "_id": 1 }, "sort": { "_id": 1 }, "limit": 1,
            };
            let mut holds = false;
            command::read(&self.connection, stored_in, find, |document| {
                holds = DocumentId::of(document).is_some();
                Ok(())
            })
            .await?;
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[async_trait]
impl Store for MongoStore {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let id = batch.id();
        let is_new = self.sent.begin(batch) == SentBefore::Never;
        let result = match batch.mark() {
            None => self.add(Arc::clone(batch), is_new).await,
            // Another process may be completing the batch, so it never counts as new.
            Some(mark) => marks::apply(&self.connection, batch, mark, |batch| self.add(batch, false)).await,
        };
        match &result {
            Ok(_) => self.sent.resolved(id),
            Err(error) if error.kind() == ErrorKind::InDoubt => self.sent.in_doubt(&id.writer),
            Err(_) => {}
        }
        result
    }

    /// Removes the watermarks that batches of this object left. A writer that was in doubt keeps its watermarks, because a copy
    /// of its request may still arrive; [`retire`](Store::retire) it instead.
    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        let traces = self.sent.forget(writer);
        if traces.was_in_doubt {
            let why = format!(
                "the watermarks of `{writer}` stay: an answer was lost, and a copy of the request may be late"
            );
            return Err(StoreError::new(ErrorKind::NotApplied, why));
        }
        if !traces.marks.is_empty() {
            // Another process may be completing a batch that was pending in a mark, and needs the watermarks of the counters.
            marks::forget(&self.connection, writer, &traces.marks).await?;
            return self.retire(writer).await;
        }
        if traces.dropped > 0 {
            tracing::debug!(%writer, buckets = traces.dropped, "watermarks of the oldest buckets stay");
        }
        // Only the writers of journals are registered.
        if writer.drawn().is_some() {
            registry::mark_forgotten(&self.connection, writer).await?;
        }
        let forgetting = traces
            .touched
            .iter()
            .map(|(collection, buckets)| registry::forget(&self.connection, writer, collection, buckets));
        future::join_all(forgetting).await.into_iter().collect()
    }

    async fn register(&self, writer: &Writer) -> Result<Registration, StoreError> {
        registry::register(&self.connection, writer).await
    }

    async fn remembers(&self, writer: &Writer) -> Result<bool, StoreError> {
        registry::remembers(&self.connection, writer).await
    }

    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        registry::retire(&self.connection, writer).await?;
        // Pruning with every retirement keeps long-lived documents small without a background task.
        self.prune(WATERMARK_RETENTION).await.map(drop)
    }

    async fn retire_predecessors(&self, writer: &Writer) -> Result<(), StoreError> {
        registry::retire_predecessors(&self.connection, writer).await?;
        self.prune(WATERMARK_RETENTION).await.map(drop)
    }

    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        read::read(&self.connection, query, in_flight).await
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        let list = rawdoc! { "listCollections": 1, "nameOnly": true, "authorizedCollections": true };
        let mut candidates = Vec::new();
        command::read(&self.connection, "the names of collections", list, |document| {
            let name = document.get_str("name").ok();
            candidates
                .extend(name.and_then(|stored_in| Some((stored_in.to_owned(), collection_in(stored_in)?))));
            Ok(())
        })
        .await?;
        let lookups = candidates.into_iter().map(|(stored_in, name)| async move {
            Ok(self.holds_counters(&stored_in).await?.then_some(name))
        });
        let found: Vec<_> = stream::iter(lookups).buffer_unordered(MAX_CONCURRENT_LOOKUPS).collect().await;
        let names: Result<Vec<_>, StoreError> = found.into_iter().filter_map(Result::transpose).collect();
        let mut names = names?;
        names.sort_unstable();
        Ok(names)
    }

    async fn extent(
        &self,
        collection: &CollectionName,
        range: BucketRange,
    ) -> Result<Option<BucketRange>, StoreError> {
        read::extent(&self.connection, collection.as_str(), range).await
    }

    async fn quarantined(&self) -> Result<Vec<Held>, StoreError> {
        let mut all = Vec::new();
        for collection in self.collections().await? {
            all.extend(held::list(&self.connection, &collection).await?);
        }
        Ok(all)
    }

    async fn release(&self, held: &Held, release: Release) -> Result<Released, StoreError> {
        held::release(self.context(), held, release).await
    }

    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        marks::read(&self.connection, prefix, |batch| self.add(batch, false)).await
    }

    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        self.indexes.prepare(&self.connection, KEYS).await;
        claims::claim(&self.connection, claims, now, |batch| self.add(batch, false)).await
    }

    async fn schedules(&self) -> Result<Option<Schedules>, StoreError> {
        schedule::read(&self.connection).await
    }

    async fn record_schedules(&self, schedules: &Schedules) -> Result<Schedules, StoreError> {
        schedule::record(&self.connection, schedules).await
    }

    async fn remove_zeros(
        &self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        zeros::remove(&self.connection, collection, counters).await
    }

    /// Changes nothing on a standalone server, which has no transactions.
    async fn compact(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let Some(compaction) = Compaction::due(&self.connection, now).await? else { return Ok(0) };
        if compaction.is_beginning() {
            self.prune(WATERMARK_RETENTION).await?;
        }
        compaction.go_on(&self.collections().await?, limit).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        check::check(&self.connection).await
    }

    fn location(&self) -> String {
        self.connection.at().to_owned()
    }
}

/// Combines the outcomes of a batch's collections.
fn conclude(outcomes: Vec<Outcome>) -> Result<Applied, StoreError> {
    let stored = outcomes.iter().any(|outcome| outcome.stored);
    let mut applied = Applied::default();
    let mut result = Ok(());
    for outcome in outcomes {
        match outcome.result {
            Ok(quarantined) => applied.quarantined.extend(quarantined),
            Err(error) => result = apply::more_doubtful(result, Err(error)),
        }
    }
    match result {
        Ok(()) => Ok(applied),
        // A part of the batch is stored, so the batch as a whole is in doubt.
        Err(error) if stored && error.kind() != ErrorKind::InDoubt => {
            Err(StoreError::new(ErrorKind::InDoubt, format!("{error}; the rest of the batch is stored")))
        }
        Err(error) => Err(error),
    }
}
