//! Looking up a batch in a store by reading its counters.

use countem_core::{Batch, CollectionName, Delta, Group};
use countem_store::{Counters, RowQuery, Store, StoreError};

/// Result of looking up a batch in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The store has the batch.
    Stored,
    /// The store lacks the batch, or has forgotten its writer.
    Missing,
    /// Some counters of the batch are stored and some are not.
    Partial,
    /// No counter of the batch changes visibly.
    Unknown,
}

/// Number of reads of a bucket whose counters change meanwhile.
const MAX_READS: usize = 5;

/// Looks up a batch: compares the value of each of its counters with a read that takes the batch as in flight. Such a read
/// adds the batch unless the store's bookkeeping has it, so equal values mean that the store has the batch.
///
/// Counters that change between the reads tell nothing and are read again.
///
/// # Errors
/// The store could not be read.
pub async fn look_up(store: &dyn Store, batch: &Batch) -> Result<Lookup, StoreError> {
    let mut seen = Seen::default();
    for group in batch.groups() {
        compare(store, batch, &group, &mut seen).await?;
    }
    Ok(match seen {
        Seen { stored: true, missing: true } => Lookup::Partial,
        Seen { stored: true, .. } => Lookup::Stored,
        Seen { missing: true, .. } => Lookup::Missing,
        Seen { .. } => Lookup::Unknown,
    })
}

#[derive(Debug, Default)]
struct Seen {
    stored: bool,
    missing: bool,
}

/// Compares the counters of one bucket.
async fn compare(
    store: &dyn Store,
    batch: &Batch,
    group: &Group<'_>,
    seen: &mut Seen,
) -> Result<(), StoreError> {
    let mut deltas: Vec<Delta<'_>> = group.deltas().filter(|delta| delta.n != 0).collect();
    // A batch has only valid names.
    let Ok(collection) = CollectionName::new(group.collection()) else { return Ok(()) };
    let query = RowQuery::bucket(collection, group.bucket());
    for _ in 0..MAX_READS {
        if deltas.is_empty() {
            break;
        }
        let before = read(store, &query, None).await?;
        let with = read(store, &query, Some(batch)).await?;
        let after = read(store, &query, None).await?;
        deltas.retain(|delta| {
            let value = |counters: &Counters| counters.get(delta.metric).map(Option::unwrap_or_default).ok();
            // A value that cannot be read, or will overflow, tells nothing.
            let (Some(before), Some(with), Some(after)) = (value(&before), value(&with), value(&after))
            else {
                return false;
            };
            let Some(sum) = before.checked_add(delta.n) else { return false };
            let is_steady = before == after && (with == before || with == sum);
            seen.stored |= is_steady && with == before;
            seen.missing |= is_steady && with == sum;
            !is_steady
        });
    }
    Ok(())
}

async fn read(
    store: &dyn Store,
    query: &RowQuery,
    in_flight: Option<&Batch>,
) -> Result<Counters, StoreError> {
    Ok(store.read(query, in_flight).await?.into_values().next().unwrap_or_default())
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use std::sync::Arc;

    use countem_core::{BatchId, Table, Writer};
    use countem_store::MemoryStore;

    use super::*;

    fn batch(writer: u64, seq: u64, counts: &[(&str, i64)]) -> Arc<Batch> {
        let mut table = Table::new();
        for (metric, n) in counts {
            table.fold("c", metric, "2026-11-20".parse().unwrap(), *n).unwrap();
        }
        Arc::new(Batch::new(BatchId { writer: Writer::new(writer, 1), lane: 0, seq }, table.drain()))
    }

    #[tokio::test]
    async fn stored_batch_is_told_from_a_missing_one() {
        let store = MemoryStore::new();
        store.apply(&batch(1, 1, &[("a", 5), ("b", i64::MAX)])).await.unwrap();
        let second = batch(2, 1, &[("a", -7), ("b", 0)]);
        assert_eq!(look_up(&store, &second).await.unwrap(), Lookup::Missing);
        store.apply(&second).await.unwrap();
        assert_eq!(look_up(&store, &second).await.unwrap(), Lookup::Stored);
        for counts in [&[][..], &[("a", 0)], &[("b", 1)]] {
            assert_eq!(look_up(&store, &batch(3, 1, counts)).await.unwrap(), Lookup::Unknown, "{counts:?}");
        }
    }
}
