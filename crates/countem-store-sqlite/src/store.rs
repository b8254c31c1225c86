//! The store.

use std::sync::Arc;

use countem_core::{Batch, CollectionName, Writer};
use countem_store::{Applied, Query, Rows, Store, StoreError, async_trait, overlay};

use crate::{
    SqliteConfig,
    batch::OwnedBatch,
    read,
    reader::ReadThreads,
    writer::{Session, WriteWorker},
};

/// Keeps counters in one SQLite file.
///
/// Dropping the store finishes what was asked and closes the file; it blocks for that long.
#[derive(Debug)]
pub struct SqliteStore {
    location: String,
    // Dropped in this order: the connection that writes closes last, because it tidies up.
    readers: ReadThreads,
    writer: WriteWorker,
}

impl SqliteStore {
    /// Opens the file, creates it when it is missing, and brings its tables up to date when they are older.
    ///
    /// Blocks: usually for less than a millisecond, and for up to the busy timeout when another process is in the way. Needs
    /// no async runtime, and neither do the methods.
    ///
    /// # Errors
    /// The file cannot be used: it belongs to another program, is damaged, read-only or newer than this countem, or its folder
    /// is missing. It is then left as it was.
    pub fn open(options: SqliteConfig) -> Result<Self, StoreError> {
        let location = format!("sqlite://{}", options.path.display());
        let writer = WriteWorker::start(options.clone())?;
        Ok(Self { location, readers: ReadThreads::new(options), writer })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let copy = OwnedBatch::new(batch);
        self.writer.ask(move |session| session.apply(&copy)).await
    }

    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        let writer = writer.clone();
        let retire = move |session: &mut Session| {
            if let Err(error) = session.forget(&writer) {
                tracing::debug!(%error, %writer, "the bookkeeping of a writer stays in the store");
            }
        };
        // Without waiting: a thread may then close the file in the same turn.
        self.writer.tell(retire).await
    }

    async fn read(&self, query: &Query, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        let (asked, id) = (query.clone(), in_flight.map(|batch| batch.id().clone()));
        let snapshot =
            self.readers.ask(move |connection| read::snapshot(connection, &asked, id.as_ref())).await?;
        let mut rows = snapshot.rows;
        if let Some(batch) = in_flight.filter(|_| !snapshot.is_applied) {
            overlay(&mut rows, query, batch.deltas());
        }
        Ok(rows)
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        self.readers.ask(|connection| read::collections(connection)).await
    }

    async fn mark(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        let found = self.readers.ask(move |connection| read::mark(connection, &key)).await?;
        if found.is_some() {
            // What is marked as counted may be deleted next.
            self.writer.ask(|session| session.keep_found()).await?;
        }
        Ok(found)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.writer.ask(|session| session.check()).await
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}
