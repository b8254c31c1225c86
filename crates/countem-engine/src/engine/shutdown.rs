//! Shutting an engine down.

use std::{
    pin::pin,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use countem_store::{ErrorKind, StoreError};
use futures_util::future::join_all;

use super::{Engine, EngineState, LastHandle, ShutdownReport};
use crate::{actors::on_engine_thread, collect::Refusal, deliver::Lane};

/// Maximum time of each step of a shutdown beyond the deadline: waiting for a disk or a server that does not answer must not keep the
/// process from ending.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of new attempts: a backoff that grew over an outage must not use up the deadline.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);

const ON_ENGINE_THREAD: &str = "a thread of the collector cannot wait for its shutdown";

impl Engine {
    /// Stops intake, stores everything pending, and returns a report. Further calls return the same report.
    ///
    /// In a forked child this returns at once with a report of the error: the parent's threads store the counts.
    ///
    /// # Cancel safety
    /// The shutdown goes on when the future is dropped.
    pub async fn shutdown(&self) -> ShutdownReport {
        let state = Arc::clone(self.state());
        if let Some(report) = state.known_report() {
            return report;
        }
        let task = self.runtime().spawn(async move { state.shutdown().await });
        match task.await {
            Ok(report) => report,
            // The runtime ends only after a shutdown has left its report, unless it panicked.
            Err(_) => self.state().report.get().cloned().unwrap_or_else(|| self.state().broken_report()),
        }
    }

    /// Does what [`shutdown`](Self::shutdown) does, blocking the calling thread, which may run any executor or none.
    ///
    /// A thread of the engine itself, such as one that runs a task of [`runtime`](Self::runtime), cannot wait: the shutdown then
    /// goes on in the background, and the report says so.
    pub fn shutdown_blocking(&self) -> ShutdownReport {
        self.state().shutdown_blocking()
    }
}

impl Drop for LastHandle {
    /// Shuts the engine down, and waits for that unless this is a thread of the engine.
    fn drop(&mut self) {
        if self.state.intake.is_forked() {
            // Destructors of what the parent uses must not run here.
            std::mem::forget(Arc::clone(&self.state));
            return;
        }
        if !self.state.report.initialized() {
            tracing::debug!("collector was dropped without a shutdown");
            self.state.shutdown_blocking();
        }
    }
}

impl EngineState {
    /// Returns the report if no shutdown has to run for it.
    fn known_report(&self) -> Option<ShutdownReport> {
        if self.intake.is_forked() {
            return Some(ShutdownReport::failed(&Refusal::Forked.to_string()));
        }
        self.report.get().cloned()
    }

    fn shutdown_blocking(self: &Arc<Self>) -> ShutdownReport {
        if let Some(report) = self.known_report() {
            return report;
        }
        let (reported, report) = mpsc::sync_channel(1);
        let state = Arc::clone(self);
        self.supervisor.runtime().spawn(async move { drop(reported.send(state.shutdown().await)) });
        if on_engine_thread() {
            return ShutdownReport::failed(ON_ENGINE_THREAD);
        }
        // Ends when the report is sent, or when the task is dropped or panics.
        report.recv().unwrap_or_else(|_| self.report.get().cloned().unwrap_or_else(|| self.broken_report()))
    }

    async fn shutdown(&self) -> ShutdownReport {
        self.report.get_or_init(|| self.shut_down()).await.clone()
    }

    async fn shut_down(&self) -> ShutdownReport {
        let began = Instant::now();
        self.intake.close();
        let deadline = tokio::time::Instant::now() + self.shutdown_deadline;
        // Beside the flush: a request that is not decided must not use up the time of what is counted.
        let mut deciding = pin!(self.desk.close());
        let mut is_decided = false;
        let mut stored = join_all(self.begin_flush());
        let mut attempts = tokio::time::interval(ATTEMPT_INTERVAL);
        loop {
            tokio::select! {
                () = &mut deciding, if !is_decided => {
                    is_decided = true;
                    stored = join_all(self.begin_flush());
                }
                _ = &mut stored, if is_decided => break,
                () = tokio::time::sleep_until(deadline) => break,
                _ = attempts.tick() => self.supervisor.flush(true),
            }
        }
        let has_undecided = self.desk.stop().await;
        let step_deadline = deadline.max(tokio::time::Instant::now() + STEP_TIMEOUT);
        self.record_rest(step_deadline).await;
        let mut report = self.report(began);
        if has_undecided {
            report.errors.push(
                "requests with idempotency keys are not decided; with a journal the next start decides them"
                    .to_owned(),
            );
        }
        // A journal that still has what is stored needs the store to recognise it.
        let is_stale = self.lanes.iter().any(|lane| lane.lock().is_stale());
        // The requests that stay in the journal will be counted in a batch of this writer.
        if report.is_balanced() && report.is_resolved() && !is_stale && !has_undecided {
            self.leave(step_deadline).await;
        }
        self.lanes.iter().for_each(|lane| lane.lock().close());
        let store = self.supervisor.release_store().await;
        let recorder = self.recorder.clone();
        // Closing waits for the disk.
        let closing = tokio::task::spawn_blocking(move || {
            drop(store);
            if let Some(recorder) = recorder {
                recorder.close();
            }
        });
        match tokio::time::timeout(STEP_TIMEOUT, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("closing the store or the journal panicked"),
            Err(_) => tracing::error!("the disk of the store or of the journal does not answer"),
        }
        self.lanes.iter().for_each(Lane::log);
        tracing::info!(%report, "collector is shut down");
        self.supervisor.stop();
        report
    }

    /// Lets the store forget this writer: at once if nothing was ever in doubt, else when no late copy can exist any more.
    async fn leave(&self, until: tokio::time::Instant) {
        let Some(store) = self.supervisor.store() else { return };
        let (recorder, writer, lanes) = (self.recorder.clone(), self.writer.clone(), Arc::clone(&self.lanes));
        let register = self.supervisor.register();
        let was_in_doubt = self.lanes.iter().any(|lane| lane.lock().totals.doubts > 0);
        let may_forget = self.may_forget && !was_in_doubt;
        let writer_of_claims = self.desk.writer_of_claims();
        // A task of its own: a store's future runs to its end.
        let leaving = tokio::spawn(async move {
            // Unless the journal has it durably, batches might be sent again that the store no longer recognises.
            if let Some(recorder) = recorder {
                recorder
                    .sync()
                    .await
                    .map_err(|error| StoreError::new(ErrorKind::NotApplied, error.to_string()))?;
                // A process that only resolved what earlier writers left has not retired them yet.
                if register.ensure(&*store).await.is_ok() {
                    register.retire_predecessors(&*store, &lanes, &recorder).await;
                }
            }
            // A read that took a batch for unresolved recognises it by the bookkeeping: such reads end first.
            for lane in lanes.iter() {
                drop(lane.gate.write().await);
            }
            if let Some(writer_of_claims) = writer_of_claims {
                // Another process may be completing one of its batches, so it is not forgotten.
                store.retire(&writer_of_claims).await?;
            }
            if may_forget && store.forget(&writer).await.is_ok() {
                return Ok(());
            }
            // The store itself may have been in doubt on the way, unnoticed here.
            store.retire(&writer).await
        });
        match tokio::time::timeout_at(until, leaving).await {
            Ok(Ok(Ok(()))) => {}
            stays => tracing::debug!(?stays, "bookkeeping of this writer stays in the store"),
        }
    }

    /// Records the rest in the journal, for as long as the shutdown may take.
    async fn record_rest(&self, until: tokio::time::Instant) {
        let Some(recorder) = self.recorder.clone() else { return };
        let intake = Arc::clone(&self.intake);
        // A task of its own: a record on its way to the journal is not forgotten.
        let round = tokio::spawn(async move { recorder.round(&*intake).await });
        if tokio::time::timeout_at(until, round).await.is_err() {
            tracing::error!("the journal does not answer, so it is not known what it has");
        }
    }

    fn report(&self, began: Instant) -> ShutdownReport {
        let has_journal = self.recorder.is_some();
        let accepted = self.intake.hold_still(|still| {
            let direct = self.lanes.iter().map(|lane| lane.lock().totals.direct);
            still.counted().accepted + direct.sum::<u64>()
        });
        let mut report = ShutdownReport { accepted, ..ShutdownReport::default() };
        for lane in self.lanes.iter() {
            let mut lane = lane.lock();
            lane.end_attempts();
            let in_doubt = lane.doubtful_increments();
            report.in_doubt += in_doubt;
            if has_journal {
                let not_journaled = lane.fresh_increments() + lane.recording();
                report.dropped += not_journaled.saturating_sub(in_doubt);
                report.journaled += lane.pending_increments().saturating_sub(not_journaled);
            } else {
                report.dropped += lane.drop_unsent();
            }
            report.applied += lane.totals.applied;
            report.quarantined += lane.totals.quarantined;
            match &lane.totals.last_error {
                Some(error) => report.errors.push(error.clone()),
                None if !lane.is_empty() => {
                    report.errors.push("the store has not answered in time".to_owned())
                }
                None => {}
            }
        }
        report.took = began.elapsed();
        report
    }

    /// Returns the known numbers of a shutdown that panicked.
    fn broken_report(&self) -> ShutdownReport {
        let stats = self.stats();
        ShutdownReport {
            accepted: stats.accepted,
            applied: stats.applied,
            quarantined: stats.quarantined,
            dropped: stats.dropped,
            in_doubt: stats.pending,
            ..ShutdownReport::failed("the shutdown panicked")
        }
    }
}
