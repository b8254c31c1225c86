//! The threads that own the reading connections.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{Builder, JoinHandle},
};

use countem_store::{ErrorKind, StoreError};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::connection::{Open, ReadConnection};
use crate::SqliteConfig;

/// Maximum number of reads that wait for a thread; further ones wait for room (I8).
const QUEUE: usize = 64;

type Job = Box<dyn FnOnce(&mut ReadConnection) + Send>;

/// Threads that own a reading connection each. They start with the first reads that need them, because a process that
/// only counts should not pay for them. Dropping them finishes the queue and closes the connections.
#[derive(Debug)]
pub(crate) struct ReadThreads {
    config: SqliteConfig,
    open: Open,
    /// `None` while dropped.
    jobs: Option<mpsc::Sender<Job>>,
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Queue {
    /// One idle thread holds the lock and waits for the next job; the others wait for the lock.
    jobs: Mutex<mpsc::Receiver<Job>>,
    /// Number of threads that wait for either.
    idle: AtomicUsize,
}

impl ReadThreads {
    /// Starts no thread yet; each one opens the file by `open`.
    pub(crate) fn new(config: SqliteConfig, open: Open) -> Self {
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let queue = Arc::new(Queue { jobs: Mutex::new(receiver), idle: AtomicUsize::new(0) });
        Self { config, open, jobs: Some(jobs), queue, threads: Mutex::default() }
    }

    /// Runs `work` on one of the threads, and returns its result.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.start_thread_if_none_is_idle()?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // A caller that no longer waits has no use for the answer.
            reply.send(connection.read(work)).ok();
        });
        let jobs = self.jobs.as_ref().expect("the queue is there until the threads are dropped");
        let lost = |why| StoreError::new(ErrorKind::NotApplied, why);
        jobs.send(job).await.map_err(|_| lost("the reading threads have stopped"))?;
        answer.await.unwrap_or_else(|_| Err(lost("a reading thread panicked; it will open the file anew")))
    }

    /// Starts one more thread when none is idle and there may be more. A read that comes at the same moment may see an
    /// idle thread that this one gets; it then waits for the next one.
    fn start_thread_if_none_is_idle(&self) -> Result<(), StoreError> {
        if self.queue.idle.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        let mut threads = self.threads.lock();
        if threads.len() >= self.config.readers.get() {
            return Ok(());
        }
        let mut connection = ReadConnection::new(self.config.clone(), self.open);
        let queue = Arc::clone(&self.queue);
        let work = move || {
            while let Some(job) = queue.next() {
                if catch_unwind(AssertUnwindSafe(|| job(&mut connection))).is_err() {
                    connection.close();
                }
            }
        };
        match Builder::new().name("countem-sqlite-reader".to_owned()).spawn(work) {
            Ok(thread) => threads.push(thread),
            Err(error) if threads.is_empty() => {
                return Err(StoreError::new(ErrorKind::NotApplied, "cannot start a reading thread")
                    .with_source(error));
            }
            Err(error) => tracing::warn!(%error, "cannot start one more reading thread"),
        }
        Ok(())
    }
}

impl Queue {
    fn next(&self) -> Option<Job> {
        self.idle.fetch_add(1, Ordering::Relaxed);
        let job = self.jobs.lock().blocking_recv();
        self.idle.fetch_sub(1, Ordering::Relaxed);
        job
    }
}

impl Drop for ReadThreads {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.get_mut().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reading thread of an sqlite store panicked while it closed the file");
            }
        }
    }
}
