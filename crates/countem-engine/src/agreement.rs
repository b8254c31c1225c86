//! Agreeing with the store on the schedules by which everything in it is counted.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc, time::Duration};

use countem_core::{
    Batch, BatchId, Bucket, BucketRange, CollectionName, Delta, Period, Quarantined, ScheduleConfig,
    ScheduleConflict, ScheduleError, Schedules,
};
use countem_store::{Applied, ErrorKind, RowQuery, Select, Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    collect::{COUNTED_OTHERWISE, Intake},
    deliver::KeptSchedules,
};

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
    /// The store holds counts with a time after the change, made by the schedule before it.
    #[error(
        "the schedule cannot change at {since}: `{collection}` holds counts of `{bucket}` already, which were counted by the \
         present schedule"
    )]
    CountedAhead {
        /// The beginning of the new schedule.
        since: Timestamp,
        /// The collection.
        collection: CollectionName,
        /// A bucket with counts.
        bucket: Bucket,
    },
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
                Some(changed) => {
                    refuse_counts_ahead(store, recorded, &changed).await?;
                    changed
                }
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

/// Checks that the store holds no counts of the time after a change: nothing could tell them from those made by the new schedule.
async fn refuse_counts_ahead(
    store: &dyn Store,
    recorded: &Schedules,
    changed: &Schedules,
) -> Result<(), AgreementError> {
    let Some(since) = changed.changed_at() else { return Ok(()) };
    for collection in store.collections().await? {
        let finest = recorded.of(collection.as_str()).periods(since).first().copied();
        let Some(period) = finest.filter(|period| *period != Period::All) else { continue };
        let first = Bucket::containing(period, since, recorded.zone(since));
        let range = first.ok().and_then(|first| BucketRange::new(first, BucketRange::every(period).last()));
        let Some(range) = range else { continue };
        let select = Select::first(NonZeroUsize::MIN);
        let query = RowQuery { collection: collection.clone(), range, select };
        if let Some(bucket) = store.read(&query, None).await?.into_keys().next() {
            return Err(AgreementError::CountedAhead { since, collection, bucket });
        }
    }
    Ok(())
}

/// Counts that an earlier process left in the journal.
#[derive(Debug)]
pub(crate) struct RecoveredCounts {
    pub(crate) counted_by: Schedules,
    pub(crate) batches: HashSet<BatchId>,
}

/// Keeps a running engine in agreement with its store.
#[derive(Debug)]
pub(crate) struct Agreement {
    intake: Arc<Intake>,
    wanted: ScheduleConfig,
    ahead: SignedDuration,
    /// Beside a journal.
    kept: Option<KeptSchedules>,
    recovered: Option<RecoveredCounts>,
    /// When the record of the store was read last; `None` before the first agreement.
    checked: Mutex<Option<Instant>>,
}

/// Maximum age of what is known of the record. A change is recorded at least five minutes before it takes effect.
const MAX_AGE: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(60) };

impl Agreement {
    pub(crate) fn new(
        intake: Arc<Intake>,
        wanted: ScheduleConfig,
        ahead: SignedDuration,
        kept: Option<KeptSchedules>,
        recovered: Option<RecoveredCounts>,
        has_agreed: bool,
    ) -> Self {
        let checked = Mutex::new(has_agreed.then(Instant::now));
        Self { intake, wanted, ahead, kept, recovered, checked }
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
        self.adopt(recorded)?;
        *checked = Some(began);
        Ok(())
    }

    /// Returns the whole of a recovered batch as quarantined if some of it was counted by another schedule than the store has.
    pub(crate) fn quarantine_counted_otherwise(&self, batch: &Batch) -> Option<Applied> {
        let recovered = self.recovered.as_ref().filter(|recovered| recovered.batches.contains(batch.id()))?;
        let (schedules, latest) = (self.intake.calendar().schedules(), self.intake.latest_event(self.ahead));
        let is_stale = |delta: Delta<'_>| {
            let counted = recovered.counted_by.of(delta.collection);
            !schedules.of(delta.collection).counts_like(counted, delta.bucket, latest)
        };
        let reason = format!("batch {} was {COUNTED_OTHERWISE}", batch.id());
        let quarantined = batch.deltas().map(|delta| Quarantined::new(delta, reason.as_str()));
        batch.deltas().any(is_stale).then(|| Applied { quarantined: quarantined.collect() })
    }

    fn adopt(&self, recorded: Schedules) -> Result<(), StoreError> {
        let counted = self.intake.calendar().schedules();
        let latest = self.intake.latest_event(self.ahead);
        // Where they differ already, the old ones stay beside the journal: a later process finds what is in it and was counted
        // by them.
        if let Some(kept) = self.kept.as_ref().filter(|_| recorded.agree_until(&counted, latest)) {
            let unkept =
                |error| StoreError::new(ErrorKind::NotApplied, "the schedule is not kept").with_source(error);
            kept.write(&recorded).map_err(unkept)?;
        }
        self.intake.adopt(recorded, latest);
        Ok(())
    }
}
