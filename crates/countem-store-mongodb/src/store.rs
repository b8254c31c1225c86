//! The store.

use std::{sync::Arc, time::Duration};

use countem_core::{Batch, CollectionName, Delta, Writer};
use countem_store::{Applied, ErrorKind, Query, Registration, Rows, Store, StoreError, async_trait};
use futures_util::{StreamExt, future, stream};
use mongodb::bson::{RawDocument, RawDocumentBuf, doc};

use crate::{
    MongoConfig,
    apply::{self, Context, Outcome},
    command::{self, path, what},
    connection::Connection,
    document::{WATERMARKS, collection_in, id_bounds, mongo_collection, parse_id},
    error::without_effect,
    expiry::Expiry,
    ledger::{Ledger, Novelty},
    partition::Forest,
    read,
    registry::write_forgetting,
    target::Limits,
};

/// Keeps counters in a MongoDB database; see the [crate's documentation](crate) for what the documents look like.
///
/// Belongs to the tokio runtime on which its methods are called: the first call that needs the server makes a client whose
/// connections live there.
#[derive(Debug)]
pub struct MongoStore {
    pub(crate) connection: Connection,
    forest: Forest,
    ledger: Ledger,
    expiry: Expiry,
    /// Tells this object's entry in the registry from that of another process.
    pub(crate) instance: i64,
}

/// How many collections are looked at at once.
const LOOKED_AT: usize = 8;

impl MongoStore {
    /// Prepares a store; asks no server. That the servers are away is no error here but of the first call that needs them: a
    /// service starts and counts without them. [`check`](Store::check) says at once how things are.
    ///
    /// # Errors
    /// The URI is malformed, or has an option that does not exist.
    pub fn connect(options: MongoConfig) -> Result<Self, StoreError> {
        let expiry = Expiry::new(options.retention);
        Ok(Self {
            connection: Connection::new(options)?,
            forest: Forest::default(),
            ledger: Ledger::default(),
            expiry,
            instance: rand::random(),
        })
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.connection.options.deadline
    }

    /// Sends a `find` and hands each document to `each`.
    pub(crate) async fn fetch(
        &self,
        collection: &str,
        find: RawDocumentBuf,
        each: impl FnMut(&RawDocument) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let fetched = command::fetch(&self.connection, find, each).await;
        fetched
            .map_err(|failure| without_effect(self.connection.explain(&what("read", collection), failure)))?
    }

    fn context(&self) -> Context<'_> {
        let options = &self.connection.options;
        let limits = Limits {
            metrics: options.metrics_per_document.get(),
            writer_shards: options.writer_shards.get().into(),
        };
        Context { connection: &self.connection, forest: &self.forest, expiry: &self.expiry, limits }
    }

    /// Tells whether a MongoDB collection holds documents of countem, and not none or those of somebody else.
    async fn holds_counters(&self, stored_in: &str) -> Result<bool, StoreError> {
        let find = doc! { "find": stored_in, "projection": { "_id": 1 }, "sort": { "_id": 1 }, "limit": 1 };
        let find = RawDocumentBuf::try_from(&find).expect("a constant command can be written");
        let mut holds = false;
        self.fetch(stored_in, find, |document| {
            holds = document.get_str("_id").ok().and_then(parse_id).is_some();
            Ok(())
        })
        .await?;
        Ok(holds)
    }
}

/// Longer than any request or unresolved batch can live, and than a journal keeps batches for a replay.
const KEPT_AFTER_END: Duration = Duration::from_secs(48 * 3600);

#[async_trait]
impl Store for MongoStore {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        if batch.mark().is_some() {
            return Err(no_marks());
        }
        let id = batch.id();
        let is_new = self.ledger.begin(batch) == Novelty::New;
        let deltas: Vec<Delta<'_>> = batch.deltas().collect();
        let runs = deltas
            .chunk_by(|a, b| a.collection == b.collection)
            .map(|deltas| apply::apply(self.context(), id, deltas[0].collection, deltas, is_new));
        let outcomes = future::join_all(runs).await;
        let result = conclude(outcomes);
        match &result {
            Ok(_) => self.ledger.resolved(id),
            Err(error) if error.kind() == ErrorKind::InDoubt => self.ledger.doubted(&id.writer),
            Err(_) => {}
        }
        result
    }

    /// Removes the watermarks that batches of this object left. Those of a writer of whom a copy may still arrive are left where
    /// they are; hand it to [`release`](MongoStore::release).
    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        let traces = self.ledger.forget(writer);
        if traces.doubted {
            let why = format!(
                "the watermarks of `{writer}` stay: an answer was lost, and a copy of the request may be late"
            );
            return Err(StoreError::new(ErrorKind::NotApplied, why));
        }
        if traces.forgotten > 0 {
            tracing::debug!(%writer, buckets = traces.forgotten, "watermarks of the oldest buckets stay");
        }
        let writers = std::slice::from_ref(writer);
        let watermark = path(WATERMARKS, writer.as_str());
        let forgetting = traces.touched.iter().map(|(collection, buckets)| {
            let stored_in = mongo_collection(collection);
            let command = command::update(&stored_in, self.deadline(), 0, buckets, |update, bucket| {
                let (from, to) = id_bounds(*bucket, *bucket);
                update.document("q", |query| {
                    query.document("_id", |id| {
                        id.string("$gte", &from);
                        id.string("$lt", &to);
                    });
                    query.document(&watermark, |field| field.boolean("$exists", true));
                });
                update.document("u", |change| write_forgetting(change, writers));
                update.boolean("multi", true);
            });
            async move { self.ask(&what("retire a writer from", &stored_in), command?).await }
        });
        for result in future::join_all(forgetting).await {
            result?;
        }
        Ok(())
    }

    async fn register(&self, writer: &Writer) -> Result<Registration, StoreError> {
        self.claim(writer).await
    }

    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        self.note_end(writer).await?;
        // Whoever ends sweeps: so long-lived documents are pruned without a task that has to run somewhere.
        self.prune(KEPT_AFTER_END).await.map(drop)
    }

    async fn read(&self, query: &Query, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        read::read(&self.connection, query, in_flight).await
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        let list = doc! { "listCollections": 1, "nameOnly": true, "authorizedCollections": true };
        let list = RawDocumentBuf::try_from(&list).expect("a constant command can be written");
        let mut candidates = Vec::new();
        self.fetch("the names of collections", list, |document| {
            let name = document.get_str("name").ok();
            candidates
                .extend(name.and_then(|stored_in| Some((stored_in.to_owned(), collection_in(stored_in)?))));
            Ok(())
        })
        .await?;
        let looks = candidates.into_iter().map(|(stored_in, name)| async move {
            Ok(self.holds_counters(&stored_in).await?.then_some(name))
        });
        let looked_at: Vec<_> = stream::iter(looks).buffer_unordered(LOOKED_AT).collect().await;
        let names: Result<Vec<_>, StoreError> = looked_at.into_iter().filter_map(Result::transpose).collect();
        let mut names = names?;
        names.sort_unstable();
        Ok(names)
    }

    async fn mark(&self, _key: &str) -> Result<Option<String>, StoreError> {
        Err(no_marks())
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.examine().await
    }

    fn location(&self) -> String {
        self.connection.at().to_owned()
    }
}

/// A mark becomes true in the transaction of its batch, and a batch here is one atomic step for each document, not one in all.
fn no_marks() -> StoreError {
    StoreError::new(
        ErrorKind::Unsupported,
        "MongoDB cannot set a mark together with the counts of a batch; use a store in a file for this",
    )
}

/// Draws the conclusion for the whole batch from its collections.
fn conclude(outcomes: Vec<Outcome>) -> Result<Applied, StoreError> {
    let stored = outcomes.iter().any(|outcome| outcome.stored);
    let mut applied = Applied::default();
    let mut result = Ok(());
    for outcome in outcomes {
        match outcome.result {
            Ok(quarantined) => applied.quarantined.extend(quarantined),
            Err(error) => result = apply::worse(result, Err(error)),
        }
    }
    match result {
        Ok(()) => Ok(applied),
        // The rest of the batch is in by now, so it cannot be said that nothing happened.
        Err(error) if stored && error.kind() != ErrorKind::InDoubt => {
            Err(StoreError::new(ErrorKind::InDoubt, format!("{error}; the rest of the batch is stored")))
        }
        Err(error) => Err(error),
    }
}
