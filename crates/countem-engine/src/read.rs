//! Reading a running engine: the store, and what the engine has pending. A read moves nothing (I10).

mod pace;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use countem_core::{Batch, CollectionName, Delta};
use countem_query::{ReadError, Source};
use countem_store::{ErrorKind, Query, Rows, Store, StoreError, async_trait, overlay};
use parking_lot::Mutex;
use tokio::sync::{self, OwnedRwLockReadGuard, oneshot};

use self::pace::Pace;
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
    pace: Pace,
}

/// Reads of one lane that wait for its pending counts. One observation serves all of them, and begins after each of them.
#[derive(Debug, Default)]
struct Waiting {
    requests: Mutex<Vec<Request>>,
    /// Held by the read that observes on behalf of all.
    turn: sync::Mutex<()>,
}

#[derive(Debug)]
struct Request {
    query: Query,
    answer: oneshot::Sender<Arc<Unstored>>,
}

/// The counts that a store does not have, at one moment.
#[derive(Debug)]
struct Unstored {
    /// Deltas that no store has seen.
    unsent: Rows,
    /// The batch that the store may or may not have applied.
    in_flight: Option<Arc<Batch>>,
    /// While it is held no further batch is sent: what is unsent stays unsent.
    _gate: Arc<OwnedRwLockReadGuard<()>>,
}

/// Interval at which a read checks whether the batches of an earlier process are stored.
const PAST_CHECK_INTERVAL: Duration = Duration::from_millis(5);

impl EngineSource {
    pub(crate) fn new(intake: Arc<Intake>, lanes: Arc<Lanes>, supervisor: Arc<Supervisor>) -> Self {
        let waiting = lanes.iter().map(|_| Waiting::default()).collect();
        Self { intake, lanes, supervisor, waiting, pace: Pace::default() }
    }

    fn store(&self) -> Result<Arc<dyn Store>, ReadError> {
        if self.intake.is_forked() {
            return Err(StoreError::new(ErrorKind::Refused, Refusal::Forked.to_string()).into());
        }
        self.supervisor.store().ok_or(ReadError::Closed)
    }

    /// Returns what the store does not have of `query`, at a moment after the call.
    async fn unstored(&self, query: &Query) -> Arc<Unstored> {
        let index = self.lanes.index_of(query.collection.as_str());
        let waiting = &self.waiting[index];
        loop {
            let (answer, mut answered) = oneshot::channel();
            waiting.requests.lock().push(Request { query: query.clone(), answer });
            let turn = tokio::select! {
                biased;
                answer = &mut answered => Err(answer),
                turn = waiting.turn.lock() => Ok(turn),
            };
            let answer = match turn {
                Err(answer) => answer,
                Ok(turn) => {
                    self.observe(index, waiting).await;
                    drop(turn);
                    answered.await
                }
            };
            // Lost only if the observation panicked.
            if let Ok(unstored) = answer {
                return unstored;
            }
        }
    }

    /// Observes the tables and the lane at one moment, and answers every request that was made until then.
    async fn observe(&self, index: usize, waiting: &Waiting) {
        self.pace.wait().await;
        let lane = self.lanes.get(index);
        let gate = Arc::clone(&lane.gate).read_owned().await;
        let requests = std::mem::take(&mut *waiting.requests.lock());
        let began = Instant::now();
        self.answer(lane, gate, requests);
        self.pace.spend(began.elapsed());
    }

    fn answer(&self, lane: &Lane, gate: OwnedRwLockReadGuard<()>, requests: Vec<Request>) {
        let mut queries: Vec<(Query, Vec<oneshot::Sender<_>>)> = Vec::new();
        for Request { query, answer } in requests.into_iter().filter(|request| !request.answer.is_closed()) {
            match queries.iter_mut().find(|(known, _)| *known == query) {
                Some((_, answers)) => answers.push(answer),
                None => queries.push((query, vec![answer])),
            }
        }
        let wanted: HashSet<_> = queries.iter().map(|(query, _)| query.collection.as_str()).collect();
        let is_wanted = |collection: &str| wanted.contains(collection);
        let mut pending = Copied::default();
        let (counted, in_flight) = self.intake.hold_still(|still| {
            let counted = still.copy(is_wanted);
            let lane = lane.lock();
            lane.unsent().filter(|delta| is_wanted(delta.collection)).for_each(|delta| pending.push(delta));
            (counted, lane.in_flight())
        });
        counted.fan_out(self.intake.calendar().schedules(), |delta| pending.push(delta));
        let gate = Arc::new(gate);
        for (query, answers) in queries {
            let mut unsent = Rows::new();
            overlay(&mut unsent, &query, pending.iter());
            let in_flight = in_flight.clone();
            let unstored = Arc::new(Unstored { unsent, in_flight, _gate: Arc::clone(&gate) });
            for answer in answers {
                // The read may have been dropped.
                answer.send(Arc::clone(&unstored)).ok();
            }
        }
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

#[async_trait]
impl Source for EngineSource {
    async fn rows(&self, query: &Query) -> Result<Rows, ReadError> {
        let store = self.store()?;
        self.resolve_past(self.lanes.of(query.collection.as_str())).await?;
        let unstored = self.unstored(query).await;
        let read = async {
            let mut rows = store.read(query, unstored.in_flight.as_deref()).await?;
            for (bucket, counters) in &unstored.unsent {
                let deltas = counters.iter().map(|(metric, n)| Delta {
                    collection: query.collection.as_str(),
                    metric,
                    bucket: *bucket,
                    n,
                    increments: 0,
                });
                overlay(&mut rows, query, deltas);
            }
            Ok(rows)
        };
        self.pace.measure(read).await
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
