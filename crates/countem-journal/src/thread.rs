//! The journal thread: executes requests in groups, one transaction each, and answers them.

pub(crate) mod open;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod transaction;

mod fail_point;
mod group_commit;
mod space;
mod transactions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{SendError, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use crate::{
    error::{ErrorKind, JournalError},
    thread::{
        group_commit::{GroupCommit, Message},
        request::{Request, Urgency},
        transactions::Transactions,
    },
};

/// Maximum number of queued requests; further ones are refused (I8), but for those that are repeated until they succeed. Each of
/// these resolves a frozen batch, so they are no more than there are lanes.
const MAX_QUEUED: usize = 1024;

/// Handle of the thread. Dropping it executes what is queued and closes the file.
#[derive(Debug)]
pub(crate) struct JournalThread {
    queue: Sender<Message>,
    /// Number of requests in the queue.
    queued: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl JournalThread {
    pub(crate) fn start(transactions: Transactions) -> Result<Self, JournalError> {
        let (queue, messages) = channel();
        let queued = Arc::<AtomicUsize>::default();
        let path = transactions.path.clone();
        let mut group_commit = GroupCommit::new(transactions, Arc::clone(&queued));
        let thread = thread::Builder::new()
            .name("countem-journal".to_owned())
            .spawn(move || group_commit.run(&messages))
            .map_err(|error| JournalError::io(&path, "start the thread that writes to", &error))?;
        Ok(Self { queue, queued, thread: Some(thread) })
    }

    /// Queues `request`, without waiting. One that finds the queue full fails at once, unless it is to be repeated until it succeeds.
    pub(crate) fn send(&self, request: Box<dyn Request>) {
        let refuse = |request: Box<dyn Request>, why| {
            request.finish(Err(JournalError::new(ErrorKind::Unavailable, why)));
        };
        let queued = self.queued.fetch_add(1, Ordering::Relaxed);
        if queued >= MAX_QUEUED && request.urgency() == Urgency::Now {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            return refuse(request, "too many requests wait for the journal");
        }
        if let Err(SendError(Message::Request(request))) = self.queue.send(Message::Request(request)) {
            refuse(request, "the journal is closed");
        }
    }
}

impl Drop for JournalThread {
    fn drop(&mut self) {
        // Fails only when the thread has exited already.
        self.queue.send(Message::Close).ok();
        if let Some(thread) = self.thread.take() {
            // The thread catches every panic, so there is none to pass on.
            thread.join().ok();
        }
    }
}
