//! Removal of expired buckets, by any store.

use std::time::{Duration, Instant};

use countem_core::jiff::{SignedDuration, Timestamp};

use crate::{Store, StoreError};

/// Time between the moment from which readers refuse a bucket, and its removal: clocks may differ by half of it, and a read may take
/// the other half.
pub const REMOVAL_MARGIN: SignedDuration = SignedDuration::from_hours(2);

/// Maximum number of counters that are removed in one transaction, so that no batch waits long for it.
const STEP: usize = 250;

/// Pause after a step, in times of its duration: most batches meet none.
const PAUSE: u32 = 3;

/// Time after which the rest is left to the next removal.
const MAX_DURATION: Duration = Duration::from_secs(45);

/// Removes the counters that [`Store::remove_expired`] removes at `now`, in small steps with pauses in which the store takes batches, and
/// returns how many there were. After 45 seconds the rest is left to the next call.
///
/// # Errors
/// The store could not be read or written; some may be left.
pub async fn remove_expired(store: &dyn Store, now: Timestamp) -> Result<u64, StoreError> {
    let (mut removed, began) = (0, Instant::now());
    while began.elapsed() < MAX_DURATION {
        let step = Instant::now();
        match store.remove_expired(now, STEP).await? {
            0 => break,
            count => removed += count as u64,
        }
        tokio::time::sleep(step.elapsed() * PAUSE).await;
    }
    Ok(removed)
}
