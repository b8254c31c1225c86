//! Helpers of the tests: batches, reads and files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};

use countem_core::{Batch, BatchId, Bucket, CollectionName, Table, Writer};
use countem_store::{Counters, RowQuery, Store};
use countem_store_sqlite::{SqliteConfig, SqliteStore};

/// The day on which the tests count.
pub(crate) const DAY: &str = "2026-11-20";

/// The collection in which the tests count.
pub(crate) const COLLECTION: &str = "web";

/// Returns the database file in `folder`.
pub(crate) fn file(folder: &Path) -> PathBuf {
    folder.join("countem.db")
}

/// Opens the database file in `folder`.
pub(crate) fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(SqliteConfig::new(file(folder))).unwrap()
}

/// Returns batch `seq` of the only lane of `writer`.
pub(crate) fn batch<M: AsRef<str>>(writer: &Writer, seq: u64, deltas: &[(M, i64)]) -> Arc<Batch> {
    let mut table = Table::new();
    for (metric, n) in deltas {
        table.fold(COLLECTION, metric.as_ref(), day(), *n).unwrap();
    }
    Arc::new(Batch::new(BatchId { writer: writer.clone(), lane: 0, seq }, table.drain()))
}

/// Returns the bucket of [`DAY`].
pub(crate) fn day() -> Bucket {
    DAY.parse().unwrap()
}

/// Reads the counters of [`DAY`].
pub(crate) async fn counters(store: &impl Store) -> Counters {
    let query = RowQuery::bucket(CollectionName::new(COLLECTION).unwrap(), day());
    store.read(&query, None).await.unwrap().remove(&day()).unwrap_or_default()
}

/// Builds the counters that a read is expected to return.
pub(crate) fn expected(of: &[(&str, i64)]) -> Counters {
    of.iter().map(|(metric, value)| ((*metric).to_owned(), *value)).collect()
}

/// Returns the names and contents of the files in `folder`.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// Returns the names of the files in `folder`.
pub(crate) fn file_names(folder: &Path) -> Vec<String> {
    contents(folder).into_keys().collect()
}

/// Runs a future in a program that has no async runtime.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
