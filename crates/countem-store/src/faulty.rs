//! A store that misbehaves on demand.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use countem_core::{Batch, CollectionName, Writer};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{Applied, ErrorKind, Query, Registration, Rows, Store, StoreError};

/// What happens to one call of [`Store::apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The batch does not reach the store, and the caller is told so.
    Fail,
    /// The batch does not reach the store, and the caller cannot know that.
    LoseRequest,
    /// The batch is applied, and the caller cannot know that.
    LoseReply,
    /// The batch is applied twice.
    ApplyTwice,
    /// The caller is told that it cannot know; the batch is applied after the next one that succeeds.
    ApplyLate,
    /// The call waits until [`Faults::release`] lets one go.
    Delay,
    /// The store panics before it does anything.
    Panic,
}

/// Chooses the fault of each call. Clones control the same store.
#[derive(Debug, Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: Mutex<Plan>,
    /// One permit per delayed call that may go on.
    released: Semaphore,
    /// One permit per delayed call that has arrived.
    delayed: Semaphore,
}

#[derive(Debug)]
struct Plan {
    next: VecDeque<Fault>,
    otherwise: Fault,
    late: Vec<Arc<Batch>>,
    calls: u64,
}

/// Decorates a store with [`Faults`]. Reads are never disturbed.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

impl Faults {
    fn new() -> Self {
        let plan = Plan { next: VecDeque::new(), otherwise: Fault::None, late: Vec::new(), calls: 0 };
        let shared =
            Shared { plan: Mutex::new(plan), released: Semaphore::new(0), delayed: Semaphore::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Lets the coming calls suffer `faults`, one each, after those already planned.
    pub fn then(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.plan.lock().next.extend(faults);
    }

    /// Lets every call for which nothing is planned suffer `fault`.
    pub fn otherwise(&self, fault: Fault) {
        self.shared.plan.lock().otherwise = fault;
    }

    /// Lets one delayed call go on, now or when it comes.
    pub fn release(&self) {
        self.shared.released.add_permits(1);
    }

    /// Waits until one more call is being delayed.
    pub async fn delayed(&self) {
        let permit = self.shared.delayed.acquire().await;
        permit.expect("the semaphore is never closed").forget();
    }

    /// Returns how often `apply` was called.
    pub fn calls(&self) -> u64 {
        self.shared.plan.lock().calls
    }
}

impl<S: Store> FaultyStore<S> {
    /// Decorates `inner`, which behaves until the returned [`Faults`] say otherwise.
    pub fn new(inner: S) -> (Self, Faults) {
        let faults = Faults::new();
        (Self { inner, faults: faults.clone() }, faults)
    }

    /// Returns the decorated store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    async fn apply_then_late_ones(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let applied = self.inner.apply(batch).await?;
        let late = std::mem::take(&mut self.faults.shared.plan.lock().late);
        for copy in late {
            self.inner.apply(&copy).await?;
        }
        Ok(applied)
    }
}

fn in_doubt(what: &str) -> StoreError {
    StoreError::new(ErrorKind::InDoubt, format!("no reply to `apply` ({what})"))
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for FaultyStore<S> {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let fault = {
            let mut plan = self.faults.shared.plan.lock();
            plan.calls += 1;
            plan.next.pop_front().unwrap_or_else(|| plan.otherwise.clone())
        };
        match fault {
            Fault::None => self.apply_then_late_ones(batch).await,
            Fault::Fail => Err(StoreError::new(ErrorKind::NotApplied, "the store is away (injected)")),
            Fault::LoseRequest => Err(in_doubt("request lost")),
            Fault::LoseReply => {
                self.inner.apply(batch).await?;
                Err(in_doubt("reply lost"))
            }
            Fault::ApplyTwice => {
                self.inner.apply(batch).await?;
                self.inner.apply(batch).await
            }
            Fault::ApplyLate => {
                self.faults.shared.plan.lock().late.push(Arc::clone(batch));
                Err(in_doubt("request is late"))
            }
            Fault::Delay => {
                self.faults.shared.delayed.add_permits(1);
                let permit = self.faults.shared.released.acquire().await;
                permit.expect("the semaphore is never closed").forget();
                self.apply_then_late_ones(batch).await
            }
            Fault::Panic => panic!("the store panics (injected)"),
        }
    }

    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        self.inner.forget(writer).await
    }

    async fn register(&self, writer: &Writer) -> Result<Registration, StoreError> {
        self.inner.register(writer).await
    }

    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        self.inner.retire(writer).await
    }

    async fn read(&self, query: &Query, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        self.inner.read(query, in_flight).await
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        self.inner.collections().await
    }

    async fn mark(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.inner.mark(key).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, conformance};

    #[tokio::test]
    async fn a_faulty_store_without_faults_keeps_the_contract() {
        conformance::run(async || FaultyStore::new(MemoryStore::new()).0).await;
    }

    #[tokio::test]
    async fn applying_everything_twice_keeps_the_contract() {
        let make = async || {
            let (store, faults) = FaultyStore::new(MemoryStore::new());
            faults.otherwise(Fault::ApplyTwice);
            store
        };
        conformance::run(make).await;
    }
}
