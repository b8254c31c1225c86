//! How a node comes to run.

use std::{future::Future, io, sync::Arc, time::Duration};

use countem_core::{ScheduleError, Writer};
use countem_journal::{Journal, JournalConfig, JournalError, Recovered};
use countem_store::{Registration, Store, StoreError};
use parking_lot::Mutex;
use tokio::{runtime, sync::OnceCell};

use super::{Alive, Core, Engine};
use crate::{
    actors::{Actors, Stage},
    calendar::Calendar,
    claim::Claim,
    clock::Clock,
    deliver::Retry,
    node::Node,
    recorder::{self, Recorder},
    settings::{Durability, EngineConfig},
    ticker,
};

/// Says why an engine did not start.
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
}

/// How long a start waits for the store to say whether an identity is taken.
const CLAIM: Duration = Duration::from_secs(2);

/// Worker threads for store I/O. Lanes and reads mostly wait, so two are plenty.
const WORKERS: usize = 2;

impl Engine {
    /// Starts a node whose store is opened by `open`, on the engine's own runtime.
    ///
    /// Works in every host: tokio, actix-web, or no runtime at all (with any executor that polls the future).
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
    pub async fn start<F>(settings: EngineConfig, clock: Clock, open: F) -> Result<Self, StartError>
    where
        F: Future<Output = Result<Arc<dyn Store>, StoreError>> + Send + 'static,
    {
        let calendar =
            Calendar::new(&settings.zone, &settings.periods, &settings.collection_periods, clock.now())?;
        let calendar = Arc::new(calendar);
        clock.drive(&calendar);
        let stage = Stage::open(WORKERS)?;
        let required = settings.store_required;
        let open = async move {
            let store = open.await?;
            if required {
                store.check().await?;
            }
            Ok::<_, StoreError>(store)
        };
        // Nothing is left running when one of them fails.
        let stage = StageGuard(Some(stage));
        let journal = stage.open_journal(&settings).await?;
        let store = stage.runtime().spawn(open).await.map_err(io::Error::other)??;
        let (writer, claim, recorder, recovered) = match journal {
            Some((journal, recovered)) => {
                let (journal, recovered, is_claimed) =
                    stage.claim_identity(&store, journal, recovered).await?;
                let (writer, recorder) = (journal.writer(), Recorder::new(journal));
                (writer.clone(), Claim::new(writer, is_claimed), Some(recorder), Some(recovered))
            }
            // Drawn by lot, so nobody else has it.
            None => {
                let writer = Writer::new(rand::random(), 1);
                (writer.clone(), Claim::new(writer, true), None, None)
            }
        };
        let mut settings = settings;
        if let Some(recovered) = &recovered {
            settings.lanes = recovered.lanes;
        }
        let node = Arc::new(Node::new(&settings, Arc::clone(&calendar), clock, &writer, recorder));
        let recovered = recovered.map_or(0, |recovered| node.restore(recovered));
        let stage = stage.keep();
        let retry = Retry::new(settings.retry_first, settings.retry_longest);
        let actors = Actors::start(stage, Arc::clone(&node), Arc::clone(&store), claim, retry);
        let core = Arc::new(Core {
            node,
            actors,
            store: Mutex::new(Some(store)),
            calendar,
            writer,
            shutdown_deadline: settings.shutdown_deadline,
            may_retire: match &settings.durability {
                Durability::Memory => true,
                Durability::Journal { options, .. } => options.resolved_retention.is_zero(),
            },
            report: OnceCell::new(),
        });
        // Opening may have taken its time.
        core.node.turn_slots();
        if core.node.clock().is_running()
            && let Err(error) = ticker::turn_slots(Arc::downgrade(&core))
        {
            core.actors.stop();
            return Err(error.into());
        }
        if let Durability::Journal { tick, .. } = settings.durability {
            core.actors.runtime().spawn(recorder::run(Arc::downgrade(&core), tick));
        }
        if recovered > 0 {
            core.actors.flush(true);
        }
        core.actors.runtime().spawn(ticker::run(Arc::downgrade(&core), settings));
        Ok(Self { node: Arc::clone(&core.node), alive: Arc::new(Alive { core }) })
    }
}

/// Ends the threads of an engine that does not come about.
struct StageGuard(Option<Stage>);

impl StageGuard {
    fn runtime(&self) -> &runtime::Handle {
        &self.0.as_ref().expect("the stage is there until it is kept").runtime
    }

    /// Opens the journal that the settings ask for; waits for the disk on a thread that may.
    async fn open_journal(
        &self,
        settings: &EngineConfig,
    ) -> Result<Option<(Journal, Recovered)>, StartError> {
        let Durability::Journal { options, .. } = &settings.durability else { return Ok(None) };
        let options = JournalConfig { lanes: settings.lanes, ..options.clone() };
        let opened = self.runtime().spawn_blocking(move || Journal::open(options)).await;
        let (journal, recovered) = opened.map_err(io::Error::other)??;
        tracing::info!(writer = %journal.writer(), %recovered, "journal is open");
        Ok(Some((journal, recovered)))
    }

    /// Asks the store whether another process has the identity of the journal, which then was copied, and takes a fresh one if so.
    ///
    /// A store that is away or slow cannot say: tells by `false` that it has to be asked again before the first batch. Counting
    /// begins all the same.
    async fn claim_identity(
        &self,
        store: &Arc<dyn Store>,
        journal: Journal,
        mut recovered: Recovered,
    ) -> Result<(Journal, Recovered, bool), StartError> {
        let (asked, writer) = (Arc::clone(store), journal.writer());
        // All of it on our own runtime: the caller's may have no timers. The claim is a task of its own, because a store's
        // future runs to its end.
        let claim = self.runtime().spawn(async move {
            let claim = tokio::spawn(async move { asked.register(&writer).await });
            tokio::time::timeout(CLAIM, claim).await
        });
        match claim.await {
            Ok(Ok(Ok(Ok(Registration::Cloned)))) => {}
            Ok(Ok(Ok(Ok(Registration::Fresh)))) => return Ok((journal, recovered, true)),
            unknown => {
                tracing::warn!(
                    ?unknown,
                    "store cannot say yet whether another process has the identity of this journal"
                );
                return Ok((journal, recovered, false));
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
        // A fresh node, drawn by lot.
        Ok((journal, recovered, true))
    }

    fn keep(mut self) -> Stage {
        self.0.take().expect("the stage is kept once")
    }
}

impl Drop for StageGuard {
    fn drop(&mut self) {
        if let Some(stage) = &self.0 {
            stage.close();
        }
    }
}
