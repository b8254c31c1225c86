//! Tasks that read while other threads count.

use std::{
    fmt, hint,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use countem::Collector;
use tokio::{
    runtime,
    sync::watch,
    task::{JoinSet, yield_now},
    time::sleep,
};

use crate::workload::COLLECTION;

/// Tasks on a thread of their own. Each reads all counters of the day in a loop, as an open page does.
pub struct Readers {
    /// Closed at first; its loss ends the tasks.
    gate: Option<watch::Sender<bool>>,
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Tally {
    reading: AtomicUsize,
    reads: AtomicU64,
}

impl Readers {
    /// Starts `tasks` tasks that wait for [`resume`](Self::resume). Each pauses for `pause` after a read.
    pub fn start(collector: &Collector, tasks: u32, pause: Duration) -> Self {
        let (gate, opened) = watch::channel(false);
        let tally = Arc::new(Tally::default());
        let (collector, shared) = (collector.clone(), Arc::clone(&tally));
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.expect("a runtime without I/O needs nothing that could be missing");
            runtime.block_on(async {
                let mut reading = JoinSet::new();
                for task in 0..tasks {
                    // Spread over the pause, as pages are that were opened one after the other.
                    let delay = pause * task / tasks;
                    reading.spawn(read(collector.clone(), opened.clone(), delay, pause, Arc::clone(&shared)));
                }
                while let Some(ended) = reading.join_next().await {
                    ended.expect("no reader panics");
                }
            });
        });
        Self { gate: Some(gate), tally, thread: Some(thread) }
    }

    /// Lets the tasks read.
    pub fn resume(&self) {
        self.open(true);
    }

    /// Stops the tasks, and returns when no read is under way.
    pub fn pause(&self) {
        self.open(false);
        while self.tally.reading.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
    }

    /// Returns the number of reads so far.
    pub fn reads(&self) -> u64 {
        self.tally.reads.load(Ordering::SeqCst)
    }

    fn open(&self, open: bool) {
        self.gate.as_ref().expect("the gate is there until the drop").send_replace(open);
    }
}

async fn read(
    collector: Collector,
    mut opened: watch::Receiver<bool>,
    delay: Duration,
    pause: Duration,
    tally: Arc<Tally>,
) {
    sleep(delay).await;
    // Fails when the readers are dropped.
    while opened.wait_for(|open| *open).await.is_ok() {
        tally.reading.fetch_add(1, Ordering::SeqCst);
        if *opened.borrow() {
            let counters = collector.get_counters(COLLECTION, None).await.expect("the store is memory");
            hint::black_box(counters);
            tally.reads.fetch_add(1, Ordering::SeqCst);
        }
        tally.reading.fetch_sub(1, Ordering::SeqCst);
        if pause.is_zero() {
            yield_now().await;
        } else {
            sleep(pause).await;
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // An open gate would let the tasks pass even without its sender.
        self.open(false);
        self.gate = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was printed.
            thread.join().ok();
        }
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("tally", &self.tally).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject;

    #[test]
    fn readers_read_only_between_resume_and_pause() {
        let collector = subject::collector().unwrap();
        collector.increment(COLLECTION, "a", 1);
        let readers = Readers::start(&collector, 5, Duration::ZERO);
        assert_eq!(readers.reads(), 0);
        readers.resume();
        while readers.reads() < 20 {
            thread::yield_now();
        }
        readers.pause();
        let paused = readers.reads();
        readers.resume();
        while readers.reads() == paused {
            thread::yield_now();
        }
    }
}
