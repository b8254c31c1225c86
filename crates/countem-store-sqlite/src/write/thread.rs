//! The thread that owns the writing connection.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{Builder, JoinHandle},
};

use countem_store::{ErrorKind, StoreError};
use tokio::sync::{mpsc, oneshot};

use super::connection::WriteConnection;
use crate::SqliteConfig;

/// Maximum number of calls in the queue of the writing thread; further ones wait for room (I8).
const QUEUE: usize = 16;

type Job = Box<dyn FnOnce(&mut WriteConnection) + Send>;

/// Runs calls one after another on the writing connection. Dropping it finishes the queue and closes the connection.
#[derive(Debug)]
pub(crate) struct WriteThread {
    /// `None` while dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl WriteThread {
    /// Opens the file on the calling thread, so that errors are returned at once, and starts the thread.
    pub(crate) fn start(config: SqliteConfig) -> Result<Self, StoreError> {
        let mut connection = WriteConnection::open(config)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let work = move || {
            while let Some(job) = queue.blocking_recv() {
                let work = AssertUnwindSafe(|| {
                    job(&mut connection);
                    connection.shorten_log();
                });
                // Unwinding dropped the reply, which tells the caller.
                if catch_unwind(work).is_err() {
                    connection.distrust();
                }
            }
        };
        let thread =
            Builder::new().name("countem-sqlite-writer".to_owned()).spawn(work).map_err(|error| {
                StoreError::new(ErrorKind::NotApplied, "cannot start the writing thread").with_source(error)
            })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs `work` on the thread after earlier calls, and returns its result.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut WriteConnection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // A caller that no longer waits has no use for the answer.
            reply.send(work(connection)).ok();
        });
        let jobs = self.jobs.as_ref().expect("the queue is there until the thread is dropped");
        let stopped = |_| StoreError::new(ErrorKind::NotApplied, "the writing thread has stopped");
        jobs.send(job).await.map_err(stopped)?;
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::new(ErrorKind::InDoubt, "writing panicked; the file will be opened anew"))
        })
    }
}

impl Drop for WriteThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writing thread of an sqlite store panicked while it closed the file");
        }
    }
}
