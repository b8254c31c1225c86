//! Removal of expired buckets, by any store.

use countem_core::jiff::{SignedDuration, Timestamp};

use crate::{Store, StoreError};

/// Time between the moment from which readers refuse a bucket, and its removal: clocks may differ by half of it, and a read may take
/// the other half.
pub const REMOVAL_MARGIN: SignedDuration = SignedDuration::from_hours(2);

/// Maximum number of counters that are removed in one transaction, so that no batch waits long for it.
const STEP: usize = 1000;

/// Removes all counters that [`Store::remove_expired`] removes at `now`, in steps between which the store takes batches, and returns
/// how many there were.
///
/// # Errors
/// The store could not be read or written; some may be left.
pub async fn remove_expired(store: &dyn Store, now: Timestamp) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        match store.remove_expired(now, STEP).await? {
            0 => return Ok(removed),
            count => removed += count as u64,
        }
    }
}
