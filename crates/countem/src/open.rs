//! Stores by URI.

use std::sync::Arc;

use countem_store::{ErrorKind, MemoryStore, Store, StoreError};

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
    let refused = |message: String| Err(StoreError::new(ErrorKind::Refused, message));
    let Some((scheme, rest)) = uri.split_once("://") else {
        return refused(format!(
            "`{uri}` is not a store; expected sqlite://PATH, mongodb://HOST/DATABASE or memory://"
        ));
    };
    match scheme {
        "memory" => Ok(Arc::new(MemoryStore::new())),
        "sqlite" => open_sqlite(rest),
        "mongodb" | "mongodb+srv" => open_mongodb(uri).await,
        _ => refused(format!(
            "`{scheme}://` is not a kind of store; expected sqlite://, mongodb:// or memory://"
        )),
    }
}

#[cfg(feature = "sqlite")]
fn open_sqlite(path: &str) -> Result<Arc<dyn Store>, StoreError> {
    if path.is_empty() {
        return Err(StoreError::new(ErrorKind::Refused, "`sqlite://` names no file; expected sqlite://PATH"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_store_is_refused_with_the_choices() {
        for (uri, said) in [
            ("countem.db", "expected sqlite://PATH"),
            ("redis://x", "`redis://`"),
            ("sqlite://", "names no file"),
        ] {
            let error = open_store(uri).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
