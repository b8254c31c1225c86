//! How a node ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use countem_store::{ErrorKind, StoreError};
use futures_util::future::join_all;

use super::Core;
use crate::{shutdown::ShutdownReport, stats::Stats};

/// How long a step of a shutdown may take beyond the deadline.
const PATIENCE: Duration = Duration::from_secs(5);

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
        // What waits for a disk or a server that does not answer must not keep the process from ending.
        let patience = deadline.max(tokio::time::Instant::now() + PATIENCE);
        self.record_rest(patience).await;
        let report = self.report(began);
        if report.is_balanced() && report.is_settled() {
            self.leave(patience).await;
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
        match tokio::time::timeout(PATIENCE, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("closing the store or the journal panicked"),
            Err(_) => tracing::error!("the disk of the store or of the journal does not answer"),
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
    async fn leave(&self, until: tokio::time::Instant) {
        let Ok(store) = self.store() else { return };
        let (node, writer) = (Arc::clone(&self.node), self.writer.clone());
        let may_retire = self.may_retire && !self.was_ever_in_doubt();
        // A task of its own: a store's future runs to its end.
        let leaving = tokio::spawn(async move {
            // Without the journal's word it might send batches again that the store no longer recognises.
            if let Some(recorder) = node.recorder() {
                recorder
                    .sync()
                    .await
                    .map_err(|error| StoreError::new(ErrorKind::NotApplied, error.to_string()))?;
            }
            if may_retire && store.forget(&writer).await.is_ok() {
                return Ok(());
            }
            // The store itself may have been in doubt on the way, without our noticing.
            store.retire(&writer).await
        });
        match tokio::time::timeout_at(until, leaving).await {
            Ok(Ok(Ok(()))) => {}
            stays => tracing::debug!(?stays, "bookkeeping of this writer stays in the store"),
        }
    }

    /// Lets the journal record what it has not, for as long as the shutdown may take.
    async fn record_rest(&self, until: tokio::time::Instant) {
        let node = Arc::clone(&self.node);
        // A task of its own: what is on its way to the journal is not forgotten.
        let round = tokio::spawn(async move {
            match node.recorder() {
                Some(recorder) => recorder.round(&node).await,
                None => true,
            }
        });
        if tokio::time::timeout_at(until, round).await.is_err() {
            tracing::error!("the journal does not answer, so it is not known what it has");
        }
    }

    fn report(&self, began: Instant) -> ShutdownReport {
        let has_journal = self.node.recorder().is_some();
        let (counted, direct) =
            self.node.look(|lanes| lanes.iter().map(|lane| lane.lock().ledger.direct).sum::<u64>());
        let mut report = ShutdownReport { accepted: counted.accepted + direct, ..ShutdownReport::default() };
        for lane in self.node.lanes() {
            let mut lane = lane.lock();
            if has_journal {
                let (unsaved, recording) = (lane.fresh_increments(), lane.recording());
                report.dropped += unsaved;
                report.in_doubt += recording;
                report.journaled += lane.pending_increments().saturating_sub(unsaved + recording);
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
    /// Says what is known when a shutdown did not come to its end.
    pub(super) fn broken_report(&self) -> ShutdownReport {
        let stats = Stats::of(&self.node, 0);
        ShutdownReport {
            accepted: stats.accepted,
            applied: stats.applied,
            quarantined: stats.quarantined,
            dropped: stats.dropped,
            in_doubt: stats.pending,
            errors: vec!["the shutdown panicked".to_owned()],
            ..ShutdownReport::default()
        }
    }
}
