//! The thread that writes: gathers requests into groups, commits each group once, and answers.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    error::{ErrorKind, JournalError},
    request::ProbeTask,
    session::{Outcome, Session, Slot},
    status::Health,
    task::{Failure, Task, Urgency},
};

/// How many requests may wait; further ones are refused (I8).
const QUEUE: usize = 1024;

/// Most requests in one transaction.
const GROUP: usize = 1024;

/// How long a lazy request waits for others to go along with.
const LAZY: Duration = Duration::from_secs(1);

/// How often a journal that cannot record looks whether it can again.
const PROBE: Duration = Duration::from_secs(1);

/// First and longest wait before the next attempt to find out what became of a commit.
const SETTLE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// How often room is made for one group before it is refused.
const ROOM_ROUNDS: u32 = 16;

/// How often room is made on a full disk before a group is refused.
const DISK_ROUNDS: u32 = 3;

enum Message {
    Task(Box<dyn Task>),
    Close,
}

/// The thread. Dropping it carries out what was asked and closes the file.
#[derive(Debug)]
pub(crate) struct WriteThread {
    inbox: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl WriteThread {
    pub(crate) fn start(session: Session) -> Result<Self, JournalError> {
        let (inbox, messages) = sync_channel(QUEUE);
        let path = session.path.clone();
        let mut writer = Writer { session, lazy: Vec::new(), lazy_since: Instant::now(), doubt: None };
        let thread = thread::Builder::new()
            .name("countem-journal".to_owned())
            .spawn(move || writer.run(&messages))
            .map_err(|error| JournalError::io(&path, "start the thread that writes to", &error))?;
        Ok(Self { inbox, thread: Some(thread) })
    }

    /// Asks for `task`. Never waits; a request that finds no place is told so at once.
    pub(crate) fn ask(&self, task: Box<dyn Task>) {
        let (task, why) = match self.inbox.try_send(Message::Task(task)) {
            Ok(()) => return,
            Err(TrySendError::Full(message)) => (message, "too many requests wait for the journal"),
            Err(TrySendError::Disconnected(message)) => (message, "the journal is closed"),
        };
        if let Message::Task(task) = task {
            task.finish(Err(JournalError::new(ErrorKind::Unavailable, why)));
        }
    }
}

impl Drop for WriteThread {
    fn drop(&mut self) {
        // A thread that has ended already needs no telling.
        self.inbox.send(Message::Close).ok();
        if let Some(thread) = self.thread.take() {
            // It catches every panic, so there is none to pass on.
            thread.join().ok();
        }
    }
}

struct Writer {
    session: Session,
    /// Requests that are carried out along with the next ones.
    lazy: Vec<Box<dyn Task>>,
    lazy_since: Instant,
    doubt: Option<Doubt>,
}

/// A transaction of which it is not known whether it took place.
struct Doubt {
    slots: Vec<Slot>,
    error: JournalError,
    wait: Duration,
    again_at: Instant,
}

impl Writer {
    fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            let mut tasks = Vec::new();
            let closing = self.gather(messages, &mut tasks);
            self.carry_out(tasks);
            if closing {
                break;
            }
        }
        self.end(messages);
    }

    /// Waits for something to do and collects whatever is asked by then. Returns whether it was the last.
    fn gather(&self, messages: &Receiver<Message>, tasks: &mut Vec<Box<dyn Task>>) -> bool {
        let first = match self.patience() {
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(patience) => messages.recv_timeout(patience),
        };
        let mut next = match first {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return true,
        };
        while let Some(message) = next {
            match message {
                Message::Task(task) => tasks.push(task),
                Message::Close => return true,
            }
            next = if tasks.len() < GROUP { messages.try_recv().ok() } else { None };
        }
        false
    }

    fn patience(&self) -> Option<Duration> {
        let lazy = (!self.lazy.is_empty()).then(|| LAZY.saturating_sub(self.lazy_since.elapsed()));
        match &self.doubt {
            Some(doubt) => Some(doubt.again_at.saturating_duration_since(Instant::now())),
            None if self.session.broken.is_some() => None,
            None if !self.session.shared.status().health.is_ready() => Some(lazy.unwrap_or(PROBE).min(PROBE)),
            None => lazy,
        }
    }

    fn carry_out(&mut self, tasks: Vec<Box<dyn Task>>) {
        if self.doubt.as_ref().is_some_and(|doubt| doubt.again_at <= Instant::now()) {
            self.settle();
        }
        if let Some(doubt) = &self.doubt {
            let error = unavailable(&doubt.error);
            self.postpone(tasks, &error);
            return;
        }
        let (urgent, lazy): (Vec<_>, Vec<_>) =
            tasks.into_iter().partition(|task| task.urgency() != Urgency::Lazy);
        let idle = urgent.is_empty() && lazy.is_empty();
        lazy.into_iter().for_each(|task| self.put_off(task));
        let due = !self.lazy.is_empty() && self.lazy_since.elapsed() >= LAZY;
        if !urgent.is_empty() || due {
            let mut group = mem::take(&mut self.lazy);
            group.extend(urgent);
            self.commit(group);
        } else if idle && self.lazy.is_empty() && !self.session.shared.status().health.is_ready() {
            self.commit(vec![Box::new(ProbeTask)]);
        }
    }

    fn put_off(&mut self, task: Box<dyn Task>) {
        if self.lazy.is_empty() {
            self.lazy_since = Instant::now();
        }
        self.lazy.push(task);
    }

    /// Fails what cannot wait and keeps what can.
    fn postpone(&mut self, tasks: impl IntoIterator<Item = Box<dyn Task>>, error: &JournalError) {
        for task in tasks {
            if task.urgency() == Urgency::Now || error.kind() == ErrorKind::Corrupt {
                answer(task, Err(error.clone()));
            } else {
                self.put_off(task);
            }
        }
    }

    fn commit(&mut self, group: Vec<Box<dyn Task>>) {
        let mut slots: Vec<Slot> = group.into_iter().map(Slot::new).collect();
        for round in 0.. {
            let began = Instant::now();
            // The requests stay out here: a panic neither loses them nor leaves anybody without an answer.
            let session = &mut self.session;
            let outcome = catch_unwind(AssertUnwindSafe(|| session.transact(&mut slots)));
            let tick = match outcome {
                Ok(Outcome::Committed(tick)) => Some(tick),
                Ok(Outcome::Nothing) => None,
                // Its own log may be what fills the disk.
                Ok(Outcome::Failed(error))
                    if error.kind() == ErrorKind::Full && round < DISK_ROUNDS && self.session.make_room() =>
                {
                    continue;
                }
                Ok(Outcome::Failed(error)) => {
                    self.note_failure(&error);
                    self.postpone(slots.into_iter().map(|slot| slot.task), &error);
                    return;
                }
                Ok(Outcome::Doubtful(error)) => return self.doubt(slots, error),
                Err(_) => {
                    self.session.file = None;
                    self.session.unsettled = true;
                    let error = JournalError::new(ErrorKind::Unavailable, "the writing thread panicked");
                    return self.doubt(slots, error);
                }
            };
            let (crowded, rest): (Vec<_>, Vec<_>) =
                slots.into_iter().partition(|slot| matches!(slot.failure, Some(Failure::NoRoom)));
            if tick.is_some() {
                self.note_success(rest.len(), began.elapsed(), crowded.is_empty());
            }
            rest.into_iter().for_each(|slot| answer_slot(slot, tick));
            if tick.is_some() {
                // There is some space now, whatever was before.
                self.session.reserve.put_by();
                self.session.maintain();
            }
            if crowded.is_empty() {
                return;
            }
            if round == ROOM_ROUNDS || !self.session.make_room() {
                let error = self.full();
                self.note_failure(&error);
                self.postpone(crowded.into_iter().map(|slot| slot.task), &error);
                return;
            }
            slots = crowded;
        }
    }

    fn full(&self) -> JournalError {
        let (path, most) = (self.session.path.display(), self.session.options.max_bytes);
        JournalError::new(
            ErrorKind::Full,
            format!("cannot write to `{path}`: the journal has reached its bound of {most} bytes"),
        )
    }

    fn doubt(&mut self, slots: Vec<Slot>, error: JournalError) {
        self.note_failure(&unavailable(&error));
        self.doubt = Some(Doubt { slots, error, wait: SETTLE.0, again_at: Instant::now() });
        self.settle();
    }

    /// Tries to find out what became of the transaction in doubt.
    fn settle(&mut self) {
        let Some(mut doubt) = self.doubt.take() else { return };
        let session = &mut self.session;
        let settled = catch_unwind(AssertUnwindSafe(|| session.settle()));
        match settled {
            Ok(Ok(true)) => {
                let tick = self.session.ledger.tick;
                self.note_success(doubt.slots.len(), Duration::ZERO, true);
                for slot in doubt.slots {
                    match slot.failure {
                        // It had no part in the transaction; a second attempt finds out what it lacked.
                        Some(Failure::NoRoom) => {
                            let error = self.full();
                            self.postpone([slot.task], &error);
                        }
                        _ => answer_slot(slot, Some(tick)),
                    }
                }
            }
            Ok(Ok(false)) => {
                let error = unavailable(&doubt.error);
                self.postpone(doubt.slots.into_iter().map(|slot| slot.task), &error);
            }
            Ok(Err(error)) if error.kind() == ErrorKind::Corrupt => {
                self.note_failure(&error);
                // Not even the file can tell. What is found when a person has acted counts.
                let error = in_doubt(&error);
                doubt.slots.into_iter().for_each(|slot| answer(slot.task, Err(error.clone())));
            }
            Ok(Err(_)) | Err(_) => {
                doubt.again_at = Instant::now() + doubt.wait;
                doubt.wait = (doubt.wait * 2).min(SETTLE.1);
                self.doubt = Some(doubt);
            }
        }
    }

    /// Answers everybody, whatever it takes.
    fn end(&mut self, messages: &Receiver<Message>) {
        self.settle();
        if let Some(doubt) = self.doubt.take() {
            let error = in_doubt(&doubt.error);
            doubt.slots.into_iter().for_each(|slot| answer(slot.task, Err(error.clone())));
        } else if !self.lazy.is_empty() {
            let group = mem::take(&mut self.lazy);
            self.commit(group);
        }
        let closed = JournalError::new(ErrorKind::Unavailable, "the journal is closed");
        self.lazy.drain(..).for_each(|task| answer(task, Err(closed.clone())));
        while let Ok(Message::Task(task)) = messages.try_recv() {
            answer(task, Err(closed.clone()));
        }
    }

    fn note_success(&self, requests: usize, took: Duration, ready: bool) {
        let Session { ledger, shared, path, .. } = &self.session;
        let (file_bytes, log_bytes) = crate::connection::sizes(path);
        let mut status = shared.status();
        if ready {
            status.health = Health::Ready;
        }
        status.commits += 1;
        status.requests += requests as u64;
        status.last_commit = took;
        status.all_commits += took;
        status.of_ledger(ledger);
        status.file_bytes = file_bytes;
        status.log_bytes = log_bytes;
    }

    fn note_failure(&self, error: &JournalError) {
        let text = error.to_string();
        self.session.shared.status().health = match error.kind() {
            ErrorKind::Full => Health::Full(text),
            ErrorKind::Corrupt => Health::Corrupt(text),
            _ => Health::Unavailable(text),
        };
    }
}

/// Tells the caller what became of its part of a transaction.
fn answer_slot(slot: Slot, tick: Option<u64>) {
    let outcome = match (slot.failure, tick) {
        (None, Some(tick)) => Ok(tick),
        (Some(Failure::Refused(error)), _) => Err(error),
        _ => Err(JournalError::new(ErrorKind::Unavailable, "the journal did not carry the request out")),
    };
    answer(slot.task, outcome);
}

/// Runs a caller's code, whose panic is none of our business.
fn answer(task: Box<dyn Task>, outcome: Result<u64, JournalError>) {
    drop(catch_unwind(AssertUnwindSafe(|| task.finish(outcome))));
}

fn unavailable(error: &JournalError) -> JournalError {
    JournalError::new(ErrorKind::Unavailable, error.to_string())
}

fn in_doubt(error: &JournalError) -> JournalError {
    JournalError::new(
        ErrorKind::InDoubt,
        format!("{error}; whether it took place is known when the journal is opened again"),
    )
}
