//! Removal of counters whose value is zero.

use countem_core::{Bucket, CollectionName, MetricName};
use rusqlite::{Connection, TransactionBehavior, params};

const REMOVE: &str =
    "DELETE FROM counter WHERE collection = ?1 AND bucket = ?2 AND metric = ?3 AND value = 0";

/// Removes those of `counters` whose value is zero, in one transaction, and returns how many.
pub(crate) fn remove(
    connection: &mut Connection,
    collection: &CollectionName,
    counters: &[(Bucket, MetricName)],
) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut removed = 0;
    for (bucket, metric) in counters {
        let of = params![collection.as_str(), bucket.to_string(), metric.as_str()];
        removed += transaction.prepare_cached(REMOVE)?.execute(of)?;
    }
    transaction.commit()?;
    Ok(removed)
}
