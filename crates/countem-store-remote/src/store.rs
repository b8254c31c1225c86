//! The store: every method is a call of the same method of the other countem's store.

use std::{collections::BTreeMap, sync::Arc};

use countem_core::{
    Batch, Bucket, BucketRange, Claim, CollectionName, MetricName, Schedules, Table, Writer, jiff::Timestamp,
};
use countem_store::{
    Applied, Claimed, ErrorKind, Held, Registration, Release, Released, RowQuery, Rows, Store, StoreError,
    async_trait,
};

use crate::{
    RemoteConfig,
    client::{Client, JSON, Request, malformed},
    error::Effect,
    wire::{self, Call, Text},
};

/// Keeps counters in the store of another countem; see the [crate's documentation](crate).
///
/// Its methods need a runtime of tokio, on whose threads for blocking work the requests run, at most 16 at the same time.
#[derive(Debug)]
pub struct RemoteStore {
    client: Client,
    with_pending: bool,
}

impl RemoteStore {
    /// Prepares a store; contacts no server. [`check`](Store::check) tells at once what is wrong.
    ///
    /// # Errors
    /// A file for TLS cannot be read, or the token is none.
    pub fn connect(config: &RemoteConfig) -> Result<Self, StoreError> {
        Ok(Self { client: Client::new(config)?, with_pending: config.with_pending })
    }

    async fn call<C: Call>(&self, call: C) -> Result<C::Answer, StoreError> {
        let request = request(&call)?;
        let effect = request.effect;
        let answer = self.client.bytes(request).await?;
        let location = self.client.location();
        serde_json::from_slice(&answer).map_err(|error| malformed(location, effect, &error.to_string()))
    }
}

fn request<C: Call>(call: &C) -> Result<Request, StoreError> {
    let body = serde_json::to_vec(call).expect("a call is always JSON");
    if body.len() > wire::MAX_CALL {
        let why = format!("the call `{}` has more than {} bytes", C::NAME, wire::MAX_CALL);
        return Err(StoreError::new(ErrorKind::Refused, why));
    }
    let effect = if C::CHANGES { Effect::Changes } else { Effect::Reads };
    Ok(Request { path: format!("{}/{}", wire::STORE, C::NAME), media_type: JSON, body, effect })
}

/// Maximum length of a claim in JSON without its batch.
const CLAIM_BYTES: usize = 1024;

/// Returns the part of `batch` that concerns `query`: whether the rest of it is stored makes no difference to the answer.
fn concerning(batch: &Batch, query: &RowQuery) -> Batch {
    let mut table = Table::new();
    for delta in batch.deltas().filter(|delta| query.asks_for(delta)) {
        let folded = table.fold(delta.collection, delta.metric, delta.bucket, delta.n);
        folded.expect("a batch has each counter once, and fewer than a table takes");
    }
    Batch::new(batch.id().clone(), table.drain())
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for RemoteStore {
    /// Sends the batch as it is: same writer, same number. The store behind the other countem recognises it, so it may be sent again over
    /// any way.
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let body = batch.encode();
        if body.len() > wire::MAX_BATCH {
            let why = format!(
                "the batch has {} bytes, and another countem takes at most {}: lower `flush.batch_counters`",
                body.len(),
                wire::MAX_BATCH
            );
            return Err(StoreError::new(ErrorKind::Refused, why));
        }
        let path = format!("{}?journaled={}", wire::BATCHES, batch.is_journaled());
        let request = Request { path, media_type: wire::BATCH_TYPE, body, effect: Effect::Changes };
        let answer = self.client.bytes(request).await?;
        let applied: wire::Applied = serde_json::from_slice(&answer)
            .map_err(|error| malformed(self.client.location(), Effect::Changes, &error.to_string()))?;
        Ok(applied.into())
    }

    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        self.call(wire::Forget { writer: Text(writer.clone()) }).await.map(drop)
    }

    async fn register(&self, writer: &Writer) -> Result<Registration, StoreError> {
        Ok(match self.call(wire::Register { writer: Text(writer.clone()) }).await? {
            wire::Registered::Fresh => Registration::Fresh,
            wire::Registered::Cloned => Registration::Cloned,
        })
    }

    async fn remembers(&self, writer: &Writer) -> Result<bool, StoreError> {
        self.call(wire::Remembers { writer: Text(writer.clone()) }).await
    }

    async fn retire(&self, writer: &Writer) -> Result<(), StoreError> {
        self.call(wire::Retire { writer: Text(writer.clone()) }).await.map(drop)
    }

    async fn retire_predecessors(&self, writer: &Writer) -> Result<(), StoreError> {
        self.call(wire::RetirePredecessors { writer: Text(writer.clone()) }).await.map(drop)
    }

    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        if self.with_pending && in_flight.is_some() {
            let why = "a reader that sees pending counts has no batch of its own";
            return Err(StoreError::new(ErrorKind::Unsupported, why));
        }
        let in_flight = in_flight.map(|batch| concerning(batch, query)).filter(|batch| !batch.is_empty());
        let call = wire::Read {
            query: query.into(),
            with_pending: self.with_pending,
            in_flight: in_flight.map(|batch| wire::to_hex(&batch.encode())),
        };
        self.client.rows(request(&call)?).await
    }

    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        let names = self.call(wire::Collections { with_pending: self.with_pending }).await?;
        Ok(names.into_iter().map(|name| name.0).collect())
    }

    async fn extent(
        &self,
        collection: &CollectionName,
        range: BucketRange,
    ) -> Result<Option<BucketRange>, StoreError> {
        let call = wire::Extent {
            collection: Text(collection.clone()),
            first: Text(range.first()),
            last: Text(range.last()),
            with_pending: self.with_pending,
        };
        let Some((first, last)) = self.call(call).await? else { return Ok(None) };
        let found = BucketRange::new(first.0, last.0);
        let what = "its buckets are no range";
        found.map(Some).ok_or_else(|| malformed(self.client.location(), Effect::Reads, what))
    }

    async fn quarantined(&self) -> Result<Vec<Held>, StoreError> {
        let held = self.call(wire::ListQuarantined {}).await?;
        Ok(held.into_iter().map(Held::from).collect())
    }

    async fn release(&self, held: &Held, release: Release) -> Result<Released, StoreError> {
        let call = wire::Release { held: held.clone().into(), retry: release == Release::Retry };
        Ok(match self.call(call).await? {
            wire::Released::Done => Released::Done,
            wire::Released::Kept(why) => Released::Kept(why),
            wire::Released::Gone => Released::Gone,
        })
    }

    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.call(wire::Marks { prefix: prefix.to_owned() }).await
    }

    /// Claims in several calls where one would be too large.
    async fn claim(&self, claims: &[Claim], now: Timestamp) -> Result<Vec<Claimed>, StoreError> {
        let mut outcomes = Vec::with_capacity(claims.len());
        let mut rest: Vec<_> = claims.iter().map(wire::KeyClaim::from).collect();
        while !rest.is_empty() {
            let mut length = 0;
            let fits = |claim: &&wire::KeyClaim| {
                length += CLAIM_BYTES + claim.batch.as_ref().map_or(0, String::len);
                length <= wire::MAX_CALL
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let later = rest.split_off(count);
            let claimed = self.call(wire::Claim { claims: rest, now: Text(now) }).await;
            let claimed = claimed.map_err(|error| match outcomes.is_empty() {
                true => error,
                // The first ones are claimed.
                false => StoreError::new(ErrorKind::InDoubt, error.to_string()),
            })?;
            if claimed.len() != count {
                let what = "it has another number of claims";
                return Err(malformed(self.client.location(), Effect::Changes, what));
            }
            outcomes.extend(claimed.into_iter().map(Claimed::from));
            rest = later;
        }
        Ok(outcomes)
    }

    async fn schedules(&self) -> Result<Option<Schedules>, StoreError> {
        Ok(self.call(wire::ReadSchedules {}).await?.map(|schedules| schedules.0))
    }

    async fn record_schedules(&self, schedules: &Schedules) -> Result<Schedules, StoreError> {
        Ok(self.call(wire::RecordSchedules { schedules: Text(schedules.clone()) }).await?.0)
    }

    /// Leaves the removal to the other countem, whose store it is.
    async fn remove_expired(&self, _: Timestamp, _: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn remove_zeros(
        &self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        let counters = counters.iter().map(|(bucket, metric)| (Text(*bucket), Text(metric.clone())));
        self.call(wire::RemoveZeros { collection: Text(collection.clone()), counters: counters.collect() })
            .await
    }

    /// Leaves the compaction to the other countem, whose store it is.
    async fn compact(&self, _: Timestamp, _: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.call(wire::Check {}).await.map(drop)
    }

    async fn verify(&self) -> Result<Vec<String>, StoreError> {
        self.call(wire::Verify {}).await
    }

    fn location(&self) -> String {
        self.client.location().to_owned()
    }
}
