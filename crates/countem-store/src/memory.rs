//! Counters in this process, for tests and experiments.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use countem_core::{
    Batch, BatchId, Bucket, Claim, CollectionName, IdempotencyKey, MetricName, Schedules, Writer,
    jiff::Timestamp,
};
use parking_lot::Mutex;

use crate::{
    Applied, Claimed, Counters, ErrorKind, Held, Quarantined, REMOVAL_MARGIN, Release, Released, RowQuery,
    Rows, Select, Store, StoreError, overlay,
};

/// A store in memory: it ends with the process, and keeps the whole contract until then.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counters: BTreeMap<(String, Bucket), Counters>,
    applied: HashMap<(Writer, u16), Resolved>,
    held: Vec<Held>,
    marks: BTreeMap<String, String>,
    claims: HashMap<IdempotencyKey, Claim>,
    schedules: Option<Schedules>,
    /// Buckets that had expired by then were removed, or may have been.
    removed_by: Option<Timestamp>,
}

/// The newest batch of a lane. Older ones need no memory: a lane resolves its batches in order.
#[derive(Debug)]
struct Resolved {
    seq: u64,
    quarantined: Vec<Quarantined>,
}

impl MemoryStore {
    /// Returns an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of remembered (writer, lane) pairs.
    pub fn writers(&self) -> usize {
        self.state.lock().applied.len()
    }
}

impl State {
    fn has_applied(&self, id: &BatchId) -> bool {
        self.applied.get(&(id.writer.clone(), id.lane)).is_some_and(|resolved| resolved.seq >= id.seq)
    }

    /// Returns true where `bucket` may have been removed.
    fn may_be_gone(&self, collection: &str, bucket: Bucket) -> bool {
        let known = self.schedules.as_ref().zip(self.removed_by);
        known.is_some_and(|(schedules, by)| schedules.of(collection).has_expired(bucket, by))
    }
}

impl State {
    fn apply(&mut self, batch: &Batch) -> Result<Applied, StoreError> {
        let id = batch.id();
        if self.has_applied(id) {
            let resolved = &self.applied[&(id.writer.clone(), id.lane)];
            let again = if resolved.seq == id.seq { resolved.quarantined.clone() } else { Vec::new() };
            return Ok(Applied { quarantined: again });
        }
        if let Some(mark) = batch.mark()
            && self.marks.get(&mark.key) != mark.expected.as_ref()
        {
            return Err(StoreError::conflict(&mark.key));
        }
        let mut quarantined = Vec::new();
        for delta in batch.deltas() {
            if self.may_be_gone(delta.collection, delta.bucket) {
                let reason = format!("the bucket {} has expired", delta.bucket);
                quarantined.push(Quarantined::new(delta, reason));
                continue;
            }
            let counters = self.counters.entry((delta.collection.to_owned(), delta.bucket)).or_default();
            if counters.add(delta.metric, delta.n).is_none() {
                let reason = format!("{} plus {} exceeds 64 bits", counters[delta.metric], delta.n);
                quarantined.push(Quarantined::new(delta, reason));
            }
        }
        if !batch.is_journaled() {
            let held = quarantined.iter().cloned();
            self.held.extend(held.map(|quarantined| Held { batch: id.clone(), quarantined }));
        }
        if let Some(mark) = batch.mark() {
            match &mark.value {
                Some(value) => self.marks.insert(mark.key.clone(), value.clone()),
                None => self.marks.remove(&mark.key),
            };
        }
        let resolved = Resolved { seq: id.seq, quarantined: quarantined.clone() };
        self.applied.insert((id.writer.clone(), id.lane), resolved);
        Ok(Applied { quarantined })
    }

    fn claim(&mut self, claim: &Claim, now: Timestamp) -> Result<Claimed, StoreError> {
        if let Some(known) = self.claims.get(&claim.key)
            && known.by != claim.by
            && known.expires_at > now
        {
            return Ok(if known.body == claim.body { Claimed::Repeat } else { Claimed::Mismatch });
        }
        let applied = claim.batch.as_deref().map(|batch| self.apply(batch)).transpose()?;
        self.claims.insert(claim.key.clone(), Claim { batch: None, ..claim.clone() });
        Ok(Claimed::Won(applied.unwrap_or_default()))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        self.state.lock().apply(batch)
    }

    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        self.state.lock().applied.retain(|(known, _), _| known != writer);
        Ok(())
    }

    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        let state = self.state.lock();
        let collection = query.collection.as_str().to_owned();
        let range = (collection.clone(), query.range.first())..=(collection, query.range.last());
        let mut rows = Rows::new();
        for ((_, bucket), counters) in
            state.counters.range(range).filter(|((_, b), _)| query.range.contains(*b))
        {
            let selected: Counters = match &query.select {
                // Sums are checked before they are stored, so every counter is readable.
                Select::One(metric) => {
                    let value = counters.get(metric.as_str()).ok().flatten();
                    value.map(|value| (metric.as_str(), value)).into_iter().collect()
                }
                Select::All | Select::Page { .. } => counters
                    .readable()
                    .filter(|(metric, _)| query.selects(metric))
                    .take(query.limit())
                    .collect(),
            };
            if !selected.is_empty() {
                rows.insert(*bucket, selected);
            }
        }
        if let Some(batch) = in_flight.filter(|batch| !state.has_applied(batch.id())) {
            overlay(&mut rows, query, batch.deltas());
        }
        Ok(rows)
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        let state = self.state.lock();
        let mut names: Vec<_> =
            state.counters.keys().filter_map(|(name, _)| CollectionName::new(name).ok()).collect();
        names.dedup();
        Ok(names)
    }

    async fn quarantined(&self) -> Result<Vec<Held>, StoreError> {
        Ok(self.state.lock().held.clone())
    }

    async fn release(&self, held: &Held, release: Release) -> Result<Released, StoreError> {
        let mut state = self.state.lock();
        let is_meant = |entry: &Held| {
            let (a, b) = (entry.quarantined.delta(), held.quarantined.delta());
            entry.batch == held.batch
                && (a.collection, a.bucket, a.metric) == (b.collection, b.bucket, b.metric)
        };
        let Some(at) = state.held.iter().position(is_meant) else { return Ok(Released::Gone) };
        let Quarantined { collection, bucket, metric, n, .. } = state.held[at].quarantined.clone();
        if release == Release::Retry {
            if state.may_be_gone(&collection, bucket) {
                return Ok(Released::Kept(format!("the bucket {bucket} has expired")));
            }
            let counters = state.counters.entry((collection, bucket)).or_default();
            if counters.add(&metric, n).is_none() {
                return Ok(Released::Kept(format!("{} plus {n} exceeds 64 bits", counters[&metric])));
            }
        }
        state.held.remove(at);
        Ok(Released::Done)
    }

    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let state = self.state.lock();
        let begin_alike =
            state.marks.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(begin_alike.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        let mut state = self.state.lock();
        state.claims.retain(|_, claim| claim.expires_at > now);
        claims.iter().map(|claim| state.claim(claim, now)).collect()
    }

    async fn schedules(&self) -> Result<Option<Schedules>, StoreError> {
        Ok(self.state.lock().schedules.clone())
    }

    async fn record_schedules(&self, schedules: &Schedules) -> Result<Schedules, StoreError> {
        let recorded = &mut self.state.lock().schedules;
        if recorded.as_ref().map_or(0, Schedules::revision) + 1 == schedules.revision() {
            *recorded = Some(schedules.clone());
        }
        let missing = || StoreError::new(ErrorKind::Refused, "there are no schedules yet that could change");
        recorded.clone().ok_or_else(missing)
    }

    async fn remove_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let by = now.saturating_sub(REMOVAL_MARGIN).unwrap_or(Timestamp::MIN);
        let mut state = self.state.lock();
        state.removed_by = state.removed_by.max(Some(by));
        let expired = state.counters.keys().filter(|(name, bucket)| state.may_be_gone(name, *bucket));
        let mut expired: Vec<_> = expired.take(limit).cloned().collect();
        let mut removed = 0;
        while removed < limit
            && let Some(key) = expired.pop()
        {
            removed += state.counters.remove(&key).map_or(0, |counters| counters.len());
        }
        Ok(removed)
    }

    async fn remove_zeros(
        &self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        let mut state = self.state.lock();
        let mut removed = 0;
        for (bucket, metric) in counters {
            let key = (collection.to_string(), *bucket);
            let Some(stored) = state.counters.get_mut(&key) else { continue };
            if stored.get(metric.as_str()) == Ok(Some(0)) {
                stored.remove(metric.as_str());
                removed += 1;
            }
            if stored.is_empty() {
                state.counters.remove(&key);
            }
        }
        Ok(removed)
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn location(&self) -> String {
        "memory://".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    conformance!(async |law| law.check(&MemoryStore::new()).await);
}
