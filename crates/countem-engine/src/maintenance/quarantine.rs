//! Retrying and dropping quarantined counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use countem_core::{
    Bucket,
    hash::{fnv64, murmur3},
};
use countem_journal::{Journal, QuarantineEntry, Quarantined, Recovered, Selection};
use countem_store::{ErrorKind, Held, Registration, Release, Released, Store, StoreError};

use super::{
    MaintenanceError,
    send::{answer, freeze, send_frozen},
};
use crate::{EngineConfig, collect::COUNTED_OTHERWISE, lane_of};

/// Result of a retry.
#[derive(Debug)]
#[non_exhaustive]
pub struct RetryReport {
    /// The retried counts and their outcomes.
    pub results: Vec<(QuarantineEntry, RetryOutcome)>,
    /// Number of counts that were quarantined from batches of an earlier process, which are sent first.
    pub quarantined_before: usize,
}

/// Outcome of retrying a quarantined count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryOutcome {
    /// The count is in the store.
    Stored,
    /// The count stays in quarantine: together with the pending counts of its counter it overflows.
    Kept,
    /// The store could not add the count, for this reason. It is quarantined again.
    QuarantinedAgain(String),
}

/// Adds quarantined counts to their counters once more: sends them as batches of the journal, after everything that an
/// earlier process has left there.
///
/// # Errors
/// The store is away or the journal cannot be written. Counts that are not in the store stay in the journal, and are sent by
/// the next process that opens it.
///
/// # Cancel safety
/// Dropping the future is safe: each count is stored once, or still in the journal.
pub async fn retry_quarantined(
    entries: Vec<QuarantineEntry>,
    journal: &Journal,
    mut recovered: Recovered,
    store: &dyn Store,
    config: &EngineConfig,
) -> Result<RetryReport, MaintenanceError> {
    // These can be stored in no bucket.
    let (otherwise, entries): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.quarantined.reason.contains(COUNTED_OTHERWISE));
    // An unreachable store is noticed before anything leaves the quarantine.
    store.collections().await?;
    let has_pending = !recovered.pending.is_empty();
    if has_pending && !ensure_own_identity(store, journal).await? {
        recovered.pending.clear();
    }
    let mut quarantined_before = 0;
    let pending = recovered.take_pending();
    for batch in &pending {
        answer(|done| journal.freeze(batch.id().lane, [batch], done)).await?;
    }
    for batch in recovered.frozen.into_iter().chain(pending) {
        let applied = send_frozen(store, journal, &Arc::new(batch), config).await?;
        quarantined_before += applied.quarantined.len();
    }
    let (selection, lanes) = (select(&entries), recovered.lanes);
    let retried =
        answer(|done| journal.retry_quarantined(selection, move |name| lane_of(name, lanes), done)).await?;
    let retried: BTreeSet<_> = retried.iter().map(|retried| retried.entry.id).collect();
    let mut refused = BTreeMap::new();
    let outboxes = freeze(journal, config).await?;
    if !has_pending {
        // What was frozen just now has an identity of its own, whatever the register says.
        ensure_own_identity(store, journal).await?;
    }
    for mut outbox in outboxes {
        while let Some(batch) = outbox.advance() {
            let applied = send_frozen(store, journal, &batch, config).await?;
            outbox.resolve(&applied);
            refused.extend(applied.quarantined.iter().map(|count| (counter(count), count.reason.clone())));
        }
    }
    for entry in entries.iter().filter(|entry| retried.contains(&entry.id)) {
        if let Some(batch) = entry.batch.clone() {
            // The store may still have its report of the batch, which nothing relies on any more: a failure costs a few bytes.
            let report = Held { batch, quarantined: entry.quarantined.clone() };
            store.release(&report, Release::Drop).await.ok();
        }
    }
    let outcome = |entry: &QuarantineEntry| {
        if !retried.contains(&entry.id) {
            return RetryOutcome::Kept;
        }
        let reason = refused.get(&counter(&entry.quarantined)).cloned();
        reason.map_or(RetryOutcome::Stored, RetryOutcome::QuarantinedAgain)
    };
    let results = entries.into_iter().map(|entry| (outcome(&entry), entry)).map(|(o, e)| (e, o));
    let otherwise = otherwise.into_iter().map(|entry| {
        let reason = entry.quarantined.reason.clone();
        (entry, RetryOutcome::QuarantinedAgain(reason))
    });
    let results = results.chain(otherwise).collect();
    Ok(RetryReport { results, quarantined_before })
}

/// Gives up quarantined counts for good, and returns them.
///
/// # Errors
/// All of them are still in quarantine.
pub async fn drop_quarantined(
    entries: &[QuarantineEntry],
    journal: &Journal,
) -> Result<Vec<QuarantineEntry>, MaintenanceError> {
    Ok(answer(|done| journal.drop_quarantined(select(entries), done)).await?)
}

/// Lists the counts that the store itself has in quarantine, with ids that stay the same; none in a store without a quarantine.
///
/// # Errors
/// The store could not be read.
pub async fn held_by_store(store: &dyn Store) -> Result<Vec<(String, Held)>, StoreError> {
    let held = match store.quarantined().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => Vec::new(),
        held => held?,
    };
    Ok(held.into_iter().map(|held| (id_of(&held), held)).collect())
}

/// Returns an id that follows from the identity of a count, and is no id of a journal.
fn id_of(held: &Held) -> String {
    let Held { batch, quarantined: Quarantined { collection, bucket, metric, .. } } = held;
    let id = murmur3(fnv64(&format!("{batch} {collection} {bucket} {metric}")));
    format!("s{:012x}", id >> 16)
}

/// Releases counts from the quarantine of the store, each in one step. What fails to be released is still there.
///
/// # Errors
/// The store is away. The counts before it are released; repeating it is harmless.
pub async fn release_held(
    store: &dyn Store,
    entries: Vec<(String, Held)>,
    release: Release,
) -> Result<Vec<(String, Held, Released)>, StoreError> {
    let mut released = Vec::new();
    for (id, held) in entries {
        let outcome = store.release(&held, release).await?;
        released.push((id, held, outcome));
    }
    Ok(released)
}

fn select(entries: &[QuarantineEntry]) -> Selection {
    Selection::Ids(entries.iter().map(|entry| entry.id).collect())
}

/// Ensures that no other process uses this journal's identity, and returns true if none did. Otherwise the journal is a copy:
/// it takes a new one, and what was pending is in quarantine.
async fn ensure_own_identity(store: &dyn Store, journal: &Journal) -> Result<bool, MaintenanceError> {
    let is_cloned = store.register(&journal.writer()).await? == Registration::Cloned;
    if is_cloned {
        // The original has the same counts pending, or has stored them.
        let reason = "found in a copy of another node's journal";
        answer(|done| journal.quarantine_pending(reason, done)).await?;
        answer(|done| journal.fresh_identity(done)).await?;
    }
    Ok(!is_cloned)
}

fn counter(count: &Quarantined) -> (String, String, Bucket) {
    (count.collection.clone(), count.metric.clone(), count.bucket)
}
