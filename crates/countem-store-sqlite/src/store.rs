//! The store.

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{Batch, Bucket, Claim, CollectionName, MetricName, Schedules, Writer, jiff::Timestamp};
use countem_store::{
    Applied, Claimed, ErrorKind, Held, Registration, Release, Released, RowQuery, Rows, Store, StoreError,
    async_trait, overlay,
};

use crate::{
    SqliteConfig, expiry, open, quarantine,
    read::{self, ReadThreads},
    register, schedule,
    write::WriteThread,
};

/// Keeps counters in one SQLite file.
///
/// Dropping the store finishes outstanding calls and closes the file; it blocks for that long.
#[derive(Debug)]
pub struct SqliteStore {
    location: String,
    // Dropped in this order: the connection that writes closes last, because it tidies up.
    readers: ReadThreads,
    /// `None` where the file may only be read.
    writer: Option<WriteThread>,
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
    pub fn open(config: SqliteConfig) -> Result<Self, StoreError> {
        let location = format!("sqlite://{}", config.path.display());
        let writer = WriteThread::start(config.clone())?;
        Ok(Self { location, readers: ReadThreads::new(config, open::for_reading), writer: Some(writer) })
    }

    /// Opens a file that exists, to read it: as [`open`](Self::open) does, unless this process may not write the file or its
    /// folder. Then nothing is written, also not beside the file, and calls that write are [unsupported](ErrorKind::Unsupported).
    ///
    /// # Errors
    /// As [`open`](Self::open); without the right to write, also when the tables are older.
    pub fn open_for_reading(config: SqliteConfig) -> Result<Self, StoreError> {
        if open::is_writable(&config) {
            return Self::open(config);
        }
        open::for_reading_only(&config)?;
        let location = format!("sqlite://{}", config.path.display());
        Ok(Self { location, readers: ReadThreads::new(config, open::for_reading_only), writer: None })
    }

    fn writer(&self) -> Result<&WriteThread, StoreError> {
        let why = || format!("cannot write to `{}`: this process may only read it", self.location);
        self.writer.as_ref().ok_or_else(|| StoreError::new(ErrorKind::Unsupported, why()))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let batch = Arc::clone(batch);
        self.writer()?.ask(move |connection| connection.apply(&batch)).await
    }

    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        let writer = writer.clone();
        self.writer()?.ask(move |connection| connection.forget(&writer)).await
    }

    async fn register(&self, writer: &Writer) -> Result<Registration, StoreError> {
        let writer = writer.clone();
        self.writer()?.ask(move |connection| connection.register(&writer)).await
    }

    async fn remembers(&self, writer: &Writer) -> Result<bool, StoreError> {
        let writer = writer.clone();
        self.readers.ask(move |connection| register::remembers(connection, &writer)).await
    }

    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        let writer = writer.clone();
        self.writer()?.ask(move |connection| connection.retire(&writer)).await
    }

    async fn retire_predecessors(&self, writer: &Writer) -> Result<(), StoreError> {
        let writer = writer.clone();
        self.writer()?.ask(move |connection| connection.retire_predecessors(&writer)).await
    }

    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        let (query_copy, id) = (query.clone(), in_flight.map(|batch| batch.id().clone()));
        let snapshot =
            self.readers.ask(move |connection| read::snapshot(connection, &query_copy, id.as_ref())).await?;
        let mut rows = snapshot.rows;
        if let Some(batch) = in_flight.filter(|_| !snapshot.is_applied) {
            overlay(&mut rows, query, batch.deltas());
        }
        Ok(rows)
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        self.readers.ask(|connection| read::collections(connection)).await
    }

    async fn quarantined(&self) -> Result<Vec<Held>, StoreError> {
        self.readers.ask(|connection| quarantine::held(connection)).await
    }

    async fn release(&self, held: &Held, release: Release) -> Result<Released, StoreError> {
        let held = held.clone();
        self.writer()?.ask(move |connection| connection.release(&held, release)).await
    }

    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let prefix = prefix.to_owned();
        let found = self.readers.ask(move |connection| read::marks(connection, &prefix)).await?;
        if let Some(writer) = self.writer.as_ref().filter(|_| !found.is_empty()) {
            // The caller may delete next what a mark says is counted.
            writer.ask(|connection| connection.sync_found()).await?;
        }
        Ok(found)
    }

    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        let claims = claims.to_vec();
        self.writer()?.ask(move |connection| connection.claim(&claims, now)).await
    }

    async fn schedules(&self) -> Result<Option<Schedules>, StoreError> {
        schedule::parse(&self.readers.ask(|connection| schedule::lines(connection)).await?)
    }

    async fn record_schedules(&self, schedules: &Schedules) -> Result<Schedules, StoreError> {
        let schedules = schedules.clone();
        let lines = self.writer()?.ask(move |connection| connection.record_schedules(&schedules)).await?;
        let missing = || StoreError::new(ErrorKind::Refused, "there are no schedules yet that could change");
        schedule::parse(&lines)?.ok_or_else(missing)
    }

    async fn remove_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        // Looked for beside the writer, so that it is kept for the removal alone.
        let expired = self.readers.ask(move |connection| expiry::find(connection, now, limit)).await?;
        if expired.is_empty() {
            return Ok(0);
        }
        self.writer()?.ask(move |connection| connection.remove_expired(&expired, limit)).await
    }

    async fn remove_zeros(
        &self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        if counters.is_empty() {
            return Ok(0);
        }
        let (collection, counters) = (collection.clone(), counters.to_vec());
        self.writer()?.ask(move |connection| connection.remove_zeros(&collection, &counters)).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.writer()?.ask(|connection| connection.check()).await
    }

    async fn verify(&self) -> Result<Vec<String>, StoreError> {
        self.readers.ask(|connection| read::integrity(connection)).await
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}
