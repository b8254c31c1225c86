//! Stores by URI.

use std::{
    num::{NonZeroU16, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use countem_store::{ErrorKind, MemoryStore, Store, StoreError};

use crate::StoreUri;

/// Layout of documents and limits of requests in MongoDB. Other stores ignore it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongodbConfig {
    /// Approximate number of metrics in one document.
    pub metrics_per_document: NonZeroUsize,
    /// Number of documents that the writers of one metric are spread over.
    pub writer_shards: NonZeroU16,
    /// Maximum duration of one request.
    pub deadline: Duration,
}

impl Default for MongodbConfig {
    fn default() -> Self {
        Self {
            metrics_per_document: const { NonZeroUsize::new(256).expect("256 is not zero") },
            writer_shards: NonZeroU16::MIN,
            deadline: Duration::from_secs(10),
        }
    }
}

/// Opens the store that `uri` names:
///
/// | URI | store |
/// |---|---|
/// | `sqlite://PATH` | one SQLite file (feature `sqlite`), made if it is missing; `sqlite:///var/lib/x.db` is an absolute path |
/// | `mongodb://…` | MongoDB (feature `mongodb`); the database in the path, default `countem` |
/// | `mongodb+srv://…` | the same, its hosts found by DNS (feature `srv`) |
/// | `countem://[TOKEN@]HOST[:7070]` | another countem (feature `remote`); the token may be in the variable `COUNTEM_TOKEN` |
/// | `memory://` | memory of this process; for tests |
///
/// Call it on the runtime on which the store will be used.
///
/// # Errors
/// [`StoreError`]: an unusable URI or store, in one line without passwords.
pub async fn open_store(uri: &str) -> Result<Arc<dyn Store>, StoreError> {
    match StoreUri::new(uri) {
        Ok(uri) => open_store_with(&uri, &MongodbConfig::default(), None).await,
        Err(error) => Err(StoreError::new(ErrorKind::Refused, error.to_string())),
    }
}

/// Does what [`open_store`] does, with the configuration of MongoDB, and the maximum time for which a call waits while other processes
/// write to a SQLite file, or for the answer of another countem; `None` means 5 seconds, or what the URI says.
///
/// # Errors
/// As [`open_store`].
pub async fn open_store_with(
    uri: &StoreUri,
    mongodb: &MongodbConfig,
    busy_timeout: Option<Duration>,
) -> Result<Arc<dyn Store>, StoreError> {
    open(uri, mongodb, busy_timeout, Access::Write).await
}

/// Opens a store that exists, to read it. Of a SQLite file that this process may not write, or whose folder it may not, nothing
/// but reading is supported then; other stores are opened as by [`open_store_with`].
///
/// # Errors
/// As [`open_store`].
pub async fn open_store_for_reading(
    uri: &StoreUri,
    mongodb: &MongodbConfig,
    busy_timeout: Option<Duration>,
) -> Result<Arc<dyn Store>, StoreError> {
    open(uri, mongodb, busy_timeout, Access::Read).await
}

/// Opens a store as [`open_store_for_reading`] does. The counters of another countem are read with what it has pending, each count once;
/// a correction or a copy needs them as they are stored.
///
/// # Errors
/// As [`open_store`].
pub async fn open_store_with_pending(
    uri: &StoreUri,
    mongodb: &MongodbConfig,
    busy_timeout: Option<Duration>,
) -> Result<Arc<dyn Store>, StoreError> {
    open(uri, mongodb, busy_timeout, Access::ReadWithPending).await
}

/// Purpose for which a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    ReadWithPending,
    Write,
}

async fn open(
    uri: &StoreUri,
    mongodb: &MongodbConfig,
    busy_timeout: Option<Duration>,
    access: Access,
) -> Result<Arc<dyn Store>, StoreError> {
    match uri.scheme() {
        "memory" => Ok(Arc::new(MemoryStore::new())),
        "sqlite" => open_sqlite(&uri.expose()["sqlite://".len()..], busy_timeout, access),
        "countem" => open_remote(uri, busy_timeout, access),
        #[cfg(not(feature = "srv"))]
        "mongodb+srv" => Err(missing("srv")),
        _ => open_mongodb(uri.expose(), mongodb),
    }
}

#[cfg(feature = "sqlite")]
fn open_sqlite(
    path: &str,
    busy_timeout: Option<Duration>,
    access: Access,
) -> Result<Arc<dyn Store>, StoreError> {
    let mut config = countem_store_sqlite::SqliteConfig::new(path);
    config.busy_timeout = busy_timeout.unwrap_or(config.busy_timeout);
    Ok(Arc::new(match access {
        Access::Read | Access::ReadWithPending => {
            countem_store_sqlite::SqliteStore::open_for_reading(config)?
        }
        Access::Write => countem_store_sqlite::SqliteStore::open(config)?,
    }))
}

#[cfg(not(feature = "sqlite"))]
fn open_sqlite(_: &str, _: Option<Duration>, _: Access) -> Result<Arc<dyn Store>, StoreError> {
    Err(missing("sqlite"))
}

#[cfg(feature = "mongodb")]
fn open_mongodb(uri: &str, mongodb: &MongodbConfig) -> Result<Arc<dyn Store>, StoreError> {
    let mut config = countem_store_mongodb::MongoConfig::new(uri);
    config.metrics_per_document = mongodb.metrics_per_document;
    config.writer_shards = mongodb.writer_shards;
    config.deadline = mongodb.deadline;
    Ok(Arc::new(countem_store_mongodb::MongoStore::connect(config)?))
}

#[cfg(not(feature = "mongodb"))]
fn open_mongodb(_: &str, _: &MongodbConfig) -> Result<Arc<dyn Store>, StoreError> {
    Err(missing("mongodb"))
}

/// Variable with the token for another countem whose URI has none.
#[cfg(feature = "remote")]
const TOKEN: &str = "COUNTEM_TOKEN";

#[cfg(feature = "remote")]
fn open_remote(
    uri: &StoreUri,
    limit: Option<Duration>,
    access: Access,
) -> Result<Arc<dyn Store>, StoreError> {
    use countem_store_remote::{RemoteConfig, RemoteStore, TlsConfig};

    let parts = uri.remote().map_err(|error| StoreError::new(ErrorKind::Refused, error.to_string()))?;
    let mut config = RemoteConfig::new(parts.host);
    let of_environment = || std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
    config.token = parts.token.or_else(of_environment);
    config.tls = parts.tls.then(|| TlsConfig { ca: parts.ca, identity: parts.cert.zip(parts.key) });
    config.with_pending = access == Access::ReadWithPending;
    if let Some(timeout) = parts.timeout {
        config.timeout = timeout;
        config.total_timeout = config.total_timeout.max(timeout * 6);
    }
    if let Some(limit) = limit {
        // So that a failure is known for what it is before the caller has to end.
        config.timeout = config.timeout.min(limit / 2);
        config.total_timeout = config.total_timeout.min(limit / 2);
    }
    Ok(Arc::new(RemoteStore::connect(&config)?))
}

#[cfg(not(feature = "remote"))]
fn open_remote(_: &StoreUri, _: Option<Duration>, _: Access) -> Result<Arc<dyn Store>, StoreError> {
    Err(missing("remote"))
}

#[cfg(not(all(feature = "sqlite", feature = "srv", feature = "remote")))]
fn missing(feature: &str) -> StoreError {
    StoreError::new(ErrorKind::Unsupported, format!("built without the feature `{feature}`"))
}
