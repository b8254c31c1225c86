//! Agreeing with the store on the schedules by which everything in it is counted.

use std::{sync::Arc, time::Duration};

use countem_core::{ScheduleConfig, ScheduleConflict, ScheduleError, Schedules};
use countem_store::{ErrorKind, Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::Mutex, time::Instant};

use crate::collect::Intake;

/// A writer and its store do not agree on the schedules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgreementError {
    /// The configuration is not what the store has.
    #[error(transparent)]
    Conflict(#[from] ScheduleConflict),
    /// A configured set of periods is empty.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The record of the store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns the schedules by which a writer counts into `store`: those that the store has recorded. Records those of `wanted` in a
/// store that has none, and the change if `wanted` asks for one.
///
/// `ahead` is the maximum lead of event times: a change takes effect later than that.
///
/// # Errors
/// [`AgreementError::Conflict`]: the store has others. Nothing may be counted into it.
pub async fn agree_on_schedules(
    store: &dyn Store,
    wanted: &ScheduleConfig,
    now: Timestamp,
    ahead: SignedDuration,
) -> Result<Schedules, AgreementError> {
    let mut recorded = store.schedules().await?;
    loop {
        let proposed = match &recorded {
            None => wanted.schedules()?,
            Some(recorded) => match wanted.reconcile(recorded, now, ahead)? {
                None => return Ok(recorded.clone()),
                Some(changed) => changed,
            },
        };
        let found = store.record_schedules(&proposed).await?;
        if found == proposed {
            return Ok(found);
        }
        // Another process was faster.
        recorded = Some(found);
    }
}

/// Keeps a running engine in agreement with its store.
#[derive(Debug)]
pub(crate) struct Agreement {
    intake: Arc<Intake>,
    wanted: ScheduleConfig,
    ahead: SignedDuration,
    /// When the record of the store was read last; `None` before the first agreement.
    checked: Mutex<Option<Instant>>,
}

/// Maximum age of what is known of the record. A change is recorded at least five minutes before it takes effect.
const MAX_AGE: Duration = Duration::from_secs(60);

impl Agreement {
    pub(crate) fn new(
        intake: Arc<Intake>,
        wanted: ScheduleConfig,
        ahead: SignedDuration,
        has_agreed: bool,
    ) -> Self {
        let checked = Mutex::new(has_agreed.then(Instant::now));
        Self { intake, wanted, ahead, checked }
    }

    /// Ensures that counts are made by the schedules of the store. Costs nothing if that was checked a moment ago.
    ///
    /// # Errors
    /// It is not known by which schedules the store is counted, or not by those of this configuration. Nothing may be sent.
    pub(crate) async fn ensure(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut checked = self.checked.lock().await;
        if checked.is_some_and(|at| at.elapsed() < MAX_AGE) {
            return Ok(());
        }
        let began = Instant::now();
        let recorded = match checked.is_some().then(|| store.schedules()) {
            Some(read) => read.await?,
            None => None,
        };
        let recorded = match recorded {
            Some(recorded) => recorded,
            None => {
                let now = self.intake.clock().now();
                let agreed = agree_on_schedules(store, &self.wanted, now, self.ahead).await;
                agreed.map_err(|error| match error {
                    AgreementError::Store(error) => error,
                    other => StoreError::new(ErrorKind::NotApplied, other.to_string()),
                })?
            }
        };
        self.intake.adopt(recorded, self.ahead);
        *checked = Some(began);
        Ok(())
    }
}
