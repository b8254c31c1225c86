//! The engine as a whole, on a store with injected faults.

mod aged;
mod exactly_once;
mod expiry;
mod flush;
#[cfg(target_os = "linux")]
mod fork;
mod journal;
mod keyed;
mod logging;
mod model;
mod panic;
mod read;
mod refuse;
mod register;
mod schedule;
mod time;

use std::{sync::Arc, time::Duration};

use countem_core::{Bucket, CollectionName};
use countem_store::{Counters, Faults, FaultyStore, MemoryStore, RowQuery, Store};

use crate::{Clock, Engine, EngineConfig, ManualClock};

/// An engine on a memory store, with a manual clock and no flush but those that a test asks for.
struct Setup<S = MemoryStore> {
    engine: Engine,
    store: Arc<FaultyStore<S>>,
    faults: Faults,
    clock: ManualClock,
}

fn quiet() -> EngineConfig {
    EngineConfig {
        flush_interval: Duration::from_secs(3600),
        retry_first: Duration::from_millis(1),
        retry_longest: Duration::from_millis(5),
        shutdown_deadline: Duration::from_secs(60),
        ..EngineConfig::default()
    }
}

async fn start(config: EngineConfig) -> Setup {
    start_at(config, "2026-11-20T12:00:00Z").await
}

async fn start_at(config: EngineConfig, now: &str) -> Setup {
    let (store, faults) = FaultyStore::new(MemoryStore::new());
    start_with(config, Arc::new(store), faults, now).await
}

/// Starts another engine on the store of `before`.
async fn start_on(config: EngineConfig, before: &Setup) -> Setup {
    start_with(config, before.store.clone(), before.faults.clone(), "2026-11-20T12:00:00Z").await
}

async fn start_with<S: Store>(
    config: EngineConfig,
    store: Arc<FaultyStore<S>>,
    faults: Faults,
    now: &str,
) -> Setup<S> {
    let clock = ManualClock::new(now.parse().unwrap());
    let opened: Arc<dyn Store> = store.clone();
    let engine =
        Engine::start(config, Clock::Manual(clock.clone()), async move { Ok(opened) }).await.unwrap();
    Setup { engine, store, faults, clock }
}

impl<S: Store> Setup<S> {
    /// Reads the store itself, without anything pending.
    async fn stored(&self, bucket: &str) -> Counters {
        let query = RowQuery::bucket(name("c"), self::bucket(bucket));
        self.store.read(&query, None).await.unwrap().remove(&self::bucket(bucket)).unwrap_or_default()
    }

    /// Reads as a user does.
    async fn read(&self, bucket: &str) -> Counters {
        self.engine.reader().get_counters(&name("c"), self::bucket(bucket)).await.unwrap()
    }
}

fn name(name: &str) -> CollectionName {
    CollectionName::new(name).unwrap()
}

fn bucket(id: &str) -> Bucket {
    id.parse().unwrap()
}

fn counters(of: &[(&str, i64)]) -> Counters {
    of.iter().map(|(metric, value)| ((*metric).to_owned(), *value)).collect()
}

/// Waits for a condition that other threads bring about.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        tokio::task::yield_now().await;
    }
}
