//! Stores by URI.

use std::sync::Arc;

use countem_store::{ErrorKind, MemoryStore, Store, StoreError};

use crate::StoreUri;

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
        Ok(uri) => open_uri(&uri).await,
        Err(error) => Err(StoreError::new(ErrorKind::Refused, error.to_string())),
    }
}

pub(crate) async fn open_uri(uri: &StoreUri) -> Result<Arc<dyn Store>, StoreError> {
    match uri.scheme() {
        "memory" => Ok(Arc::new(MemoryStore::new())),
        "sqlite" => open_sqlite(&uri.expose()["sqlite://".len()..]),
        _ => open_mongodb(uri.expose()).await,
    }
}

#[cfg(feature = "sqlite")]
fn open_sqlite(path: &str) -> Result<Arc<dyn Store>, StoreError> {
    let options = countem_store_sqlite::SqliteOptions::new(path);
    Ok(Arc::new(countem_store_sqlite::SqliteStore::open(options)?))
}

#[cfg(not(feature = "sqlite"))]
fn open_sqlite(_: &str) -> Result<Arc<dyn Store>, StoreError> {
    Err(StoreError::new(ErrorKind::Unsupported, "built without the feature `sqlite`"))
}

#[cfg(feature = "mongodb")]
async fn open_mongodb(uri: &str) -> Result<Arc<dyn Store>, StoreError> {
    let options = countem_store_mongodb::MongoOptions::new(uri);
    Ok(Arc::new(countem_store_mongodb::MongoStore::connect(options).await?))
}

#[cfg(not(feature = "mongodb"))]
async fn open_mongodb(_: &str) -> Result<Arc<dyn Store>, StoreError> {
    Err(StoreError::new(ErrorKind::Unsupported, "built without the feature `mongodb`"))
}
