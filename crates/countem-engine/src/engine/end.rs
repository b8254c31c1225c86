//! How a node ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use countem_store::{ErrorKind, StoreError};
use futures_util::future::join_all;

use super::Core;
use crate::shutdown::ShutdownReport;

impl Core {
    pub(super) async fn shutdown(&self) -> ShutdownReport {
        self.report.get_or_init(|| self.shut_down()).await.clone()
    }

    async fn shut_down(&self) -> ShutdownReport {
        let began = Instant::now();
        self.node.close();
        let deadline = tokio::time::Instant::now() + self.shutdown_deadline;
        let mut settled = join_all(self.settle());
        // Every second a new attempt at once: a backoff grown over an outage must not eat the deadline.
        let mut nudge = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = &mut settled => break,
                () = tokio::time::sleep_until(deadline) => break,
                _ = nudge.tick() => self.actors.flush(true),
            }
        }
        let report = self.report(began).await;
        if report.is_balanced() && report.is_settled() {
            self.leave().await;
        }
        self.node.lanes().iter().for_each(|lane| lane.lock().end());
        self.actors.end().await;
        let store = self.store.lock().take();
        let node = Arc::clone(&self.node);
        // Closing waits for the disk.
        let closing = tokio::task::spawn_blocking(move || {
            drop(store);
            if let Some(recorder) = node.recorder() {
                recorder.close();
            }
        });
        if closing.await.is_err() {
            tracing::error!("closing the store or the journal panicked");
        }
        tracing::info!(%report, "collector is shut down");
        self.actors.stop();
        report
    }

    fn was_ever_in_doubt(&self) -> bool {
        self.node.lanes().iter().any(|lane| lane.lock().ledger.doubts > 0)
    }

    /// Lets the store forget this writer: at once after a life in which nothing was ever in doubt, else when no late copy can
    /// exist any more.
    async fn leave(&self) {
        let Ok(store) = self.store() else { return };
        // Without the journal's word it might send batches again that the store no longer recognises.
        let settled = match self.node.recorder() {
            Some(recorder) => recorder.sync().await.map_err(|error| error.to_string()),
            None => Ok(()),
        };
        let left = match settled {
            Ok(()) if self.may_retire && !self.was_ever_in_doubt() => {
                match store.retire(&self.writer).await {
                    // The store itself was in doubt on the way, without our noticing.
                    Err(_) => store.release(&self.writer).await,
                    retired => retired,
                }
            }
            Ok(()) => store.release(&self.writer).await,
            Err(reason) => Err(StoreError::new(ErrorKind::NotApplied, reason)),
        };
        if let Err(error) = left {
            tracing::debug!(%error, "bookkeeping of this writer stays in the store");
        }
    }

    async fn report(&self, began: Instant) -> ShutdownReport {
        let has_journal = match self.node.recorder() {
            Some(recorder) => {
                recorder.round(&self.node).await;
                true
            }
            None => false,
        };
        let (accepted, _) = self.node.intake();
        let mut report = ShutdownReport { accepted: accepted + self.recovered, ..ShutdownReport::default() };
        for lane in self.node.lanes() {
            let mut lane = lane.lock();
            if has_journal {
                let unsaved = lane.fresh_increments();
                report.dropped += unsaved;
                report.journaled += lane.pending_increments().saturating_sub(unsaved);
            } else {
                report.dropped += lane.drop_unsent();
                report.in_doubt += lane.in_flight_increments();
            }
            report.applied += lane.ledger.applied;
            report.quarantined += lane.ledger.quarantined;
            match &lane.ledger.last_error {
                Some(error) => report.errors.push(error.clone()),
                None if !lane.is_settled() => {
                    report.errors.push("the store has not answered in time".to_owned())
                }
                None => {}
            }
        }
        report.took = began.elapsed();
        report
    }
}
