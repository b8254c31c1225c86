//! The share of the machine that reads may take.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Spaces reads out so that they leave the processor to the threads that count, however many read in a loop.
///
/// Every read adds a pause of some times its own computing time before the next observation. A read that follows no other one
/// does not wait.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// Nanoseconds since `began` before which no observation begins.
    next: AtomicU64,
    /// Length of the pause, in multiples of the computing time.
    pause: u32,
}

/// Multiple of the computing time of reads by which they pause, on a machine of one core.
const PAUSE_ON_ONE_CORE: u32 = 20;

/// Maximum pause: a read of many counters does not hold up the next one for seconds.
const MAX_PAUSE: Duration = Duration::from_millis(50);

impl Default for Pace {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
        let pause = PAUSE_ON_ONE_CORE / u32::try_from(cores).unwrap_or(u32::MAX);
        Self { began: Instant::now(), next: AtomicU64::new(0), pause }
    }
}

impl Pace {
    /// Waits until the pause after earlier reads is over.
    pub(super) async fn wait(&self) {
        loop {
            let next = Duration::from_nanos(self.next.load(Ordering::Relaxed));
            let left = next.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Runs a read and measures its computing time.
    pub(super) async fn measure<T>(&self, read: impl Future<Output = T>) -> T {
        let mut read = pin!(read);
        poll_fn(|context| {
            let polled = Instant::now();
            let poll = read.as_mut().poll(context);
            self.spend(polled.elapsed());
            poll
        })
        .await
    }

    /// Adds the pause that `busy` asks for.
    pub(super) fn spend(&self, busy: Duration) {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (now, pause) = (nanos(self.began.elapsed()), nanos(busy * self.pause));
        let latest = now.saturating_add(nanos(MAX_PAUSE));
        let add = |next: u64| Some(next.max(now).saturating_add(pause).min(latest));
        // The closure always returns a value.
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
    }
}
