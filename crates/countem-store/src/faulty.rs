//! A store with injected faults.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use countem_core::{
    Batch, Bucket, BucketRange, Claim, CollectionName, MetricName, Schedules, Writer, jiff::Timestamp,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    Applied, Claimed, ErrorKind, Held, Registration, Release, Released, RowQuery, Rows, Store, StoreError,
};

/// A fault of one call of [`Store::apply`] or [`Store::claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// The batch does not reach the store; the error says so.
    Fail,
    /// The batch does not reach the store; the error is in doubt.
    LoseRequest,
    /// The batch is applied; the error is in doubt.
    LoseReply,
    /// The batch is applied twice.
    ApplyTwice,
    /// The error is in doubt; the batch is applied after the next one that succeeds.
    ApplyLate,
    /// The call waits for [`Faults::release`].
    Delay,
    /// The store panics and applies nothing.
    Panic,
}

/// Controls the faults of a [`FaultyStore`]. Clones control the same store.
#[derive(Debug, Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: Mutex<Plan>,
    /// One permit per delayed call that may continue.
    released: Semaphore,
    /// One permit per delayed call that has arrived.
    delayed: Semaphore,
}

#[derive(Debug)]
struct Plan {
    next: VecDeque<Fault>,
    otherwise: Fault,
    claims: VecDeque<Fault>,
    claims_otherwise: Fault,
    late: Vec<Arc<Batch>>,
    calls: u64,
    hides_schedules: bool,
}

/// A store decorated with [`Faults`]. Reads of counters have no faults.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

impl Faults {
    fn new() -> Self {
        let plan = Plan {
            next: VecDeque::new(),
            otherwise: Fault::None,
            claims: VecDeque::new(),
            claims_otherwise: Fault::None,
            late: Vec::new(),
            calls: 0,
            hides_schedules: false,
        };
        let shared =
            Shared { plan: Mutex::new(plan), released: Semaphore::new(0), delayed: Semaphore::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Plans `faults` for the next calls, one each, after those already planned.
    pub fn then(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.plan.lock().next.extend(faults);
    }

    /// Sets the fault of every call for which none is planned.
    pub fn otherwise(&self, fault: Fault) {
        self.shared.plan.lock().otherwise = fault;
    }

    /// Plans `faults` for the next calls of [`Store::claim`], one each, after those already planned.
    pub fn claims_then(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.plan.lock().claims.extend(faults);
    }

    /// Sets the fault of every call of [`Store::claim`] for which none is planned.
    pub fn claims_otherwise(&self, fault: Fault) {
        self.shared.plan.lock().claims_otherwise = fault;
    }

    /// Lets every later call fail, whatever was planned, as for a process that was killed.
    pub fn cut_off(&self) {
        let mut plan = self.shared.plan.lock();
        plan.next.clear();
        plan.claims.clear();
        (plan.otherwise, plan.claims_otherwise) = (Fault::Fail, Fault::Fail);
    }

    /// Lets the recorded schedules be unreachable, or be found again.
    pub fn hide_schedules(&self, hides: bool) {
        self.shared.plan.lock().hides_schedules = hides;
    }

    fn find_schedules(&self) -> Result<(), StoreError> {
        match self.shared.plan.lock().hides_schedules {
            true => Err(StoreError::new(ErrorKind::NotApplied, "the store is unreachable (injected)")),
            false => Ok(()),
        }
    }

    /// Releases one delayed call, the present or the next one.
    pub fn release(&self) {
        self.shared.released.add_permits(1);
    }

    /// Waits for one more delayed call.
    pub async fn delayed(&self) {
        let permit = self.shared.delayed.acquire().await;
        permit.expect("the semaphore is never closed").forget();
    }

    /// Returns the number of calls of `apply`.
    pub fn calls(&self) -> u64 {
        self.shared.plan.lock().calls
    }
}

impl<S: Store> FaultyStore<S> {
    /// Decorates `inner`, without any fault until the returned [`Faults`] plan one.
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
    StoreError::new(ErrorKind::InDoubt, format!("no reply ({what})"))
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
            Fault::Fail => Err(StoreError::new(ErrorKind::NotApplied, "the store is unreachable (injected)")),
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

    async fn remembers(&self, writer: &Writer) -> Result<bool, StoreError> {
        self.inner.remembers(writer).await
    }

    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        self.inner.retire(writer).await
    }

    async fn retire_predecessors(&self, writer: &Writer) -> Result<(), StoreError> {
        self.inner.retire_predecessors(writer).await
    }

    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        self.inner.read(query, in_flight).await
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        self.inner.collections().await
    }

    async fn extent(
        &self,
        collection: &CollectionName,
        range: BucketRange,
    ) -> Result<Option<BucketRange>, StoreError> {
        self.inner.extent(collection, range).await
    }

    async fn quarantined(&self) -> Result<Vec<Held>, StoreError> {
        self.inner.quarantined().await
    }

    async fn release(&self, held: &Held, release: Release) -> Result<Released, StoreError> {
        self.inner.release(held, release).await
    }

    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.inner.marks(prefix).await
    }

    /// A claim is never late: [`Fault::ApplyLate`] loses the request.
    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        let fault = {
            let mut plan = self.faults.shared.plan.lock();
            plan.claims.pop_front().unwrap_or_else(|| plan.claims_otherwise.clone())
        };
        match fault {
            Fault::None => {}
            Fault::Fail => {
                return Err(StoreError::new(ErrorKind::NotApplied, "the store is unreachable (injected)"));
            }
            Fault::LoseRequest | Fault::ApplyLate => return Err(in_doubt("request lost")),
            Fault::LoseReply => {
                self.inner.claim(claims, now).await?;
                return Err(in_doubt("reply lost"));
            }
            Fault::ApplyTwice => drop(self.inner.claim(claims, now).await?),
            Fault::Delay => {
                self.faults.shared.delayed.add_permits(1);
                let permit = self.faults.shared.released.acquire().await;
                permit.expect("the semaphore is never closed").forget();
            }
            Fault::Panic => panic!("the store panics (injected)"),
        }
        self.inner.claim(claims, now).await
    }

    async fn schedules(&self) -> Result<Option<Schedules>, StoreError> {
        self.faults.find_schedules()?;
        self.inner.schedules().await
    }

    async fn record_schedules(&self, schedules: &Schedules) -> Result<Schedules, StoreError> {
        self.faults.find_schedules()?;
        self.inner.record_schedules(schedules).await
    }

    async fn remove_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.inner.remove_expired(now, limit).await
    }

    async fn remove_zeros(
        &self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        self.inner.remove_zeros(collection, counters).await
    }

    async fn compact(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.inner.compact(now, limit).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }

    async fn verify(&self) -> Result<Vec<String>, StoreError> {
        self.inner.verify().await
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    mod without_faults {
        use super::*;

        conformance!(async |law| law.check(&FaultyStore::new(MemoryStore::new()).0).await);
    }

    mod applying_twice {
        use super::*;

        conformance!(async |law| {
            let (store, faults) = FaultyStore::new(MemoryStore::new());
            faults.otherwise(Fault::ApplyTwice);
            faults.claims_otherwise(Fault::ApplyTwice);
            law.check(&store).await;
        });
    }
}
