//! The request to stop, from a signal to every thread.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

/// A request to stop, set once. Threads wait on it instead of sleeping.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    is_set: Mutex<bool>,
    changed: Condvar,
    notify: tokio::sync::Notify,
}

impl Stop {
    /// Requests a stop.
    pub(crate) fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
        self.notify.notify_waiters();
    }

    /// Returns whether a stop was requested.
    pub(crate) fn is_set(&self) -> bool {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `time`, or until a stop is requested. Returns whether it was.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_set, time, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until a stop is requested.
    pub(crate) async fn requested(&self) {
        loop {
            let mut notified = std::pin::pin!(self.notify.notified());
            notified.as_mut().enable();
            if self.is_set() {
                return;
            }
            notified.await;
        }
    }

    /// Requests a stop at the first Ctrl-C or SIGTERM, and exits the process at the second.
    ///
    /// # Errors
    /// Signal handlers cannot be installed.
    pub(crate) async fn at_signals(&self) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        for is_first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if !is_first {
                std::process::exit(130);
            }
            self.set();
        }
        Ok(())
    }
}
