//! The loop of the journal thread: gathers requests into groups, commits each group once, and answers.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use crate::{
    disk::file::sizes,
    error::{ErrorKind, Failure, JournalError},
    status::Health,
    thread::{
        request::{Call, Request, Urgency},
        transaction::Transaction,
        transactions::{Entry, Outcome, Transactions},
    },
};

/// Maximum number of requests in one transaction.
const MAX_GROUP: usize = 1024;

/// Maximum time for which a lazy request waits for others.
const LAZY_DELAY: Duration = Duration::from_secs(1);

/// Interval at which an idle journal that cannot record tries whether it can again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// First and longest wait before the outcome of a commit in doubt is looked up again.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const MAX_RETRY: Duration = Duration::from_secs(2);

/// Maximum number of times that room is made for one group before it is refused. Half of the history goes each time.
const MAX_ROOM_ROUNDS: u32 = 16;

pub(super) enum Message {
    Request(Box<dyn Request>),
    Close,
}

pub(super) struct GroupCommit {
    transactions: Transactions,
    /// Number of requests that are not gathered yet.
    queued: Arc<AtomicUsize>,
    /// Requests that are executed along with the next ones.
    lazy: Vec<Box<dyn Request>>,
    lazy_since: Instant,
    doubt: Option<Doubt>,
}

/// A transaction whose outcome is unknown.
struct Doubt {
    entries: Vec<Entry>,
    error: JournalError,
    wait: Duration,
    retry_at: Instant,
}

impl GroupCommit {
    pub(super) fn new(transactions: Transactions, queued: Arc<AtomicUsize>) -> Self {
        Self { transactions, queued, lazy: Vec::new(), lazy_since: Instant::now(), doubt: None }
    }

    /// Serves requests until the journal is closed.
    pub(super) fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            let mut requests = Vec::new();
            let is_closing = self.gather(messages, &mut requests);
            self.queued.fetch_sub(requests.len(), Ordering::Relaxed);
            self.execute(requests);
            if is_closing {
                break;
            }
        }
        self.finish_all(messages);
    }

    /// Waits for a request or for the next wakeup, and collects all that are queued by then. Returns whether the journal is
    /// being closed.
    fn gather(&self, messages: &Receiver<Message>, requests: &mut Vec<Box<dyn Request>>) -> bool {
        let first = match self.next_wakeup() {
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => messages.recv_timeout(wait),
        };
        let mut next = match first {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return true,
        };
        while let Some(message) = next {
            match message {
                Message::Request(request) => requests.push(request),
                Message::Close => return true,
            }
            next = if requests.len() < MAX_GROUP { messages.try_recv().ok() } else { None };
        }
        false
    }

    fn next_wakeup(&self) -> Option<Duration> {
        let lazy = (!self.lazy.is_empty()).then(|| LAZY_DELAY.saturating_sub(self.lazy_since.elapsed()));
        match &self.doubt {
            Some(doubt) => Some(doubt.retry_at.saturating_duration_since(Instant::now())),
            None if self.transactions.broken.is_some() => None,
            None if !self.is_ready() => Some(lazy.unwrap_or(PROBE_INTERVAL).min(PROBE_INTERVAL)),
            None => lazy,
        }
    }

    fn is_ready(&self) -> bool {
        self.transactions.shared.status().health.is_ready()
    }

    fn execute(&mut self, requests: Vec<Box<dyn Request>>) {
        if self.doubt.as_ref().is_some_and(|doubt| doubt.retry_at <= Instant::now()) {
            self.find_outcome();
        }
        if let Some(doubt) = &self.doubt {
            let error = unavailable(&doubt.error);
            self.fail_or_defer(requests, &error);
            return;
        }
        let is_idle = requests.is_empty();
        let (urgent, lazy): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| request.urgency() != Urgency::Lazy);
        lazy.into_iter().for_each(|request| self.defer(request));
        let is_due = !self.lazy.is_empty() && self.lazy_since.elapsed() >= LAZY_DELAY;
        if !urgent.is_empty() || is_due {
            let mut group = mem::take(&mut self.lazy);
            group.extend(urgent);
            self.commit(group);
        } else if is_idle && self.lazy.is_empty() && !self.is_ready() {
            self.commit(vec![probe()]);
        }
    }

    fn defer(&mut self, request: Box<dyn Request>) {
        if self.lazy.is_empty() {
            self.lazy_since = Instant::now();
        }
        self.lazy.push(request);
    }

    /// Fails requests that cannot wait, and keeps the others for the next transaction.
    fn fail_or_defer(&mut self, requests: impl IntoIterator<Item = Box<dyn Request>>, error: &JournalError) {
        for request in requests {
            if request.urgency() == Urgency::Now || error.kind() == ErrorKind::Corrupt {
                finish(request, Err(error.clone()));
            } else {
                self.defer(request);
            }
        }
    }

    /// Commits a group and answers its requests; makes room and tries again where there is none.
    fn commit(&mut self, group: Vec<Box<dyn Request>>) {
        let mut entries: Vec<Entry> = group.into_iter().map(Entry::new).collect();
        for round in 0.. {
            let began = Instant::now();
            // The entries stay outside: a panic must not leave a request without an answer.
            let transactions = &mut self.transactions;
            let outcome = catch_unwind(AssertUnwindSafe(|| transactions.run(&mut entries)));
            let tick = match outcome {
                Ok(Outcome::Committed(tick)) => Some(tick),
                Ok(Outcome::Nothing) => None,
                // The journal's own log may be what fills the disk.
                Ok(Outcome::Failed(error))
                    if error.kind() == ErrorKind::Full
                        && round < MAX_ROOM_ROUNDS
                        && self.transactions.make_room(round == 0) =>
                {
                    continue;
                }
                Ok(Outcome::Failed(error)) => {
                    self.note_failure(&error);
                    self.fail_or_defer(entries.into_iter().map(|entry| entry.request), &error);
                    return;
                }
                Ok(Outcome::InDoubt(error)) => return self.begin_doubt(entries, error),
                Err(_) => {
                    self.transactions.file = None;
                    self.transactions.in_doubt = true;
                    let error = JournalError::new(ErrorKind::Unavailable, "the journal thread panicked");
                    return self.begin_doubt(entries, error);
                }
            };
            let (crowded, rest): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| matches!(entry.failure, Some(Failure::NoRoom)));
            if tick.is_some() {
                self.note_success(rest.len(), began.elapsed(), crowded.is_empty());
            }
            rest.into_iter().for_each(|entry| finish_entry(entry, tick));
            if tick.is_some() {
                // A commit has found space, so there may be some for the reserve.
                self.transactions.reserve.allocate();
                self.transactions.maintain();
            }
            if crowded.is_empty() {
                return;
            }
            if round == MAX_ROOM_ROUNDS || !self.transactions.make_room(round == 0) {
                let error = self.full();
                self.note_failure(&error);
                self.fail_or_defer(crowded.into_iter().map(|entry| entry.request), &error);
                return;
            }
            entries = crowded;
        }
    }

    fn full(&self) -> JournalError {
        let (path, max_bytes) = (self.transactions.path.display(), self.transactions.config.max_bytes);
        JournalError::new(
            ErrorKind::Full,
            format!("cannot write to `{path}`: the journal has reached its bound of {max_bytes} bytes"),
        )
    }

    fn begin_doubt(&mut self, entries: Vec<Entry>, error: JournalError) {
        self.note_failure(&unavailable(&error));
        self.doubt = Some(Doubt { entries, error, wait: FIRST_RETRY, retry_at: Instant::now() });
        self.find_outcome();
    }

    /// Looks up the outcome of the transaction in doubt, and answers its requests if there is one.
    fn find_outcome(&mut self) {
        let Some(mut doubt) = self.doubt.take() else { return };
        let transactions = &mut self.transactions;
        let outcome = catch_unwind(AssertUnwindSafe(|| transactions.find_outcome()));
        match outcome {
            Ok(Ok(true)) => {
                let tick = self.transactions.state.tick;
                self.note_success(doubt.entries.len(), Duration::ZERO, true);
                for entry in doubt.entries {
                    if let Some(Failure::NoRoom) = entry.failure {
                        // It had no part in the transaction.
                        let error = self.full();
                        self.fail_or_defer([entry.request], &error);
                    } else {
                        finish_entry(entry, Some(tick));
                    }
                }
            }
            Ok(Ok(false)) => {
                let error = unavailable(&doubt.error);
                self.fail_or_defer(doubt.entries.into_iter().map(|entry| entry.request), &error);
            }
            // The next opening tells, after a person has acted.
            Ok(Err(error)) if error.kind() == ErrorKind::Corrupt => {
                self.note_failure(&error);
                finish_in_doubt(doubt.entries, &error);
            }
            Ok(Err(_)) | Err(_) => {
                doubt.retry_at = Instant::now() + doubt.wait;
                doubt.wait = (doubt.wait * 2).min(MAX_RETRY);
                self.doubt = Some(doubt);
            }
        }
    }

    /// Answers every outstanding request before the thread exits.
    fn finish_all(&mut self, messages: &Receiver<Message>) {
        self.find_outcome();
        if let Some(doubt) = self.doubt.take() {
            finish_in_doubt(doubt.entries, &doubt.error);
        } else if !self.lazy.is_empty() {
            let group = mem::take(&mut self.lazy);
            self.commit(group);
        }
        let closed = JournalError::new(ErrorKind::Unavailable, "the journal is closed");
        self.lazy.drain(..).for_each(|request| finish(request, Err(closed.clone())));
        while let Ok(Message::Request(request)) = messages.try_recv() {
            finish(request, Err(closed.clone()));
        }
    }

    fn note_success(&self, requests: usize, took: Duration, is_ready: bool) {
        let Transactions { state, shared, path, .. } = &self.transactions;
        let (file_bytes, log_bytes) = sizes(path);
        let mut status = shared.status();
        if is_ready {
            status.health = Health::Ready;
        }
        status.commits += 1;
        status.requests += requests as u64;
        status.last_commit = took;
        status.all_commits += took;
        status.set_state(state);
        status.file_bytes = file_bytes;
        status.log_bytes = log_bytes;
    }

    fn note_failure(&self, error: &JournalError) {
        let text = error.to_string();
        self.transactions.shared.status().health = match error.kind() {
            ErrorKind::Full => Health::Full(text),
            ErrorKind::Corrupt => Health::Corrupt(text),
            _ => Health::Unavailable(text),
        };
    }
}

/// Returns a request that succeeds when a record would.
fn probe() -> Box<dyn Request> {
    let execute = |transaction: &mut Transaction<'_>| {
        transaction.rows += 1;
        transaction.check_room()
    };
    Call::boxed("other", Urgency::Now, execute, drop)
}

/// Answers a request of a transaction that was committed as `tick`, if it was.
fn finish_entry(entry: Entry, tick: Option<u64>) {
    let outcome = match (entry.failure, tick) {
        (None, Some(tick)) => Ok(tick),
        (Some(Failure::Refused(error)), _) => Err(error),
        _ => Err(JournalError::new(ErrorKind::Unavailable, "the journal did not execute the request")),
    };
    finish(entry.request, outcome);
}

fn finish_in_doubt(entries: Vec<Entry>, error: &JournalError) {
    let error = JournalError::new(
        ErrorKind::InDoubt,
        format!("{error}; whether it took effect is known when the journal is opened again"),
    );
    entries.into_iter().for_each(|entry| finish(entry.request, Err(error.clone())));
}

/// Calls the caller's callback, whose panic must not end the thread.
fn finish(request: Box<dyn Request>, outcome: Result<u64, JournalError>) {
    drop(catch_unwind(AssertUnwindSafe(|| request.finish(outcome))));
}

fn unavailable(error: &JournalError) -> JournalError {
    JournalError::new(ErrorKind::Unavailable, error.to_string())
}
