//! Connections that only read, each on a thread of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use countem_store::{ErrorKind, StoreError};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::{
    SqliteConfig,
    connection::OpenFile,
    error::{keeps_connection, store_error},
};

/// How many reads may wait for a thread; further ones wait for a place (I8).
const QUEUE: usize = 64;

type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// Threads that own a reading connection each. They start with the first reads that need them, because a process that
/// only counts should not pay for them. Dropping them finishes the queue and closes the connections.
#[derive(Debug)]
pub(crate) struct ReadThreads {
    options: SqliteConfig,
    jobs: Option<mpsc::Sender<Job>>,
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Queue {
    /// Whoever holds the lock waits for the next job; the others wait for the lock.
    jobs: Mutex<mpsc::Receiver<Job>>,
    /// How many threads wait, for either.
    idle: AtomicUsize,
}

#[derive(Debug)]
struct Session {
    options: SqliteConfig,
    file: Option<OpenFile>,
}

impl ReadThreads {
    pub(crate) fn new(options: SqliteConfig) -> Self {
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let queue = Arc::new(Queue { jobs: Mutex::new(receiver), idle: AtomicUsize::new(0) });
        Self { options, jobs: Some(jobs), queue, threads: Mutex::default() }
    }

    /// Lets one of the threads do `work`.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.see_to_a_thread()?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |session| {
            // A caller that no longer waits has no use for the answer.
            reply.send(session.read(work)).ok();
        });
        let jobs = self.jobs.as_ref().expect("the queue is there until the threads are dropped");
        let lost = |what| StoreError::new(ErrorKind::NotApplied, what);
        jobs.send(job).await.map_err(|_| lost("the reading threads have stopped"))?;
        answer.await.unwrap_or_else(|_| Err(lost("a reading thread panicked; it will open the file anew")))
    }

    /// Starts one more thread when none is idle and there may be more. A read that comes at the same moment may see an
    /// idle thread that this one gets; it then waits for the next one.
    fn see_to_a_thread(&self) -> Result<(), StoreError> {
        if self.queue.idle.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        let mut threads = self.threads.lock();
        if threads.len() >= self.options.readers.get() {
            return Ok(());
        }
        let mut session = Session { options: self.options.clone(), file: None };
        let queue = self.queue.clone();
        let work = move || {
            while let Some(job) = queue.next() {
                if catch_unwind(AssertUnwindSafe(|| job(&mut session))).is_err() {
                    session.file = None;
                }
            }
        };
        match std::thread::Builder::new().name("countem-sqlite-reader".to_owned()).spawn(work) {
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

impl Session {
    fn read<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let file = match self.file.take_if(|file| file.is_current()) {
            Some(file) => file,
            None => OpenFile::for_reading(&self.options)?,
        };
        let file = self.file.insert(file);
        work(&mut file.connection).map_err(|error| {
            if !keeps_connection(&error) {
                self.file = None;
            }
            store_error(&self.options.path, "read", error)
        })
    }
}

impl Drop for ReadThreads {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.get_mut().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reading thread of an sqlite store panicked at its end");
            }
        }
    }
}
