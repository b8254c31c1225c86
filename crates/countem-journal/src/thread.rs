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
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
};

use crate::{
    error::{ErrorKind, JournalError},
    thread::{
        group_commit::{GroupCommit, Message},
        request::Request,
        transactions::Transactions,
    },
};

/// Maximum number of queued requests; further ones are refused (I8).
const MAX_QUEUED: usize = 1024;

/// Handle of the thread. Dropping it executes what is queued and closes the file.
#[derive(Debug)]
pub(crate) struct JournalThread {
    queue: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl JournalThread {
    pub(crate) fn start(transactions: Transactions) -> Result<Self, JournalError> {
        let (queue, messages) = sync_channel(MAX_QUEUED);
        let path = transactions.path.clone();
        let mut group_commit = GroupCommit::new(transactions);
        let thread = thread::Builder::new()
            .name("countem-journal".to_owned())
            .spawn(move || group_commit.run(&messages))
            .map_err(|error| JournalError::io(&path, "start the thread that writes to", &error))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Queues `request`, without waiting. One that finds the queue full fails at once.
    pub(crate) fn send(&self, request: Box<dyn Request>) {
        let (message, why) = match self.queue.try_send(Message::Request(request)) {
            Ok(()) => return,
            Err(TrySendError::Full(message)) => (message, "too many requests wait for the journal"),
            Err(TrySendError::Disconnected(message)) => (message, "the journal is closed"),
        };
        if let Message::Request(request) = message {
            request.finish(Err(JournalError::new(ErrorKind::Unavailable, why)));
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
