//! Stores by URI.

use std::{
    num::{NonZeroU16, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use countem_store::{ErrorKind, MemoryStore, Store, StoreError};

use crate::StoreUri;

/// How documents are kept in MongoDB; other stores have nothing to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongodbConfig {
    /// About how many metrics one document holds.
    pub metrics_per_document: NonZeroUsize,
    /// Over how many documents the writers of one metric are spread.
    pub writer_shards: NonZeroU16,
    /// How long after its end a bucket is kept, at least; `None` keeps it for ever.
    pub retention: Option<Duration>,
    /// How long one request may take.
    pub deadline: Duration,
}

impl Default for MongodbConfig {
    fn default() -> Self {
        Self {
            metrics_per_document: const { NonZeroUsize::new(256).expect("256 is not zero") },
            writer_shards: NonZeroU16::MIN,
            retention: None,
            deadline: Duration::from_secs(10),
        }
    }
}

/// Opens the store that `uri` names:
///
/// | URI | store |
/// |---|---|
/// | `sqlite://PATH` | one SQLite file, made if it is missing; `sqlite:///var/lib/x.db` is an absolute path |
/// | `mongodb://…` | MongoDB (feature `mongodb`); the database in the path, default `countem` |
/// | `memory://` | this process, for trying things |
///
/// Call it on the runtime on which the store will be used.
///
/// # Errors
/// [`StoreError`] says in one line what is wrong; no secret of the URI is in it.
pub async fn open_store(uri: &str) -> Result<Arc<dyn Store>, StoreError> {
    match StoreUri::new(uri) {
        Ok(uri) => open_store_with(&uri, &MongodbConfig::default()).await,
        Err(error) => Err(StoreError::new(ErrorKind::Refused, error.to_string())),
    }
}

/// Does what [`open_store`] does, with settings of the store's own.
///
/// # Errors
/// As [`open_store`].
pub async fn open_store_with(uri: &StoreUri, mongodb: &MongodbConfig) -> Result<Arc<dyn Store>, StoreError> {
    match uri.scheme() {
        "memory" => Ok(Arc::new(MemoryStore::new())),
        "sqlite" => open_sqlite(&uri.expose()["sqlite://".len()..]),
        _ => open_mongodb(uri.expose(), mongodb),
    }
}

#[cfg(feature = "sqlite")]
fn open_sqlite(path: &str) -> Result<Arc<dyn Store>, StoreError> {
    let options = countem_store_sqlite::SqliteConfig::new(path);
    Ok(Arc::new(countem_store_sqlite::SqliteStore::open(options)?))
}

#[cfg(not(feature = "sqlite"))]
fn open_sqlite(_: &str) -> Result<Arc<dyn Store>, StoreError> {
    Err(StoreError::new(ErrorKind::Unsupported, "built without the feature `sqlite`"))
}

#[cfg(feature = "mongodb")]
fn open_mongodb(uri: &str, settings: &MongodbConfig) -> Result<Arc<dyn Store>, StoreError> {
    let mut options = countem_store_mongodb::MongoConfig::new(uri);
    options.metrics_per_document = settings.metrics_per_document;
    options.writer_shards = settings.writer_shards;
    options.retention = settings.retention;
    options.deadline = settings.deadline;
    Ok(Arc::new(countem_store_mongodb::MongoStore::connect(options)?))
}

#[cfg(not(feature = "mongodb"))]
fn open_mongodb(_: &str, _: &MongodbConfig) -> Result<Arc<dyn Store>, StoreError> {
    Err(StoreError::new(ErrorKind::Unsupported, "built without the feature `mongodb`"))
}
