//! Brings counts to the store, batch by batch, each exactly once.

use std::{
    fs::File,
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use countem_core::{Batch, Deltas, Mark, Schedules, Table, Writer, jiff::Timestamp};
use countem_engine::{EngineConfig, Outbox, Retry, deliver};
use countem_store::{Applied, ErrorKind, Quarantined, Store, StoreError};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    ingest::marks::{self, StoredMark},
    stop::Stop,
};

/// Deltas by counting bucket, and the mark of the input that they are from.
pub(crate) struct Counts {
    pub(crate) deltas: Deltas,
    pub(crate) mark: Option<FileMark>,
}

/// The mark to set for an input.
pub(crate) struct FileMark {
    pub(crate) mark: Mark,
    /// Name of the input.
    pub(crate) name: Arc<str>,
    /// Lock on the input, held until the counts are stored.
    pub(crate) lock: Arc<File>,
}

/// Message to the delivery. Requests are handled in order.
pub(crate) enum Request {
    /// Stores counts.
    Store(Counts),
    /// Asks for the marks whose keys begin with one of `prefixes`.
    FindMarks { prefixes: Vec<String>, reply: std_mpsc::Sender<Vec<StoredMark>> },
}

/// Outcome of a delivery.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// Increments that are in the store.
    pub(crate) increments: u64,
    /// Increments of the last batch, if it is in doubt.
    pub(crate) in_doubt: u64,
    /// Counters that were added to, counted once per batch.
    pub(crate) counters: usize,
    /// Deltas that the store could not add.
    pub(crate) quarantined: Vec<Quarantined>,
    /// The error that ended the delivery.
    pub(crate) failure: Option<StoreError>,
}

/// Maximum age of what is known of the store's schedules. A change is recorded at least five minutes before it takes effect.
const MAX_SCHEDULES_AGE: Duration = Duration::from_secs(60);

/// Sends batches under an identity of its own, one at a time.
pub(crate) struct Delivery {
    store: Arc<dyn Store>,
    schedules: Arc<Schedules>,
    writer: Writer,
    outbox: Outbox,
    retry: Retry,
    /// Maximum time for which one batch is tried; unlimited when `None`.
    outage_timeout: Option<Duration>,
    /// Time for which a batch is still tried after a stop was requested.
    shutdown_deadline: Duration,
    schedules_checked: Instant,
    /// A batch was in doubt, so a late copy of it may exist.
    was_in_doubt: bool,
    delivered: Delivered,
}

impl Delivery {
    /// Returns a delivery under a new random identity.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        schedules: Arc<Schedules>,
        config: &EngineConfig,
        outage_timeout: Option<Duration>,
    ) -> Self {
        let writer = Writer::new(rand::random(), 1);
        let retry = Retry::new(config.retry_first, config.retry_longest);
        Self {
            store,
            schedules,
            outbox: Outbox::new(writer.clone(), 0, config.batch_counters),
            writer,
            retry,
            outage_timeout,
            shutdown_deadline: config.shutdown_deadline,
            schedules_checked: Instant::now(),
            was_in_doubt: false,
            delivered: Delivered::default(),
        }
    }

    /// Handles requests until their sender is dropped, the store fails, or the deadline after a stop has passed.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: &Stop) -> Delivered {
        let mut done = Ok(());
        while let Some(request) = requests.recv().await {
            let deadline = deadline_after(stop, self.shutdown_deadline);
            done = tokio::select! {
                done = self.handle(request) => done,
                late = deadline => Err(late),
            };
            if done.is_err() {
                break;
            }
        }
        self.finish(done).await
    }

    async fn handle(&mut self, request: Request) -> Result<(), StoreError> {
        match request {
            Request::Store(counts) => self.store(counts).await,
            Request::FindMarks { prefixes, reply } => {
                let retry = self.retry.clone();
                let found = marks::read(&self.store, &prefixes, retry, self.outage_timeout).await?;
                // Fails when the reading thread has ended.
                reply.send(found).ok();
                Ok(())
            }
        }
    }

    /// Stores counts as one batch.
    ///
    /// # Errors
    /// The store refuses the batch, or did not take it in time.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the batch in doubt. It still reaches the store if it was on its way.
    pub(crate) async fn store(&mut self, counts: Counts) -> Result<(), StoreError> {
        let (mark, mut lock, name) = match counts.mark {
            Some(FileMark { mark, name, lock }) => (Some(mark), Some(lock), name),
            None => (None, None, "".into()),
        };
        self.check_schedules(&counts.deltas).await?;
        let deltas = self.fan_out(counts.deltas)?;
        self.outbox.freeze_whole(deltas, mark);
        while let Some(batch) = self.outbox.advance() {
            let applied = self.send(batch, lock.take()).await.map_err(|error| match error.kind() {
                ErrorKind::Conflict => StoreError::new(ErrorKind::Conflict, conflict(&name)),
                _ => error,
            })?;
            let resolved = self.outbox.resolve(&applied);
            tracing::debug!(batch = %resolved.batch.id(), counters = resolved.batch.len(), "batch is stored");
            self.delivered.increments += resolved.applied;
            self.delivered.counters += resolved.batch.len() - applied.quarantined.len();
            self.delivered.quarantined.extend(applied.quarantined);
        }
        Ok(())
    }

    /// Ends the delivery with the result of the last request. Removes the writer's bookkeeping from the store if no batch
    /// was ever in doubt.
    pub(crate) async fn finish(mut self, done: Result<(), StoreError>) -> Delivered {
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::InDoubt) {
            self.delivered.in_doubt = self.outbox.in_flight().map_or(0, |batch| batch.totals().increments);
        }
        self.delivered.failure = done.err();
        if self.outbox.has_frozen() && !self.was_in_doubt && self.delivered.failure.is_none() {
            // Bookkeeping that stays is harmless.
            if let Err(error) = self.store.forget(&self.writer).await {
                tracing::debug!(%error, "the bookkeeping of this run stays in the store");
            }
        }
        self.delivered
    }

    /// Sends a batch until it is resolved. The `lock` on the input is released when the store has answered.
    async fn send(&mut self, batch: Arc<Batch>, lock: Option<Arc<File>>) -> Result<Applied, StoreError> {
        const UNLIMITED: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        let deadline = Instant::now() + self.outage_timeout.unwrap_or(UNLIMITED);
        let (store, retry) = (Arc::clone(&self.store), self.retry.clone());
        // A task of its own, so that a deadline cannot drop the store's future half done.
        let sending = tokio::spawn(async move {
            let _lock = lock;
            deliver(&*store, &batch, retry, deadline).await
        });
        let panicked = |error| StoreError::new(ErrorKind::InDoubt, "the store panicked").with_source(error);
        let (applied, was_in_doubt) = sending.await.map_err(panicked)??;
        self.was_in_doubt |= was_in_doubt;
        Ok(applied)
    }

    /// Checks, now and then, that the schedules of the store are still those by which `deltas` were counted.
    async fn check_schedules(&mut self, deltas: &Deltas) -> Result<(), StoreError> {
        if self.schedules_checked.elapsed() < MAX_SCHEDULES_AGE {
            return Ok(());
        }
        let (began, mut retry) = (Instant::now(), self.retry.clone());
        let recorded = loop {
            match self.store.schedules().await {
                Ok(recorded) => break recorded,
                Err(error) if self.outage_timeout.is_some_and(|timeout| began.elapsed() >= timeout) => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(retry.next_wait()).await,
            }
        };
        self.schedules_checked = began;
        let Some(recorded) = recorded.filter(|recorded| *recorded != *self.schedules) else { return Ok(()) };
        let is_stale = deltas.iter().any(|delta| {
            let (recorded, counted) = (recorded.of(delta.collection), self.schedules.of(delta.collection));
            !recorded.counts_like(counted, delta.bucket, Timestamp::MAX)
        });
        match is_stale {
            false => Ok(()),
            true => Err(StoreError::new(
                ErrorKind::Refused,
                "the schedule of the store has changed: start again to count by the new one; this batch is not stored",
            )),
        }
    }

    /// Turns counting buckets into stored buckets.
    fn fan_out(&self, deltas: Deltas) -> Result<Deltas, StoreError> {
        let is_only_bucket = |schedule: &countem_core::Schedule, bucket| {
            let mut buckets = schedule.fan_out(bucket);
            !schedule.expires() && buckets.next() == Some(bucket) && buckets.next().is_none()
        };
        if deltas.iter().all(|delta| is_only_bucket(self.schedules.of(delta.collection), delta.bucket)) {
            return Ok(deltas);
        }
        let mut table = Table::new();
        let now = Timestamp::now();
        for counted in deltas.iter() {
            for delta in counted.fan_out_kept(self.schedules.of(counted.collection), now) {
                table.merge(delta).map_err(|error| {
                    StoreError::new(ErrorKind::Refused, format!("cannot add up `{}`", delta.metric))
                        .with_source(error)
                })?;
            }
        }
        Ok(table.drain())
    }
}

/// Explains that the mark of an input has moved.
fn conflict(name: &str) -> String {
    format!(
        "`{name}` was counted by another `ingest --once` meanwhile, so these lines were not counted again; the next run continues"
    )
}

/// Waits until a stop was requested and `grace` has passed since.
async fn deadline_after(stop: &Stop, grace: Duration) -> StoreError {
    stop.requested().await;
    tokio::time::sleep(grace).await;
    StoreError::new(ErrorKind::InDoubt, format!("gave up {grace:?} after the request to stop"))
}

#[cfg(test)]
mod tests {
    use countem_core::{Bucket, CollectionName, Period, ScheduleConfig};
    use countem_store::{Counters, Fault, FaultyStore, MemoryStore, RowQuery};

    use super::*;

    fn config(periods: &[Period]) -> EngineConfig {
        EngineConfig {
            schedule: ScheduleConfig::of_periods(periods.iter().copied()),
            ..EngineConfig::default()
        }
    }

    fn delivery(store: Arc<dyn Store>, config: &EngineConfig) -> Delivery {
        Delivery::new(
            store,
            Arc::new(config.schedule.schedules().unwrap()),
            config,
            Some(Duration::from_secs(60)),
        )
    }

    fn counts(counts: &[(&str, &str, i64)]) -> Counts {
        let mut table = Table::new();
        for (metric, bucket, n) in counts {
            table.fold("web", metric, bucket.parse().unwrap(), *n).unwrap();
        }
        Counts { deltas: table.drain(), mark: None }
    }

    async fn read(store: &dyn Store, bucket: &str) -> Counters {
        let bucket: Bucket = bucket.parse().unwrap();
        let query = RowQuery::bucket(CollectionName::new("web").unwrap(), bucket);
        store.read(&query, None).await.unwrap().remove(&bucket).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn batch_in_doubt_is_stored_once_and_remembered() {
        for (fault, writers) in
            [(Fault::Fail, 0), (Fault::LoseReply, 1), (Fault::LoseRequest, 1), (Fault::None, 0)]
        {
            let memory = Arc::new(MemoryStore::new());
            let (store, faults) = FaultyStore::new(Arc::clone(&memory));
            faults.then([Fault::None, fault.clone(), fault.clone()]);
            let mut delivery = delivery(Arc::new(store), &config(&[Period::Day]));
            delivery.store(counts(&[("a", "2026-11-20", 1)])).await.unwrap();
            delivery.store(counts(&[("a", "2026-11-20", 2), ("b", "2026-11-20", 3)])).await.unwrap();
            let delivered = delivery.finish(Ok(())).await;
            assert_eq!((delivered.increments, delivered.counters), (3, 3), "{fault:?}");
            assert_eq!(read(&*memory, "2026-11-20").await, Counters::from([("a", 3), ("b", 3)]));
            assert_eq!(memory.writers(), writers, "{fault:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn store_outage_ends_the_delivery_with_an_error() {
        let (store, faults) = FaultyStore::new(MemoryStore::new());
        faults.otherwise(Fault::Fail);
        let (requests, received) = mpsc::channel(1);
        let delivery = delivery(Arc::new(store), &config(&[Period::Day]));
        let running = tokio::spawn(async move { delivery.run(received, &Stop::default()).await });
        requests.send(Request::Store(counts(&[("a", "2026-11-20", 1)]))).await.ok().unwrap();
        let delivered = running.await.unwrap();
        assert_eq!((delivered.increments, delivered.in_doubt), (0, 0));
        assert_eq!(delivered.failure.unwrap().kind(), ErrorKind::NotApplied);
        assert!(requests.is_closed(), "counting ends as well");
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_unanswered_batch_is_in_doubt() {
        for (first, is_stored) in [(Fault::LoseReply, true), (Fault::LoseRequest, false)] {
            let memory = Arc::new(MemoryStore::new());
            let (store, faults) = FaultyStore::new(Arc::clone(&memory));
            faults.then([Fault::None, first.clone()]);
            faults.otherwise(Fault::Fail);
            let mut delivery = delivery(Arc::new(store), &config(&[Period::Hour, Period::Day]));
            delivery.store(counts(&[("a", "2026-11-20T10", 1)])).await.unwrap();
            let given_up =
                delivery.store(counts(&[("a", "2026-11-20T10", 2), ("b", "2026-11-20T11", 1)])).await;
            let delivered = delivery.finish(given_up).await;
            assert_eq!((delivered.increments, delivered.in_doubt), (1, 2), "{first:?}");
            assert_eq!(delivered.failure.unwrap().kind(), ErrorKind::InDoubt);
            assert_eq!(read(&*memory, "2026-11-20").await.get("b").unwrap().is_some(), is_stored);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stop_ends_an_unlimited_delivery_after_its_deadline() {
        let (store, faults) = FaultyStore::new(MemoryStore::new());
        faults.otherwise(Fault::Fail);
        let (requests, received) = mpsc::channel(1);
        let stop = Arc::new(Stop::default());
        let delivery =
            Delivery { outage_timeout: None, ..delivery(Arc::new(store), &config(&[Period::Day])) };
        let seen = Arc::clone(&stop);
        let running = tokio::spawn(async move { delivery.run(received, &seen).await });
        requests.send(Request::Store(counts(&[("a", "2026-11-20", 1)]))).await.ok().unwrap();
        tokio::time::sleep(Duration::from_secs(100_000)).await;
        assert!(!running.is_finished(), "without a stop it is tried without limit");
        stop.set();
        assert_eq!(running.await.unwrap().failure.unwrap().kind(), ErrorKind::InDoubt);
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_delivery_still_completes() {
        let memory = Arc::new(MemoryStore::new());
        let (store, faults) = FaultyStore::new(Arc::clone(&memory));
        faults.then([Fault::Delay]);
        let (requests, received) = mpsc::channel(1);
        let stop = Arc::new(Stop::default());
        let delivery = delivery(Arc::new(store), &config(&[Period::Day]));
        let seen = Arc::clone(&stop);
        let running = tokio::spawn(async move { delivery.run(received, &seen).await });
        requests.send(Request::Store(counts(&[("a", "2026-11-20", 1)]))).await.ok().unwrap();
        faults.delayed().await;
        stop.set();
        let delivered = running.await.unwrap();
        assert_eq!(delivered.failure.unwrap().kind(), ErrorKind::InDoubt);
        assert_eq!((delivered.increments, delivered.in_doubt), (0, 1));
        faults.release();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(read(&*memory, "2026-11-20").await, Counters::from([("a", 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn second_run_from_one_mark_is_refused() {
        let memory = Arc::new(MemoryStore::new());
        let lock = Arc::new(tempfile::tempfile().unwrap());
        let counts = |value: &str| {
            let mark = Mark { key: "file/x/0".into(), expected: None, value: Some(value.into()) };
            let mark = Some(FileMark { mark, name: "log".into(), lock: Arc::clone(&lock) });
            Counts { mark, ..counts(&[("a", "2026-11-20", 1)]) }
        };
        let mut deliveries = ["1", "2"]
            .map(|value| (value, delivery(Arc::clone(&memory) as Arc<dyn Store>, &config(&[Period::Day]))));
        let mut results = Vec::new();
        for (value, delivery) in &mut deliveries {
            results.push(delivery.store(counts(value)).await);
        }
        assert!(results[0].is_ok());
        let error = results.pop().unwrap().unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("`log`"), "{error}");
        assert_eq!(read(&*memory, "2026-11-20").await, Counters::from([("a", 1)]));
    }

    #[tokio::test]
    async fn counting_buckets_fan_out_and_increments_count_once() {
        let memory = Arc::new(MemoryStore::new());
        let config = config(&[Period::Hour, Period::Day, Period::Month]);
        let mut delivery = delivery(Arc::clone(&memory) as Arc<dyn Store>, &config);
        let hours = [("a", "2026-11-20T10", 1), ("a", "2026-11-20T11", 2), ("a", "2026-11-21T00", 4)];
        delivery.store(counts(&hours)).await.unwrap();
        assert_eq!(delivery.finish(Ok(())).await.increments, 3);
        for (bucket, sum) in
            [("2026-11-20T10", 1), ("2026-11-20T11", 2), ("2026-11-20", 3), ("2026-11-21", 4), ("2026-11", 7)]
        {
            assert_eq!(read(&*memory, bucket).await["a"], sum, "{bucket}");
        }
    }
}
