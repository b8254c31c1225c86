//! Whether a store has a batch, as far as reading tells.

use countem_core::{Batch, Bucket, CollectionName, Delta};
use countem_store::{Counters, Query, Store, StoreError};

/// What reading tells of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// The store has it.
    There,
    /// The store lacks it, or has forgotten its writer.
    Missing,
    /// Some of its documents have it.
    Partly,
    /// Nothing in it changes a counter visibly.
    Unknown,
}

/// How often a bucket is read anew in which others count meanwhile.
const ATTEMPTS: usize = 5;

/// Compares, for every counter of `batch`, its value with what a read answers that takes the batch as in flight. Such a read
/// adds what the store knows to lack: equal values mean that the store has the batch.
///
/// Counters to which others add between the reads say nothing and are read again.
///
/// # Errors
/// The store could not be read.
pub(crate) async fn of(store: &dyn Store, batch: &Batch) -> Result<Presence, StoreError> {
    let mut seen = Seen::default();
    let mut deltas = batch.deltas().peekable();
    while let Some(first) = deltas.next() {
        let mut group = vec![first];
        // Deltas come ordered by collection and bucket.
        while let Some(next) =
            deltas.next_if(|delta| (delta.collection, delta.bucket) == (first.collection, first.bucket))
        {
            group.push(next);
        }
        group.retain(|delta| delta.n != 0);
        compare(store, batch, group, &mut seen).await?;
    }
    Ok(match seen {
        Seen { there: true, missing: true } => Presence::Partly,
        Seen { there: true, .. } => Presence::There,
        Seen { missing: true, .. } => Presence::Missing,
        Seen { .. } => Presence::Unknown,
    })
}

#[derive(Debug, Default)]
struct Seen {
    there: bool,
    missing: bool,
}

/// Compares the counters of one bucket.
async fn compare(
    store: &dyn Store,
    batch: &Batch,
    mut group: Vec<Delta<'_>>,
    seen: &mut Seen,
) -> Result<(), StoreError> {
    let Some(Delta { collection, bucket, .. }) = group.first().copied() else { return Ok(()) };
    // A batch has only names that are valid.
    let Ok(collection) = CollectionName::new(collection) else { return Ok(()) };
    let query = Query::bucket(collection, bucket);
    for _ in 0..ATTEMPTS {
        let before = read(store, &query, bucket, None).await?;
        let with = read(store, &query, bucket, Some(batch)).await?;
        let after = read(store, &query, bucket, None).await?;
        group.retain(|delta| {
            let value = |counters: &Counters| counters.get(delta.metric).unwrap_or(0);
            let (before, with, after) = (value(&before), value(&with), value(&after));
            let Some(sum) = before.checked_add(delta.n) else {
                // A read leaves such a sum out.
                return false;
            };
            let is_steady = before == after && (with == before || with == sum);
            seen.there |= is_steady && with == before;
            seen.missing |= is_steady && with == sum;
            !is_steady
        });
        if group.is_empty() {
            break;
        }
    }
    Ok(())
}

async fn read(
    store: &dyn Store,
    query: &Query,
    bucket: Bucket,
    in_flight: Option<&Batch>,
) -> Result<Counters, StoreError> {
    Ok(store.read(query, in_flight).await?.remove(&bucket).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use countem_core::{BatchId, Table, Writer};
    use countem_store::MemoryStore;

    use std::sync::Arc;

    use super::*;

    fn batch(writer: u64, seq: u64, counts: &[(&str, i64)]) -> Arc<Batch> {
        let mut table = Table::new();
        for (metric, n) in counts {
            table.fold("c", metric, "2026-11-20".parse().unwrap(), *n).unwrap();
        }
        Arc::new(Batch::new(BatchId { writer: Writer::new(writer, 1), lane: 0, seq }, table.drain()))
    }

    #[tokio::test]
    async fn reading_tells_a_batch_that_is_there_from_one_that_is_not() {
        let store = MemoryStore::new();
        store.apply(&batch(1, 1, &[("a", 5), ("b", i64::MAX)])).await.unwrap();
        let second = batch(2, 1, &[("a", -7), ("b", 0)]);
        assert_eq!(of(&store, &second).await.unwrap(), Presence::Missing);
        store.apply(&second).await.unwrap();
        assert_eq!(of(&store, &second).await.unwrap(), Presence::There);
        for counts in [&[][..], &[("a", 0)], &[("b", 1)]] {
            assert_eq!(of(&store, &batch(3, 1, counts)).await.unwrap(), Presence::Unknown, "{counts:?}");
        }
    }
}
