//! Reading a running engine: the store, and what the engine has pending. A read moves nothing (I10).

mod pace;
mod stored;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use countem_core::{Batch, CollectionName, Schedules};
use countem_query::{ReadError, Source};
use countem_store::{ErrorKind, RowQuery, Rows, Store, StoreError, async_trait, overlay};
use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{self, oneshot};

use self::{
    pace::Pace,
    stored::{Delivered, StoredParts},
};
use crate::{
    actors::Supervisor,
    collect::{Copied, Intake, Refusal},
    deliver::{Lane, Lanes},
};

/// The store and the pending counts of an engine, each counted exactly once.
#[derive(Debug)]
pub(crate) struct EngineSource {
    intake: Arc<Intake>,
    lanes: Arc<Lanes>,
    supervisor: Arc<Supervisor>,
    /// By lane.
    waiting: Box<[Waiting]>,
    pace: Arc<Pace>,
}

/// Reads of one lane that wait for an observation. It serves all of them, and begins after each of them.
#[derive(Debug, Default)]
struct Waiting {
    requests: Mutex<Vec<Request>>,
    stored: Arc<StoredParts>,
    /// Held by the read that observes on behalf of all.
    turn: sync::Mutex<()>,
}

#[derive(Debug)]
struct Request {
    query: RowQuery,
    /// Maximum age of the stored part.
    max_age: Duration,
    answer: oneshot::Sender<Answer>,
}

/// The rows of a query, shared by all reads that asked for them.
type Answer = Result<Arc<Rows>, StoreError>;

/// A query, what an observation found of it, and the reads that asked for it.
struct Observed {
    query: RowQuery,
    /// Minimum of those of the reads.
    max_age: Duration,
    /// Deltas that no store has seen.
    unsent: Rows,
    answers: Vec<oneshot::Sender<Answer>>,
}

/// Interval at which a read checks whether the batches of an earlier process are stored.
const PAST_CHECK_INTERVAL: Duration = Duration::from_millis(5);

impl EngineSource {
    pub(crate) fn new(intake: Arc<Intake>, lanes: Arc<Lanes>, supervisor: Arc<Supervisor>) -> Self {
        let waiting = lanes.iter().map(|_| Waiting::default()).collect();
        Self { intake, lanes, supervisor, waiting, pace: Arc::default() }
    }

    fn store(&self) -> Result<Arc<dyn Store>, ReadError> {
        if self.intake.is_forked() {
            return Err(StoreError::new(ErrorKind::Refused, Refusal::Forked.to_string()).into());
        }
        self.supervisor.store().ok_or(ReadError::Closed)
    }

    /// Returns the rows of `query` at a moment after the call. Reads that wait for the same moment share one read of the store.
    async fn shared(
        &self,
        query: &RowQuery,
        max_age: Duration,
        store: Arc<dyn Store>,
    ) -> Result<Arc<Rows>, ReadError> {
        let index = self.lanes.index_of(query.collection.as_str());
        let waiting = &self.waiting[index];
        let (answer, mut answered) = oneshot::channel();
        waiting.requests.lock().push(Request { query: query.clone(), max_age, answer });
        let answer = tokio::select! {
            biased;
            answer = &mut answered => answer,
            turn = waiting.turn.lock() => {
                self.observe(index, store).await;
                drop(turn);
                answered.await
            }
        };
        match answer {
            Ok(rows) => Ok(rows?),
            // Lost when the engine ended meanwhile, or else when the store panicked.
            Err(_) => {
                self.store()?;
                Err(StoreError::new(ErrorKind::NotApplied, "the read was interrupted").into())
            }
        }
    }

    /// Observes the tables and the lane at one moment, and begins to answer every request that was made until then.
    async fn observe(&self, index: usize, store: Arc<dyn Store>) {
        self.pace.wait().await;
        let lane = self.lanes.get(index);
        // While it is held no further batch is sent: what is unsent stays unsent.
        let gate = Arc::clone(&lane.gate).read_owned().await;
        let requests = std::mem::take(&mut *self.waiting[index].requests.lock());
        let began = Instant::now();
        let (observed, in_flight, delivered) = self.observed(lane, requests);
        self.pace.spend(began.elapsed());
        let (pace, stored) = (Arc::clone(&self.pace), Arc::clone(&self.waiting[index].stored));
        // A task of its own: the reads go on when the one that observed is dropped.
        self.supervisor.runtime().spawn(async move {
            let read =
                |observed| pace.measure(answer(observed, &*store, in_flight.as_deref(), &stored, &delivered));
            join_all(observed.into_iter().map(read)).await;
            drop(gate);
        });
    }

    /// Returns what the store does not have of each query, the batch that it may or may not have applied, and the moment of the lane.
    fn observed(
        &self,
        lane: &Lane,
        requests: Vec<Request>,
    ) -> (Vec<Observed>, Option<Arc<Batch>>, Delivered) {
        let mut observed: Vec<Observed> = Vec::new();
        for Request { query, max_age, answer } in
            requests.into_iter().filter(|request| !request.answer.is_closed())
        {
            match observed.iter_mut().find(|known| known.query == query) {
                Some(known) => {
                    known.max_age = known.max_age.min(max_age);
                    known.answers.push(answer);
                }
                None => {
                    observed.push(Observed { query, max_age, unsent: Rows::new(), answers: vec![answer] });
                }
            }
        }
        let wanted: HashSet<_> = observed.iter().map(|known| known.query.collection.as_str()).collect();
        let is_wanted = |collection: &str| wanted.contains(collection);
        let mut pending = Copied::default();
        let (counted, schedules, in_flight, delivered) = self.intake.hold_still(|still| {
            let counted = still.copy(is_wanted);
            let lane = lane.lock();
            lane.unsent().filter(|delta| is_wanted(delta.collection)).for_each(|delta| pending.push(delta));
            (counted, self.intake.calendar().schedules(), lane.in_flight(), Delivered::of(&lane))
        });
        counted.fan_out(&schedules, |delta| pending.push(delta));
        for Observed { query, unsent, .. } in &mut observed {
            overlay(unsent, query, pending.iter());
        }
        (observed, in_flight, delivered)
    }

    /// Returns the rows of `query`, of which what other engines have stored may be as old as `max_age`.
    async fn rows_within(&self, query: &RowQuery, max_age: Duration) -> Result<Rows, ReadError> {
        let store = self.store()?;
        self.resolve_past(self.lanes.of(query.collection.as_str())).await?;
        self.shared(query, max_age, store).await.map(Arc::unwrap_or_clone)
    }

    /// Returns once no batch of an earlier process is unresolved in `lane`: before, it is not known what the store has of them.
    async fn resolve_past(&self, lane: &Lane) -> Result<(), ReadError> {
        let attempts_before = lane.lock().totals.attempts;
        loop {
            // After a shutdown nothing is sent any more.
            self.store()?;
            {
                let lane = lane.lock();
                if !lane.has_unresolved_past() {
                    return Ok(());
                }
                // A batch that was stored since then is an attempt, too, but leaves no error.
                if lane.totals.attempts > attempts_before
                    && let Some(error) = &lane.totals.last_error
                {
                    let text =
                        format!("counts of an earlier process have to be stored before a read: {error}");
                    return Err(StoreError::new(ErrorKind::NotApplied, text).into());
                }
            }
            self.supervisor.flush(true);
            tokio::time::sleep(PAST_CHECK_INTERVAL).await;
        }
    }
}

/// Reads the store and answers all reads of one query.
async fn answer(
    observed: Observed,
    store: &dyn Store,
    in_flight: Option<&Batch>,
    stored: &StoredParts,
    delivered: &Delivered,
) {
    let Observed { query, max_age, unsent, answers } = observed;
    let read = match stored.get(&query, delivered, max_age) {
        Some(rows) => Ok(Arc::unwrap_or_clone(rows)),
        None => {
            let began = Instant::now();
            let read = store.read(&query, in_flight).await;
            read.inspect(|rows| stored.put(&query, delivered, began, rows, max_age))
        }
    };
    let read = read.map(|mut rows| {
        for (bucket, counters) in &unsent {
            let row = rows.entry(*bucket).or_default();
            counters.iter().for_each(|(metric, n)| row.merge(metric, n.map_err(Clone::clone)));
        }
        query.cut(&mut rows);
        Arc::new(rows)
    });
    for answer in answers {
        // The read may have been dropped.
        answer.send(read.clone()).ok();
    }
}

/// The same, where what other engines have stored may be older.
#[derive(Debug)]
pub(crate) struct AgedSource {
    pub(crate) source: Arc<EngineSource>,
    pub(crate) max_age: Duration,
}

#[async_trait]
impl Source for AgedSource {
    async fn rows(&self, query: &RowQuery) -> Result<Rows, ReadError> {
        self.source.rows_within(query, self.max_age).await
    }

    async fn schedules(&self) -> Result<Arc<Schedules>, ReadError> {
        self.source.schedules().await
    }

    fn now(&self) -> Timestamp {
        self.source.now()
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, ReadError> {
        self.source.collections().await
    }
}

#[async_trait]
impl Source for EngineSource {
    async fn rows(&self, query: &RowQuery) -> Result<Rows, ReadError> {
        self.rows_within(query, Duration::ZERO).await
    }

    async fn schedules(&self) -> Result<Arc<Schedules>, ReadError> {
        self.supervisor.agreement().ensure(&*self.store()?).await?;
        Ok(self.intake.calendar().schedules())
    }

    fn now(&self) -> Timestamp {
        self.intake.clock().now()
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, ReadError> {
        let store = self.store()?;
        // Pending ones first: a collection that is stored meanwhile is then seen twice, and never not at all.
        let mut names = BTreeSet::new();
        self.intake.hold_still(|still| {
            still.collections(&mut names);
            for lane in self.lanes.iter() {
                for collection in lane.lock().collections() {
                    if !names.contains(collection) {
                        names.insert(collection.to_owned());
                    }
                }
            }
        });
        let pending = names.into_iter().filter_map(|name| CollectionName::new(&name).ok());
        let mut names: Vec<_> = pending.chain(store.collections().await?).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}
