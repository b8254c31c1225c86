//! Shutting down at the end of a scope.

use std::thread;

use crate::{Collector, blocking::block_on};

impl Collector {
    /// Returns a guard that shuts the collector down when it is dropped, and blocks until that is done.
    pub fn guard(&self) -> Guard {
        Guard::new(self.clone())
    }
}

/// Shuts a collector down when it is dropped, and blocks until that is done; see [`Collector::guard`].
#[derive(Debug)]
#[must_use = "the collector is shut down when the guard is dropped"]
pub struct Guard {
    collector: Option<Collector>,
}

impl Guard {
    pub(crate) fn new(collector: Collector) -> Self {
        Self { collector: Some(collector) }
    }

    /// Drops the guard without a shutdown.
    pub(crate) fn disarm(mut self) {
        self.collector = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(collector) = self.collector.take() else { return };
        // A thread of its own: this one may belong to a runtime, which refuses to be blocked.
        let shutdown = thread::Builder::new().spawn(move || block_on(collector.shutdown()));
        let report = shutdown.map(|shutdown| shutdown.join());
        match report {
            Ok(Ok(report)) if report.is_complete() => {}
            Ok(Ok(report)) => tracing::error!(%report, "shutdown left counts that are not in the store"),
            Ok(Err(_)) => tracing::error!("shutdown panicked"),
            Err(error) => tracing::error!(%error, "could not wait for the shutdown"),
        }
    }
}
