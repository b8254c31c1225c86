//! Brings deltas to the store, batch by batch, each exactly once.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    path::PathBuf,
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use countem::{Calendar, EngineConfig, Retry};
use countem_core::{Batch, BatchId, Delta, Deltas, Table, Writer};
use countem_store::{Applied, ErrorKind, Quarantined, Store, StoreError};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    ingest::identity::{Candidate, Place, Progress},
    stop::Stop,
};

/// Deltas counted by slot, and how far that brought the input they are from.
pub(crate) struct Parcel {
    pub(crate) deltas: Deltas,
    /// The number of the input, the place of its mark as it was found, and what the mark is to say.
    pub(crate) progress: Option<(usize, Option<Place>, Progress)>,
}

/// What a courier is asked, in order.
pub(crate) enum Order {
    /// Store this.
    Store(Parcel),
    /// Which marks may be of a content that begins with `head`? Answered after all earlier parcels are stored.
    Find { head: Vec<u8>, reply: std_mpsc::Sender<Vec<Candidate>> },
}

/// What was brought to the store.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// Increments that are in the store.
    pub(crate) increments: u64,
    /// Increments of the last batch, when nobody knows whether the store has it.
    pub(crate) in_doubt: u64,
    /// Counters that were added to, again in each batch.
    pub(crate) counters: usize,
    /// Counters that the store could not add to.
    pub(crate) quarantined: Vec<Quarantined>,
    /// Why the rest is not in the store.
    pub(crate) failure: Option<StoreError>,
}

/// One writer that sends one batch at a time.
pub(crate) struct Courier {
    store: Arc<dyn Store>,
    calendar: Arc<Calendar>,
    writer: Writer,
    seq: u64,
    retry: Retry,
    /// How long a parcel is tried; for ever when `None`.
    patience: Option<Duration>,
    /// How long a parcel is still tried after everybody is to stop.
    grace: Duration,
    /// A batch was in doubt, so a late copy of it may exist.
    doubted: bool,
    /// Increments of a batch that was sent and may be stored, though the store has not said so.
    sent: u64,
    /// Where the marks of inputs are.
    places: HashMap<usize, Place>,
    /// The file that is locked while a place is chosen; none when no other process has the store.
    turns: Option<PathBuf>,
    delivered: Delivered,
}

impl Courier {
    /// Returns a courier under a new random identity.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        calendar: Arc<Calendar>,
        settings: &EngineConfig,
        patience: Option<Duration>,
    ) -> Self {
        let turns = store.location().strip_prefix("sqlite://").map(|path| format!("{path}-ingest").into());
        Self {
            store,
            calendar,
            writer: Writer::new(rand::random(), 1),
            seq: 0,
            retry: Retry::new(settings.retry_first, settings.retry_longest),
            patience,
            grace: settings.shutdown_deadline,
            doubted: false,
            sent: 0,
            places: HashMap::new(),
            turns,
            delivered: Delivered::default(),
        }
    }

    /// Does what it is asked until nobody can ask any more, or the store fails.
    pub(crate) async fn serve(mut self, mut orders: mpsc::Receiver<Order>, stop: &Stop) -> Delivered {
        let mut done = Ok(());
        while let Some(order) = orders.recv().await {
            let too_late = too_late(stop, self.grace);
            done = tokio::select! {
                done = self.obey(order) => done,
                late = too_late => Err(late),
            };
            if done.is_err() {
                break;
            }
        }
        self.finish(done).await
    }

    async fn obey(&mut self, order: Order) -> Result<(), StoreError> {
        match order {
            Order::Store(parcel) => self.store(parcel).await,
            Order::Find { head, reply } => {
                // Whoever asked may have stopped.
                reply.send(self.find(&head).await?).ok();
                Ok(())
            }
        }
    }

    /// Stores a parcel.
    ///
    /// # Errors
    /// The store refuses it, or did not take it in time.
    pub(crate) async fn store(&mut self, parcel: Parcel) -> Result<(), StoreError> {
        let mut turn = None;
        let mark = match &parcel.progress {
            None => None,
            Some((input, resumed, progress)) => {
                Some(progress.mark(self.place(*input, *resumed, progress, &mut turn).await?))
            }
        };
        self.seq += 1;
        let id = BatchId { writer: self.writer.clone(), lane: 0, seq: self.seq };
        let deltas = self.fan_out(parcel.deltas)?;
        let batch = Arc::new(match mark {
            None => Batch::new(id, deltas),
            Some(mark) => Batch::with_mark(id, deltas, mark),
        });
        // Known also when this future is dropped, by somebody who gives up while the store has the batch.
        self.sent = batch.totals().increments;
        let delivered = self.deliver(&batch, turn).await;
        if !delivered.as_ref().is_err_and(|error| error.kind() == ErrorKind::InDoubt) {
            self.sent = 0;
        }
        let applied = delivered?;
        tracing::debug!(batch = %batch.id(), counters = batch.len(), "batch is stored");
        let refused: u64 = applied.quarantined.iter().map(|counter| counter.increments).sum();
        self.delivered.increments += batch.totals().increments - refused;
        self.delivered.counters += batch.len() - applied.quarantined.len();
        self.delivered.quarantined.extend(applied.quarantined);
        Ok(())
    }

    /// Ends the writer after `done`, together with its bookkeeping in the store where that is safe.
    pub(crate) async fn finish(mut self, done: Result<(), StoreError>) -> Delivered {
        self.delivered.failure = done.err();
        self.delivered.in_doubt = self.sent;
        if self.seq > 0 && !self.doubted && self.delivered.failure.is_none() {
            // Bookkeeping that stays behind is harmless.
            if let Err(error) = self.store.forget(&self.writer).await {
                tracing::debug!(%error, "the bookkeeping of this run stays in the store");
            }
        }
        self.delivered
    }

    /// Brings a batch to the store. A `turn` ends when its mark is in its place.
    async fn deliver(&mut self, batch: &Arc<Batch>, turn: Option<File>) -> Result<Applied, StoreError> {
        const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        let deadline = Instant::now() + self.patience.unwrap_or(AGES);
        let (store, batch, retry) = (Arc::clone(&self.store), Arc::clone(batch), self.retry.clone());
        // A task of its own: the store's future is not dropped by whoever gives up waiting for it.
        let sending = tokio::spawn(async move {
            let _turn = turn;
            countem::deliver(&*store, &batch, retry, deadline).await
        });
        let panicked = |error| StoreError::new(ErrorKind::InDoubt, "the store panicked").with_source(error);
        let (applied, doubted) = sending.await.map_err(panicked)??;
        self.doubted |= doubted;
        Ok(applied)
    }

    /// Turns slots into stored buckets.
    fn fan_out(&self, deltas: Deltas) -> Result<Deltas, StoreError> {
        let is_stored = |delta: &Delta<'_>| {
            let mut buckets = self.calendar.schedule(delta.collection).fan_out(delta.bucket);
            buckets.next() == Some(delta.bucket) && buckets.next().is_none()
        };
        if deltas.iter().all(|delta| is_stored(&delta)) {
            return Ok(deltas);
        }
        let mut table = Table::new();
        for delta in deltas.iter() {
            let schedule = self.calendar.schedule(delta.collection);
            for (at, bucket) in schedule.fan_out(delta.bucket).enumerate() {
                // The same increments are accounted for once.
                let increments = if at == 0 { delta.increments } else { 0 };
                table.merge(Delta { bucket, increments, ..delta }).map_err(|error| {
                    StoreError::new(ErrorKind::Refused, format!("cannot add up `{}`", delta.metric))
                        .with_source(error)
                })?;
            }
        }
        Ok(table.drain())
    }

    /// Finds the marks that may be of a content that begins with `head`.
    async fn find(&self, head: &[u8]) -> Result<Vec<Candidate>, StoreError> {
        let mut found = Vec::new();
        for first in Place::all(head) {
            let mut place = first;
            while let Some(value) = self.mark(place).await? {
                found.extend(Candidate::read(&value, place, head));
                place = place.next();
            }
        }
        Ok(found)
    }

    /// Returns where the mark of an input is: where it was, or, after the input has outgrown that, in a place of its own,
    /// which is its alone for as long as nobody else has a `turn`.
    async fn place(
        &mut self,
        input: usize,
        resumed: Option<Place>,
        progress: &Progress,
        turn: &mut Option<File>,
    ) -> Result<Place, StoreError> {
        let known = self.places.get(&input).copied().or(resumed);
        let place = match known.filter(|place| place.is_beside(progress.place)) {
            Some(place) => place,
            None => {
                *turn = self.turn().await?;
                let mut place = progress.place;
                while self.mark(place).await?.is_some() {
                    place = place.next();
                }
                place
            }
        };
        self.places.insert(input, place);
        Ok(place)
    }

    /// Waits for the turn to choose a place. Two processes whose inputs begin alike would else find the same one free, and the
    /// mark of one would take the place of the other's.
    async fn turn(&self) -> Result<Option<File>, StoreError> {
        let Some(path) = &self.turns else { return Ok(None) };
        let made = File::options().create(true).append(true).open(path);
        // Somebody else's can be locked, too.
        let Ok(file) = made.or_else(|_| File::open(path)) else { return Ok(None) };
        let (mut retry, began) = (self.retry.clone(), Instant::now());
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                // Some file systems have no locks.
                Err(TryLockError::Error(_)) => return Ok(None),
                Err(TryLockError::WouldBlock) => {}
            }
            let wait = retry.next_wait();
            if self.patience.is_some_and(|patience| began.elapsed() + wait > patience) {
                let why = format!("another `ingest --once` keeps `{}` locked", path.display());
                return Err(StoreError::new(ErrorKind::NotApplied, why));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Reads a mark, trying again while the store is away.
    async fn mark(&self, place: Place) -> Result<Option<String>, StoreError> {
        let (mut retry, began) = (self.retry.clone(), Instant::now());
        loop {
            let error = match self.store.mark(&place.key()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let may_pass = matches!(error.kind(), ErrorKind::NotApplied | ErrorKind::InDoubt);
            let wait = retry.next_wait();
            if !may_pass || self.patience.is_some_and(|patience| began.elapsed() + wait > patience) {
                return Err(error);
            }
            tracing::warn!(%error, "store cannot be read, trying again");
            tokio::time::sleep(wait).await;
        }
    }
}

/// Waits for the request to stop and for as long as what is under way may still take.
async fn too_late(stop: &Stop, grace: Duration) -> StoreError {
    stop.requested().await;
    tokio::time::sleep(grace).await;
    StoreError::new(ErrorKind::InDoubt, format!("gave up {grace:?} after the request to stop"))
}

#[cfg(test)]
mod tests {
    use countem_core::{Bucket, CollectionName, Period};
    use countem_store::{Counters, Fault, FaultyStore, MemoryStore, Query};
    use jiff::Timestamp;

    use super::*;
    use crate::ingest::identity::{Identity, Position};

    fn settings(periods: &[Period]) -> EngineConfig {
        EngineConfig { periods: periods.to_vec(), ..EngineConfig::default() }
    }

    fn courier(store: Arc<dyn Store>, settings: &EngineConfig) -> Courier {
        let calendar = Calendar::new(Arc::new(settings.schedules().unwrap()), Timestamp::now());
        Courier::new(store, Arc::new(calendar), settings, Some(Duration::from_secs(60)))
    }

    fn parcel(counts: &[(&str, &str, i64)]) -> Parcel {
        let mut table = Table::new();
        for (metric, slot, n) in counts {
            table.fold("web", metric, slot.parse().unwrap(), *n).unwrap();
        }
        Parcel { deltas: table.drain(), progress: None }
    }

    async fn read(store: &dyn Store, bucket: &str) -> Counters {
        let bucket: Bucket = bucket.parse().unwrap();
        let query = Query::bucket(CollectionName::new("web").unwrap(), bucket);
        store.read(&query, None).await.unwrap().remove(&bucket).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_in_doubt_is_stored_once_and_its_writer_stays_known() {
        for (fault, writers) in
            [(Fault::Fail, 0), (Fault::LoseReply, 1), (Fault::LoseRequest, 1), (Fault::None, 0)]
        {
            let memory = Arc::new(MemoryStore::new());
            let (store, faults) = FaultyStore::new(Arc::clone(&memory));
            faults.then([Fault::None, fault.clone(), fault.clone()]);
            let mut courier = courier(Arc::new(store), &settings(&[Period::Day]));
            courier.store(parcel(&[("a", "2026-11-20", 1)])).await.unwrap();
            courier.store(parcel(&[("a", "2026-11-20", 2), ("b", "2026-11-20", 3)])).await.unwrap();
            let delivered = courier.finish(Ok(())).await;
            assert_eq!((delivered.increments, delivered.counters), (3, 3), "{fault:?}");
            assert_eq!(read(&*memory, "2026-11-20").await, Counters::from([("a", 3), ("b", 3)]));
            assert_eq!(memory.writers(), writers, "{fault:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_away_is_given_up_and_said_so() {
        let (store, faults) = FaultyStore::new(MemoryStore::new());
        faults.otherwise(Fault::Fail);
        let (orders, asked) = mpsc::channel(1);
        let courier = courier(Arc::new(store), &settings(&[Period::Day]));
        let serving = tokio::spawn(async move { courier.serve(asked, &Stop::default()).await });
        orders.send(Order::Store(parcel(&[("a", "2026-11-20", 1)]))).await.ok().unwrap();
        let delivered = serving.await.unwrap();
        assert_eq!((delivered.increments, delivered.in_doubt), (0, 0));
        assert_eq!(delivered.failure.unwrap().kind(), ErrorKind::NotApplied);
        assert!(orders.is_closed(), "nobody goes on counting for a store that takes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn the_increments_of_a_batch_that_was_never_answered_are_in_doubt_and_no_others() {
        for (first, is_stored) in [(Fault::LoseReply, true), (Fault::LoseRequest, false)] {
            let memory = Arc::new(MemoryStore::new());
            let (store, faults) = FaultyStore::new(Arc::clone(&memory));
            faults.then([Fault::None, first.clone()]);
            faults.otherwise(Fault::Fail);
            let mut courier = courier(Arc::new(store), &settings(&[Period::Hour, Period::Day]));
            courier.store(parcel(&[("a", "2026-11-20T10", 1)])).await.unwrap();
            let given_up =
                courier.store(parcel(&[("a", "2026-11-20T10", 2), ("b", "2026-11-20T11", 1)])).await;
            let delivered = courier.finish(given_up).await;
            assert_eq!((delivered.increments, delivered.in_doubt), (1, 2), "{first:?}");
            assert_eq!(delivered.failure.unwrap().kind(), ErrorKind::InDoubt);
            assert_eq!(read(&*memory, "2026-11-20").await.get("b").is_some(), is_stored);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_request_to_stop_the_store_gets_its_grace_and_no_more() {
        let (store, faults) = FaultyStore::new(MemoryStore::new());
        faults.otherwise(Fault::Fail);
        let (orders, asked) = mpsc::channel(1);
        let stop = Arc::new(Stop::default());
        let courier = Courier { patience: None, ..courier(Arc::new(store), &settings(&[Period::Day])) };
        let seen = Arc::clone(&stop);
        let serving = tokio::spawn(async move { courier.serve(asked, &seen).await });
        orders.send(Order::Store(parcel(&[("a", "2026-11-20", 1)]))).await.ok().unwrap();
        tokio::time::sleep(Duration::from_secs(100_000)).await;
        assert!(!serving.is_finished(), "without a request it is tried for ever");
        stop.set();
        assert_eq!(serving.await.unwrap().failure.unwrap().kind(), ErrorKind::InDoubt);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_given_up_while_the_store_has_it_is_not_torn_from_the_store() {
        let memory = Arc::new(MemoryStore::new());
        let (store, faults) = FaultyStore::new(Arc::clone(&memory));
        faults.then([Fault::Delay]);
        let (orders, asked) = mpsc::channel(1);
        let stop = Arc::new(Stop::default());
        let courier = courier(Arc::new(store), &settings(&[Period::Day]));
        let seen = Arc::clone(&stop);
        let serving = tokio::spawn(async move { courier.serve(asked, &seen).await });
        orders.send(Order::Store(parcel(&[("a", "2026-11-20", 1)]))).await.ok().unwrap();
        faults.delayed().await;
        stop.set();
        let delivered = serving.await.unwrap();
        assert_eq!(delivered.failure.unwrap().kind(), ErrorKind::InDoubt);
        assert_eq!((delivered.increments, delivered.in_doubt), (0, 1));
        faults.release();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(read(&*memory, "2026-11-20").await, Counters::from([("a", 1)]));
    }

    #[tokio::test(start_paused = true)]
    async fn inputs_that_begin_alike_get_places_of_their_own_from_two_processes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryStore::new());
        let (slow, faults) = FaultyStore::new(Arc::clone(&memory));
        faults.then([Fault::Delay]);
        let parcel = |end: &str| {
            let mut identity = Identity::default();
            identity.advance(format!("sixteen letters, {end}").as_bytes());
            let position = Position { offset: 18, ..Position::default() };
            let progress = identity.progress(position).unwrap();
            (
                Parcel { progress: Some((0, None, progress.clone())), ..parcel(&[(end, "2026-11-20", 1)]) },
                progress,
            )
        };
        let ((one, first), (two, second)) = (parcel("1"), parcel("2"));
        assert!(first.place == second.place && first != second);
        let courier = |store| Courier {
            turns: Some(folder.path().join("turns")),
            ..courier(store, &settings(&[Period::Day]))
        };
        let mut couriers = [courier(Arc::new(slow)), courier(Arc::clone(&memory) as Arc<dyn Store>)];
        let [ahead, behind] = &mut couriers;
        let releasing = async {
            faults.delayed().await;
            // The other one has chosen its place, and the store takes its time.
            let stored_later = async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                faults.release();
            };
            tokio::join!(behind.store(two), stored_later).0
        };
        let (ahead, behind) = tokio::join!(ahead.store(one), releasing);
        ahead.and(behind).unwrap();
        for (progress, place) in [(&first, first.place), (&second, second.place.next())] {
            let mark = progress.mark(place);
            assert_eq!(memory.mark(&mark.key).await.unwrap().as_ref(), Some(&mark.value));
        }
    }

    #[tokio::test]
    async fn slots_become_the_stored_buckets_and_increments_are_told_once() {
        let memory = Arc::new(MemoryStore::new());
        let settings = settings(&[Period::Hour, Period::Day, Period::Month]);
        let mut courier = courier(Arc::clone(&memory) as Arc<dyn Store>, &settings);
        let counts = [("a", "2026-11-20T10", 1), ("a", "2026-11-20T11", 2), ("a", "2026-11-21T00", 4)];
        courier.store(parcel(&counts)).await.unwrap();
        assert_eq!(courier.finish(Ok(())).await.increments, 3);
        for (bucket, sum) in
            [("2026-11-20T10", 1), ("2026-11-20T11", 2), ("2026-11-20", 3), ("2026-11-21", 4), ("2026-11", 7)]
        {
            assert_eq!(read(&*memory, bucket).await["a"], sum, "{bucket}");
        }
    }
}
