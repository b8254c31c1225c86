//! Starting an engine.

use std::{future::Future, io, sync::Arc, time::Duration};

use countem_core::{ScheduleError, Schedules, Writer};
use countem_journal::{ErrorKind as JournalErrorKind, Journal, JournalConfig, JournalError, Recovered};
use countem_store::{ErrorKind, Registration, Store, StoreError};
use jiff::Timestamp;
use tokio::{runtime, sync::OnceCell};

use super::{Durability, Engine, EngineConfig, EngineState, LastHandle, ticker};
use crate::{
    actors::{ActorSystem, StoreAccess, Supervisor},
    agreement::{Agreement, AgreementError, RecoveredCounts, agree_on_schedules},
    collect::{Calendar, Clock, Intake},
    deliver::{KeptSchedules, Lanes, Recorder, Register, Retry},
    keyed::{Desk, recovered},
    read::EngineSource,
};

/// An engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Threads or the runtime could not be made.
    #[error("could not start the threads of the collector")]
    Threads(#[from] io::Error),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A collection stores no period.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The store counts by another schedule than the configured one, or cannot change it.
    #[error(transparent)]
    Conflict(AgreementError),
}

/// Maximum time that a start waits for the store to register the identity of a journal, and to agree on schedules.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval at which recovered requests are claimed again while the store does not answer.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(50);

/// Worker threads for store I/O. Lanes and reads mostly wait, so two are plenty.
const WORKERS: usize = 2;

impl Engine {
    /// Starts an engine whose store is opened by `open`, on the engine's own runtime.
    ///
    /// Works in every host: tokio, actix-web, or no runtime at all (with any executor that polls the future).
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
    pub async fn start<F>(config: EngineConfig, clock: Clock, open: F) -> Result<Self, StartError>
    where
        F: Future<Output = Result<Arc<dyn Store>, StoreError>> + Send + 'static,
    {
        // Nothing expires before the store says so.
        let configured = config.schedule.without_retention().schedules()?;
        let is_required = config.store_required;
        let open = async move {
            let store = open.await?;
            if is_required {
                store.check().await?;
            }
            Ok::<_, StoreError>(store)
        };
        // Nothing is left running when a step fails.
        let starting = Starting(Some(ActorSystem::start(WORKERS)?));
        let journal = starting.open_journal(&config).await?;
        let store = starting.runtime().spawn(open).await.map_err(io::Error::other)??;
        let agreed = starting.agree(&store, &config, clock.now()).await?;
        let has_agreed = agreed.is_some();
        // Beside a journal, where the store is away, counting goes on as before.
        let kept = match &config.durability {
            Durability::Memory => None,
            Durability::Journal { options, .. } => Some(KeptSchedules::beside_journal(&options.dir)),
        };
        let counted = kept.as_ref().map(KeptSchedules::read).transpose()?.flatten();
        let schedules = agreed.or_else(|| counted.clone()).unwrap_or(configured);
        let calendar = Arc::new(Calendar::new(Arc::new(schedules.clone()), clock.now()));
        clock.drive(&calendar);
        let (writer, journal) = match journal {
            Some((journal, recovered)) => {
                let (journal, recovered) = starting.register_identity(&store, journal, recovered).await?;
                let (journal, recovered) =
                    starting.decide_recovered(&store, journal, recovered, has_agreed, clock.now()).await?;
                (journal.writer(), Some((journal, recovered)))
            }
            None => (Writer::new(rand::random(), 1), None),
        };
        let mut config = config;
        if let Some((_, recovered)) = &journal {
            config.lanes = recovered.lanes;
        }
        let (intake, lanes) = counting(&config, calendar, clock, &writer);
        let (mut recovered_increments, mut undecided) = (0, Vec::new());
        let recorder = journal.map(|(journal, mut recovered)| {
            undecided = std::mem::take(&mut recovered.keyed);
            recovered_increments = lanes.restore(recovered);
            Arc::new(Recorder::new(journal, Arc::clone(&lanes)))
        });
        let counted_by = counted.unwrap_or_else(|| schedules.clone());
        let recovered_by = Arc::new(counted_by.clone());
        if let Some(kept) = &kept
            && (recovered_increments == 0
                || schedules.agree_until(&counted_by, intake.latest_event(config.ahead())))
        {
            kept.write(&schedules)?;
        }
        let recovered = kept.is_some().then(|| RecoveredCounts {
            counted_by,
            batches: lanes.iter().flat_map(|lane| lane.lock().batch_ids()).collect(),
        });
        let agreement = Agreement::new(
            Arc::clone(&intake),
            config.schedule.clone(),
            config.ahead(),
            kept,
            recovered,
            has_agreed,
        );
        let supervisor = Arc::new(Supervisor::start(
            starting.finish(),
            Arc::clone(&intake),
            Arc::clone(&lanes),
            recorder.clone(),
            StoreAccess {
                store,
                register: Register::new(recorder.as_ref().map(|_| writer.clone())),
                agreement,
                retry: Retry::new(config.retry_first, config.retry_longest),
            },
        ));
        let desk = Arc::new(Desk::new(
            Arc::clone(&intake),
            Arc::clone(&lanes),
            recorder.clone(),
            Arc::clone(&supervisor),
            writer.clone(),
            Retry::new(config.retry_first, config.retry_longest),
        ));
        desk.recover(undecided, &recovered_by);
        let source = EngineSource::new(Arc::clone(&intake), Arc::clone(&lanes), Arc::clone(&supervisor));
        let state = Arc::new(EngineState {
            intake,
            lanes,
            recorder,
            supervisor,
            source: Arc::new(source),
            desk,
            writer,
            shutdown_deadline: config.shutdown_deadline,
            stored_age: config.stored_age,
            may_forget: match &config.durability {
                Durability::Memory => true,
                Durability::Journal { options, .. } => options.resolved_retention.is_zero(),
            },
            report: OnceCell::new(),
        });
        state.run(config, recovered_increments)?;
        Ok(Self { intake: Arc::clone(&state.intake), last: Arc::new(LastHandle { state }) })
    }
}

impl EngineState {
    /// Starts the periodic work.
    fn run(self: &Arc<Self>, config: EngineConfig, recovered_increments: u64) -> io::Result<()> {
        // Opening the store may have taken its time.
        self.intake.advance_clock();
        if self.intake.clock().is_running()
            && let Err(error) = ticker::advance_clock(Arc::downgrade(self))
        {
            self.supervisor.stop();
            return Err(error);
        }
        let runtime = self.supervisor.runtime();
        if let Durability::Journal { tick, .. } = config.durability {
            runtime.spawn(ticker::record(Arc::downgrade(self), tick));
        }
        if recovered_increments > 0 {
            self.supervisor.flush(true);
        }
        runtime.spawn(ticker::run(Arc::downgrade(self), config));
        Ok(())
    }
}

/// Returns the part of an engine that counts, without anything that waits.
pub(crate) fn counting(
    config: &EngineConfig,
    calendar: Arc<Calendar>,
    clock: Clock,
    writer: &Writer,
) -> (Arc<Intake>, Arc<Lanes>) {
    let (intake, lanes) = config.limits();
    let lanes = Arc::new(Lanes::new(writer, &lanes));
    (Arc::new(Intake::new(intake, calendar, clock, Arc::clone(&lanes))), lanes)
}

/// The threads of an engine that is starting. Ends them if it does not get to the end.
struct Starting(Option<ActorSystem>);

impl Starting {
    fn runtime(&self) -> &runtime::Handle {
        &self.0.as_ref().expect("the threads are there until the start is finished").runtime
    }

    /// Opens the configured journal, on a thread that may wait for the disk.
    async fn open_journal(&self, config: &EngineConfig) -> Result<Option<(Journal, Recovered)>, StartError> {
        let Durability::Journal { options, .. } = &config.durability else { return Ok(None) };
        let options = JournalConfig { lanes: config.lanes, ..options.clone() };
        let opened = self.runtime().spawn_blocking(move || Journal::open(options)).await;
        let (journal, recovered) = opened.map_err(io::Error::other)??;
        tracing::info!(writer = %journal.writer(), %recovered, "journal is open");
        Ok(Some((journal, recovered)))
    }

    /// Agrees with the store on the schedules. Returns `None` when the store is away or slow: that has to be done before the first
    /// batch, but counting begins all the same, by the configured schedules.
    async fn agree(
        &self,
        store: &Arc<dyn Store>,
        config: &EngineConfig,
        now: Timestamp,
    ) -> Result<Option<Schedules>, StartError> {
        let (asked, wanted, ahead) = (Arc::clone(store), config.schedule.clone(), config.ahead());
        // As in `register_identity`.
        let agree = self.runtime().spawn(async move {
            let agree = tokio::spawn(async move { agree_on_schedules(&*asked, &wanted, now, ahead).await });
            tokio::time::timeout(REGISTER_TIMEOUT, agree).await
        });
        match agree.await {
            Ok(Ok(Ok(Ok(agreed)))) => Ok(Some(agreed)),
            Ok(Ok(Ok(Err(error)))) if !matches!(error, AgreementError::Store(_)) => {
                Err(StartError::Conflict(error))
            }
            unknown => {
                tracing::warn!(?unknown, "store cannot say yet by which schedules it is counted");
                Ok(None)
            }
        }
    }

    /// Registers the identity of the journal in the store, and takes a fresh one if another process has it: the journal then
    /// was copied.
    ///
    /// A store that is away or slow is no obstacle: the identity has to be registered before the first batch, but counting begins
    /// all the same.
    async fn register_identity(
        &self,
        store: &Arc<dyn Store>,
        journal: Journal,
        mut recovered: Recovered,
    ) -> Result<(Journal, Recovered), StartError> {
        let (asked, writer) = (Arc::clone(store), journal.writer());
        // On our own runtime: the caller's may have no timers. The request is a task of its own, because a store's future
        // runs to its end.
        let register = self.runtime().spawn(async move {
            let register = tokio::spawn(async move { asked.register(&writer).await });
            tokio::time::timeout(REGISTER_TIMEOUT, register).await
        });
        match register.await {
            Ok(Ok(Ok(Ok(Registration::Cloned)))) => {}
            Ok(Ok(Ok(Ok(Registration::Fresh)))) => return Ok((journal, recovered)),
            unknown => {
                tracing::warn!(
                    ?unknown,
                    "store cannot say yet whether another process has the identity of this journal"
                );
                return Ok((journal, recovered));
            }
        }
        let renewed = self.runtime().spawn_blocking(move || {
            journal.quarantine_pending_blocking("found in a copy of another node's journal")?;
            let writer = journal.fresh_identity_blocking()?;
            tracing::warn!(%writer, "journal is a copy of another node's: it has a new identity now");
            Ok::<_, JournalError>(journal)
        });
        let journal = renewed.await.map_err(io::Error::other)??;
        recovered.pending.clear();
        Ok((journal, recovered))
    }

    /// Claims again the keys of recovered requests, and adds the deltas of those that win to what is pending: they belong into the same
    /// batches. Leaves the requests undecided if the store does not answer soon.
    async fn decide_recovered(
        &self,
        store: &Arc<dyn Store>,
        journal: Journal,
        mut recovered: Recovered,
        has_agreed: bool,
        now: Timestamp,
    ) -> Result<(Journal, Recovered), StartError> {
        if recovered.keyed.is_empty() || !has_agreed {
            return Ok((journal, recovered));
        }
        let claims: Vec<_> = recovered.keyed.iter().map(|entry| entry.claim()).collect();
        let asked = Arc::clone(store);
        // As in `register_identity`.
        let claim = self.runtime().spawn(async move {
            let claim = tokio::spawn(async move {
                let deadline = tokio::time::Instant::now() + REGISTER_TIMEOUT;
                loop {
                    match asked.claim(&claims, now).await {
                        Err(error)
                            if matches!(error.kind(), ErrorKind::NotApplied | ErrorKind::InDoubt)
                                && tokio::time::Instant::now() < deadline =>
                        {
                            tracing::debug!(%error, "recovered requests are claimed again");
                            tokio::time::sleep(RECLAIM_INTERVAL).await;
                        }
                        claimed => return claimed,
                    }
                }
            });
            tokio::time::timeout(REGISTER_TIMEOUT, claim).await
        });
        let outcomes = match claim.await {
            Ok(Ok(Ok(Ok(outcomes)))) if outcomes.len() == recovered.keyed.len() => outcomes,
            unknown => {
                tracing::warn!(?unknown, "store cannot say yet which recovered requests are counted");
                return Ok((journal, recovered));
            }
        };
        let Some((record, pending)) = recovered::decide(&recovered, &outcomes) else {
            return Ok((journal, recovered));
        };
        let recorded = self.runtime().spawn_blocking(move || {
            let outcome = journal.record_blocking(record).map_err(|refused| refused.error);
            (journal, outcome)
        });
        let (journal, outcome) = recorded.await.map_err(io::Error::other)?;
        match outcome {
            Ok(_) => {}
            // Nothing has changed.
            Err(error) if error.kind() != JournalErrorKind::InDoubt => {
                tracing::warn!(%error, "recovered requests stay undecided");
                return Ok((journal, recovered));
            }
            Err(error) => return Err(error.into()),
        }
        recovered.pending = pending;
        tracing::info!(requests = recovered.keyed.len(), "recovered requests are decided");
        recovered.keyed.clear();
        Ok((journal, recovered))
    }

    fn finish(mut self) -> ActorSystem {
        self.0.take().expect("a start finishes once")
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(system) = &self.0 {
            system.stop();
        }
    }
}
