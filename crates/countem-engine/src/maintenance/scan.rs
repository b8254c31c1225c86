//! Reading everything that a store holds.

use countem_core::{BucketRange, Period};
use countem_store::{RowQuery, Select, Store, StoreError};

/// Result of a scan.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanReport {
    /// Number of counters that were read, each in each of its stored buckets.
    pub counters: u64,
    /// Damage of the store itself, or counters without an exact value, in words.
    pub damage: Vec<String>,
}

/// Verifies the store and reads every stored counter.
///
/// # Errors
/// The store could not be read.
pub async fn scan(store: &dyn Store) -> Result<ScanReport, StoreError> {
    let mut report = ScanReport { damage: store.verify().await?, ..ScanReport::default() };
    // What is read out of a damaged file says nothing.
    if !report.damage.is_empty() {
        return Ok(report);
    }
    for collection in store.collections().await? {
        for period in Period::ALL {
            let range = BucketRange::every(period);
            let query = RowQuery { collection: collection.clone(), range, select: Select::All };
            for (bucket, counters) in store.read(&query, None).await? {
                report.counters += counters.len() as u64;
                report.damage.extend(counters.unreadable().map(|(metric, why)| {
                    format!("`{metric}` of `{collection}` cannot be read in {bucket}: {why}")
                }));
            }
        }
    }
    Ok(report)
}
