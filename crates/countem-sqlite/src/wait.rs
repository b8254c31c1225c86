//! Waiting for locks.

use std::{
    hash::{BuildHasher as _, RandomState},
    thread,
    time::{Duration, Instant},
};

/// Returns a busy handler: sleeps for about half a millisecond and asks for another attempt, for up to `limit` per lock.
///
/// The lock on writing is held for about one `fsync`, often a fraction of a millisecond, and has no queue. SQLite's own handler
/// sleeps for up to 100 ms between two attempts. The jitter, different for every connection, keeps processes that began to
/// wait together from trying together again.
pub(crate) fn wait_for_others(limit: Duration) -> impl FnMut(i32) -> bool + Send + 'static {
    let random = RandomState::new();
    let mut began = Instant::now();
    move |attempt| {
        if attempt == 0 {
            began = Instant::now();
        }
        let left = limit.saturating_sub(began.elapsed());
        let jitter = random.hash_one((began, attempt)) % 500;
        thread::sleep(left.min(Duration::from_micros(250 + jitter)));
        !left.is_zero()
    }
}
