//! Requests in progress: one for each key, bounded, and worked on in groups.

use std::{
    collections::{HashMap, VecDeque},
    fmt, mem,
    sync::Arc,
    time::Duration,
};

use countem_core::{Batch, BatchId, Deltas, IdempotencyKey, Schedules, Writer};
use countem_journal::KeyedEntry;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, oneshot, watch};

use super::{Keyed, KeyedError};
use crate::{
    Refusal,
    actors::Supervisor,
    collect::{Intake, KeyedIncrement, Prepared},
    deliver::{Lanes, Recorder, Retry},
};

/// Time for which a key stands for its request: a day, and as much as the clocks of two nodes may differ.
const KEY_RETENTION: SignedDuration = SignedDuration::from_hours(25);
/// Maximum number of requests in progress (I8).
const MAX_REQUESTS: usize = 10_000;
/// Maximum number of their deltas.
const MAX_DELTAS: usize = 1_000_000;
/// Maximum number of requests in one group, which shares a commit of the journal and a claim.
const MAX_GROUP: usize = 1000;
/// Maximum wait between two attempts during a shutdown.
const LAST_WAIT: Duration = Duration::from_millis(500);
/// Number of groups under way at once: one is claimed while the next is recorded.
const MAX_WORKERS: usize = 2;

/// See the module.
pub(crate) struct Desk {
    pub(super) intake: Arc<Intake>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) recorder: Option<Arc<Recorder>>,
    pub(super) supervisor: Arc<Supervisor>,
    retry: Retry,
    state: Mutex<State>,
    /// Number of tasks that work on requests.
    busy: watch::Sender<usize>,
    /// Ends the wait before the next attempt.
    hurry: Notify,
    /// True once nothing may be decided any more; held for reading while something is.
    pub(super) is_over: RwLock<bool>,
}

#[derive(Debug)]
struct State {
    is_closed: bool,
    /// Writer of the entries, and the newest position.
    writer: Writer,
    position: u64,
    queue: VecDeque<Arrival>,
    /// Number of groups under way.
    workers: usize,
    /// Entries whose claim failed, until the next attempt.
    undecided: Vec<Entry>,
    is_retrying: bool,
    /// The keys in progress, and the failure of the last attempt for each.
    in_progress: HashMap<IdempotencyKey, watch::Sender<Option<Arc<str>>>>,
    /// Number of deltas in progress.
    deltas: usize,
}

type Answer = Result<Keyed, KeyedError>;

/// A valid request whose key is in progress.
#[derive(Debug)]
struct Arrival {
    key: IdempotencyKey,
    body: [u8; 32],
    expires_at: Timestamp,
    prepared: Prepared,
    answer: oneshot::Sender<Answer>,
}

/// Requests that are worked on together.
pub(super) struct Group(Vec<Arrival>);

/// A request that is not decided.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) entry: Arc<KeyedEntry>,
    /// The schedules by which its buckets were chosen.
    pub(super) counted_by: Arc<Schedules>,
    /// The store may have a claim of it.
    pub(super) may_be_claimed: bool,
    /// Number of its deltas when it arrived.
    deltas: usize,
    /// `None` once the caller was told that it is in progress.
    answer: Option<oneshot::Sender<Answer>>,
}

/// Reaction to a request.
enum Submitted {
    Accepted(oneshot::Receiver<Answer>),
    /// Another request under its key is in progress.
    Behind(watch::Receiver<Option<Arc<str>>>),
}

impl Desk {
    pub(crate) fn new(
        intake: Arc<Intake>,
        lanes: Arc<Lanes>,
        recorder: Option<Arc<Recorder>>,
        supervisor: Arc<Supervisor>,
        writer: Writer,
        retry: Retry,
    ) -> Self {
        // Batches of claims have an order of their own.
        let writer = if recorder.is_some() { writer } else { fresh_writer() };
        let state = State {
            is_closed: false,
            writer,
            position: 0,
            queue: VecDeque::new(),
            workers: 0,
            undecided: Vec::new(),
            is_retrying: false,
            in_progress: HashMap::new(),
            deltas: 0,
        };
        Self {
            intake,
            lanes,
            recorder,
            supervisor,
            retry,
            state: Mutex::new(state),
            busy: watch::Sender::new(0),
            hurry: Notify::new(),
            is_over: RwLock::new(false),
        }
    }

    /// Counts a request once; see [`Engine::increment_keyed`](crate::Engine::increment_keyed). A request whose key is in progress waits for
    /// the one before.
    pub(crate) async fn request(
        self: &Arc<Self>,
        key: &IdempotencyKey,
        body: [u8; 32],
        increments: &[KeyedIncrement<'_>],
    ) -> Answer {
        loop {
            let prepared = self.intake.prepare(increments).map_err(|(index, refusal)| {
                self.intake.refuse(&refusal);
                KeyedError::Refused { index, refusal }
            })?;
            match self.submit(key, body, prepared)? {
                Submitted::Accepted(answer) => {
                    return answer.await.unwrap_or_else(|_| Err(KeyedError::shut_down()));
                }
                Submitted::Behind(mut before) => {
                    // Fails when the request before has its outcome.
                    if let Ok(failed) = before.wait_for(Option::is_some).await {
                        let reason = failed.clone().unwrap_or_default();
                        return Err(KeyedError::InProgress { reason });
                    }
                }
            }
        }
    }

    fn submit(
        self: &Arc<Self>,
        key: &IdempotencyKey,
        body: [u8; 32],
        prepared: Prepared,
    ) -> Result<Submitted, KeyedError> {
        let expires_at = self.intake.clock().now().saturating_add(KEY_RETENTION).unwrap_or(Timestamp::MAX);
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(KeyedError::Refused { index: 0, refusal: Refusal::Closed });
        }
        if let Some(before) = state.in_progress.get(key) {
            return Ok(Submitted::Behind(before.subscribe()));
        }
        let deltas = state.deltas + prepared.deltas.len();
        if state.in_progress.len() >= MAX_REQUESTS || (deltas > MAX_DELTAS && state.deltas > 0) {
            return Err(KeyedError::Busy);
        }
        let (answer, answered) = oneshot::channel();
        state.deltas = deltas;
        state.in_progress.insert(key.clone(), watch::Sender::new(None));
        state.queue.push_back(Arrival { key: key.clone(), body, expires_at, prepared, answer });
        let max = if self.recorder.is_some() { MAX_WORKERS } else { 1 };
        if state.workers < max {
            state.workers += 1;
            self.supervisor.runtime().spawn(Arc::clone(self).work(Turn::begin(self)));
        }
        Ok(Submitted::Accepted(answered))
    }

    /// Works on groups of requests until there is none.
    async fn work(self: Arc<Self>, _turn: Turn) {
        let mut worker = Worker(Some(Arc::clone(&self)));
        loop {
            let group = {
                let mut state = self.state.lock();
                let group = state.take_group(if self.recorder.is_some() { MAX_GROUP } else { 1 });
                if group.0.is_empty() {
                    // Under the lock: a request that comes now finds this worker gone.
                    state.workers -= 1;
                    worker.0 = None;
                    return;
                }
                group
            };
            match &self.recorder {
                Some(recorder) => self.journal(recorder, group).await,
                None => self.count_directly(group).await,
            }
        }
    }

    /// Goes on with the entries that an earlier process has left, which were counted by `counted_by`.
    pub(crate) fn recover(self: &Arc<Self>, entries: Vec<KeyedEntry>, counted_by: &Arc<Schedules>) {
        let reason: Arc<str> = "an earlier process ended before it knew the outcome".into();
        let entry = |entry: KeyedEntry| Entry {
            deltas: entry.counts.len(),
            entry: Arc::new(entry),
            counted_by: Arc::clone(counted_by),
            may_be_claimed: true,
            answer: None,
        };
        let entries: Vec<_> = entries.into_iter().map(entry).collect();
        {
            let mut state = self.state.lock();
            for entry in &entries {
                state.deltas += entry.deltas;
                state.in_progress.insert(entry.entry.key.clone(), watch::Sender::new(None));
            }
        }
        self.postpone(entries, &reason);
    }

    /// Ends a request and answers its caller.
    pub(super) fn finish(&self, entry: Entry, answer: Answer) {
        {
            let mut state = self.state.lock();
            if state.in_progress.remove(&entry.entry.key).is_some() {
                state.deltas = state.deltas.saturating_sub(entry.deltas);
            }
        }
        if let Some(caller) = entry.answer {
            // The caller may have gone.
            caller.send(answer).ok();
        }
    }

    /// Tells the callers that the outcome is not known, and keeps the entries for another attempt.
    pub(super) fn postpone(self: &Arc<Self>, mut entries: Vec<Entry>, reason: &Arc<str>) {
        if entries.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for entry in &mut entries {
            if let Some(failed) = state.in_progress.get(&entry.entry.key) {
                failed.send_replace(Some(Arc::clone(reason)));
            }
            if let Some(caller) = entry.answer.take() {
                caller.send(Err(KeyedError::InProgress { reason: Arc::clone(reason) })).ok();
            }
        }
        state.undecided.append(&mut entries);
        if !mem::replace(&mut state.is_retrying, true) {
            self.supervisor.runtime().spawn(Arc::clone(self).try_again(Turn::begin(self)));
        }
    }

    /// Settles undecided entries, with waits between the attempts, until there is none.
    async fn try_again(self: Arc<Self>, _turn: Turn) {
        let mut retry = self.retry.clone();
        loop {
            let mut wait = retry.next_wait();
            if self.state.lock().is_closed {
                wait = wait.min(LAST_WAIT);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.hurry.notified() => {}
            }
            let entries = {
                let mut state = self.state.lock();
                let entries = mem::take(&mut state.undecided);
                state.is_retrying = !entries.is_empty();
                entries
            };
            if entries.is_empty() {
                return;
            }
            self.settle(entries).await;
        }
    }

    /// Returns the number of requests in progress.
    pub(crate) fn in_progress(&self) -> usize {
        self.state.lock().in_progress.len()
    }

    /// Accepts no other request, and returns once all are decided.
    pub(crate) async fn close(&self) {
        self.state.lock().is_closed = true;
        self.hurry.notify_one();
        // The sender lives as long as this.
        self.busy.subscribe().wait_for(|busy| *busy == 0).await.ok();
    }

    /// Decides nothing any more: what is in the journal stays there. Returns true if that may be anything.
    pub(crate) async fn stop(&self) -> bool {
        *self.is_over.write().await = true;
        let mut state = self.state.lock();
        state.is_closed = true;
        state.queue.clear();
        state.undecided.clear();
        state.deltas = 0;
        !mem::take(&mut state.in_progress).is_empty()
    }

    /// Returns the writer of the batches of claims, if it was used.
    pub(crate) fn writer_of_claims(&self) -> Option<Writer> {
        let state = self.state.lock();
        (self.recorder.is_none() && state.position > 0).then(|| state.writer.clone())
    }

    /// Draws another writer: a batch of the one so far is in doubt, and the next must not be sent before that is resolved.
    pub(super) fn change_writer(&self) {
        let mut state = self.state.lock();
        (state.writer, state.position) = (fresh_writer(), 0);
    }

    /// Makes the entries of a group, with the deltas that `admit` makes of theirs.
    pub(super) fn enter(&self, group: Group, admit: impl Fn(Deltas) -> Deltas) -> Vec<Entry> {
        let enter = |arrival: Arrival| {
            let Arrival { key, body, expires_at, prepared, answer } = arrival;
            let deltas = prepared.deltas.len();
            let counts = Arc::new(Batch::new(self.state.lock().next_id(), admit(prepared.deltas)));
            Entry {
                entry: Arc::new(KeyedEntry { key, body, expires_at, counts }),
                counted_by: prepared.counted_by,
                may_be_claimed: false,
                deltas,
                answer: Some(answer),
            }
        };
        group.0.into_iter().map(enter).collect()
    }
}

/// The time in which a task works on requests; ends also if it panics.
struct Turn(Arc<Desk>);

impl Turn {
    fn begin(desk: &Arc<Desk>) -> Self {
        desk.busy.send_modify(|busy| *busy += 1);
        Self(Arc::clone(desk))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.busy.send_modify(|busy| *busy -= 1);
    }
}

/// A worker that has not ended; makes room for another one if it panics.
struct Worker(Option<Arc<Desk>>);

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(desk) = &self.0 {
            desk.state.lock().workers -= 1;
        }
    }
}

impl State {
    fn take_group(&mut self, max: usize) -> Group {
        let count = self.queue.len().min(max);
        Group(self.queue.drain(..count).collect())
    }

    fn next_id(&mut self) -> BatchId {
        self.position += 1;
        BatchId { writer: self.writer.clone(), lane: 0, seq: self.position }
    }
}

fn fresh_writer() -> Writer {
    Writer::new(rand::random(), 1)
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("state", &self.state).finish_non_exhaustive()
    }
}
