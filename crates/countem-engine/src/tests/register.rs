//! Nothing is sent under an identity that another process may have.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use countem_core::{Batch, CollectionName, Writer};
use countem_journal::JournalConfig;
use countem_store::{
    Applied, ErrorKind, Fault, FaultyStore, MemoryStore, Registration, RowQuery, Rows, Store, StoreError,
    async_trait,
};
use parking_lot::Mutex;

use super::quiet;
use crate::{Clock, Durability, Engine, EngineConfig};

/// A store whose register answers as a test says, and then that the writer is fresh.
#[derive(Debug)]
struct Registered {
    inner: FaultyStore<MemoryStore>,
    /// It recognises no batch of any writer.
    has_forgotten: bool,
    answers: Mutex<VecDeque<Option<Registration>>>,
}

#[async_trait]
impl Store for Registered {
    async fn register(&self, _: &Writer) -> Result<Registration, StoreError> {
        match self.answers.lock().pop_front() {
            None => Ok(Registration::Fresh),
            Some(Some(answer)) => Ok(answer),
            Some(None) => Err(StoreError::new(ErrorKind::InDoubt, "no answer")),
        }
    }
    async fn remembers(&self, _: &Writer) -> Result<bool, StoreError> {
        Ok(!self.has_forgotten)
    }
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        self.inner.apply(batch).await
    }
    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        self.inner.forget(writer).await
    }
    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        self.inner.read(query, in_flight).await
    }
    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        self.inner.collections().await
    }
    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.inner.marks(prefix).await
    }
    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

/// Counts once on a store that answers like this when it is asked for the identity.
async fn count(dir: &std::path::Path, answers: &[Option<Registration>]) -> Engine {
    let (inner, _) = FaultyStore::new(MemoryStore::new());
    let answers = Mutex::new(answers.iter().copied().collect());
    count_on(dir, Registered { inner, has_forgotten: false, answers }).await
}

async fn count_on(dir: &std::path::Path, store: Registered) -> Engine {
    let durability =
        Durability::Journal { options: JournalConfig::new(dir), tick: Duration::from_secs(3600) };
    let config = EngineConfig { durability, shutdown_deadline: Duration::from_millis(50), ..quiet() };
    let opened: Arc<dyn Store> = Arc::new(store);
    let engine = Engine::start(config, Clock::System, async move { Ok(opened) }).await.unwrap();
    engine.increment("c", "m", 1).unwrap();
    engine
}

#[tokio::test]
async fn identity_is_registered_before_the_first_batch() {
    let dir = tempfile::tempdir().unwrap();
    let engine = count(dir.path(), &[None, None, None]).await;
    assert!(engine.flush().await);
    let stats = engine.stats();
    let failures: u64 = stats.lanes.iter().map(|lane| lane.failures).sum();
    assert_eq!((stats.applied, failures), (1, 2), "one answer was missed at the start");
    assert!(engine.shutdown().await.is_complete());
}

#[tokio::test]
async fn cloned_identity_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut answers = vec![None];
    answers.extend([Some(Registration::Cloned); 1000]);
    let engine = count(dir.path(), &answers).await;
    let report = engine.shutdown().await;
    assert_eq!((report.accepted, report.applied, report.journaled), (1, 0, 1), "{report}");
    assert!(report.errors.iter().any(|error| error.contains("start this process again")), "{report:?}");
}

#[tokio::test]
async fn own_forgotten_batch_in_doubt_is_quarantined() {
    for (first, answer) in [(Fault::LoseReply, (0, 1)), (Fault::None, (1, 0)), (Fault::Fail, (1, 0))] {
        let dir = tempfile::tempdir().unwrap();
        let (inner, faults) = FaultyStore::new(MemoryStore::new());
        faults.then([first.clone()]);
        let store = Registered { inner, has_forgotten: true, answers: Mutex::default() };
        let engine = count_on(dir.path(), store).await;
        engine.flush().await;
        let stats = engine.stats();
        assert_eq!((stats.applied, stats.quarantined), answer, "{first:?}");
        assert!(engine.shutdown().await.is_balanced());
    }
}
