//! Marks in the store: how far each input was counted.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use countem_engine::Retry;
use countem_store::{ErrorKind, Store, StoreError};
use tokio::time::Instant;

use crate::ingest::fingerprint::{FoundMark, MarkKey};

/// Finds marks and chooses the keys of new ones.
pub(crate) struct Marks {
    store: Arc<dyn Store>,
    retry: Retry,
    /// Maximum time that a read or a lock is tried; unlimited when `None`.
    timeout: Option<Duration>,
    /// Key of the mark of each input.
    keys: HashMap<usize, MarkKey>,
    /// File that is locked while a key is chosen; `None` when no other process has the store.
    lock_path: Option<PathBuf>,
}

impl Marks {
    pub(crate) fn new(store: Arc<dyn Store>, retry: Retry, timeout: Option<Duration>) -> Self {
        let database = store.location();
        let lock_path = database.strip_prefix("sqlite://").map(|path| format!("{path}-ingest").into());
        Self { store, retry, timeout, keys: HashMap::new(), lock_path }
    }

    /// Returns the marks of contents that begin with `head`.
    ///
    /// # Errors
    /// The store could not be read.
    pub(crate) async fn find(&self, head: &[u8]) -> Result<Vec<FoundMark>, StoreError> {
        let mut found = Vec::new();
        for mut key in MarkKey::all(head) {
            while let Some(value) = self.read(key).await? {
                found.extend(FoundMark::read(&value, key, head));
                key = key.next();
            }
        }
        Ok(found)
    }

    /// Returns the key for the mark of an input: the one that it has, or, after the counted beginning has outgrown that, a
    /// free one. A free key is the input's own for as long as the returned lock is held.
    ///
    /// # Errors
    /// The store could not be read, or the lock not be taken in time.
    pub(crate) async fn choose_key(
        &mut self,
        input: usize,
        found: Option<MarkKey>,
        first: MarkKey,
    ) -> Result<(MarkKey, Option<File>), StoreError> {
        let mut lock = None;
        let known = self.keys.get(&input).copied().or(found);
        let key = match known.filter(|key| key.begins_like(first)) {
            Some(key) => key,
            None => {
                lock = self.lock().await?;
                let mut key = first;
                while self.read(key).await?.is_some() {
                    key = key.next();
                }
                key
            }
        };
        self.keys.insert(input, key);
        Ok((key, lock))
    }

    /// Locks the choice of a key. Without it, two processes whose inputs begin alike could choose the same key, and the mark
    /// of one would overwrite that of the other.
    async fn lock(&self) -> Result<Option<File>, StoreError> {
        let Some(path) = &self.lock_path else { return Ok(None) };
        let created = File::options().create(true).append(true).open(path);
        // A file of another user can be locked, too.
        let Ok(file) = created.or_else(|_| File::open(path)) else { return Ok(None) };
        let (mut retry, began) = (self.retry.clone(), Instant::now());
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                // Some file systems have no locks.
                Err(TryLockError::Error(_)) => return Ok(None),
                Err(TryLockError::WouldBlock) => {}
            }
            let wait = retry.next_wait();
            if self.is_over(began, wait) {
                let why = format!("another `ingest --once` keeps `{}` locked", path.display());
                return Err(StoreError::new(ErrorKind::NotApplied, why));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Reads a mark, and retries while the store is away.
    async fn read(&self, key: MarkKey) -> Result<Option<String>, StoreError> {
        let (mut retry, began) = (self.retry.clone(), Instant::now());
        loop {
            let error = match self.store.mark(&key.to_text()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let may_pass = matches!(error.kind(), ErrorKind::NotApplied | ErrorKind::InDoubt);
            let wait = retry.next_wait();
            if !may_pass || self.is_over(began, wait) {
                return Err(error);
            }
            tracing::warn!(%error, "store cannot be read, trying again");
            tokio::time::sleep(wait).await;
        }
    }

    fn is_over(&self, began: Instant, wait: Duration) -> bool {
        self.timeout.is_some_and(|timeout| began.elapsed() + wait > timeout)
    }
}

#[cfg(test)]
impl Marks {
    /// Locks `path` while a key is chosen.
    pub(crate) fn lock_in(&mut self, path: PathBuf) {
        self.lock_path = Some(path);
    }
}
