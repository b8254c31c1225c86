//! Sources of rows.

use std::{fmt, sync::Arc};

use countem_core::{BucketRange, CollectionName, Schedules};
use countem_store::{RowQuery, Rows, Store, async_trait, extent};

use jiff::Timestamp;

use crate::ReadError;

/// A source of rows: a store alone, or a store and the counts that an engine has pending.
#[async_trait]
pub trait Source: Send + Sync + fmt::Debug + 'static {
    /// Returns the counters that `query` selects, each counted exactly once.
    ///
    /// # Errors
    /// [`ReadError`]: the source could not be read, or is closed.
    async fn rows(&self, query: &RowQuery) -> Result<Rows, ReadError>;

    /// Returns the first and the last bucket of `range` in which `collection` has a counter.
    ///
    /// # Errors
    /// [`ReadError`]: the source could not be read, or is closed.
    async fn extent(
        &self,
        collection: &CollectionName,
        range: BucketRange,
    ) -> Result<Option<BucketRange>, ReadError> {
        Ok(extent(&self.rows(&RowQuery::any_metric(collection.clone(), range)).await?))
    }

    /// Lists all collections that hold a counter, sorted.
    ///
    /// # Errors
    /// [`ReadError`]: the source could not be read, or is closed.
    async fn collections(&self) -> Result<Vec<CollectionName>, ReadError>;

    /// Returns the schedules by which the counts are stored.
    ///
    /// # Errors
    /// [`ReadError`]: the source could not be read, or is closed.
    async fn schedules(&self) -> Result<Arc<Schedules>, ReadError>;

    /// Returns the time by which buckets have expired, or not. The default is that of the system clock.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A store as it is, without pending counts.
#[derive(Debug)]
pub struct StoreSource {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The schedules of a store that has none recorded.
    pub unrecorded: Arc<Schedules>,
}

#[async_trait]
impl Source for StoreSource {
    async fn rows(&self, query: &RowQuery) -> Result<Rows, ReadError> {
        Ok(self.store.read(query, None).await?)
    }

    async fn extent(
        &self,
        collection: &CollectionName,
        range: BucketRange,
    ) -> Result<Option<BucketRange>, ReadError> {
        Ok(self.store.extent(collection, range).await?)
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, ReadError> {
        Ok(self.store.collections().await?)
    }

    async fn schedules(&self) -> Result<Arc<Schedules>, ReadError> {
        let recorded = self.store.schedules().await?;
        Ok(recorded.map_or_else(|| Arc::clone(&self.unrecorded), Arc::new))
    }
}
