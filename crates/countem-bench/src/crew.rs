//! Threads that start to count together.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    counting::Counting,
    workload::{WALK, Walk},
};

/// Threads that live from measurement to measurement, each with a core and a walk of its own.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Counting together with others.
struct Job {
    counting: Arc<dyn Counting>,
    times: u64,
    /// Number of threads that are ready; all start when `threads` are.
    ready: Arc<AtomicUsize>,
    threads: usize,
    done: Sender<Span>,
}

/// One thread's part of a measurement.
struct Span {
    began: Instant,
    ended: Instant,
}

/// Maximum number of walks between two settlings, so that a peer's queue stays small.
const MAX_WALKS: u64 = 64;

impl Crew {
    /// Starts `threads` threads that walk through `names`.
    pub fn new(threads: usize, names: &Arc<[String]>) -> Self {
        let member = |at| {
            let walk = Walk::new(names, at as u64 + 1);
            let (jobs, queue) = channel();
            let work = move || {
                stay_on_core(at);
                work(&walk, &queue);
            };
            Member { jobs: Some(jobs), thread: Some(thread::spawn(work)) }
        };
        Self { members: (0..threads).map(member).collect() }
    }

    /// Lets `threads` threads count, each `times` through its walk, and returns the wall time from the first start until
    /// everything is counted.
    ///
    /// Each thread counts once through its walk before, so that caches hold what is measured and not what was measured
    /// before.
    ///
    /// # Panics
    /// When there are fewer threads, or one of them panics.
    pub fn time(&self, counting: &Arc<dyn Counting>, threads: usize, times: u64) -> Duration {
        let mut took = Duration::ZERO;
        let mut left = times;
        while left > 0 {
            let now = left.min(MAX_WALKS);
            took += self.time_at_once(counting, threads, now);
            left -= now;
        }
        took
    }

    fn time_at_once(&self, counting: &Arc<dyn Counting>, threads: usize, times: u64) -> Duration {
        let ready = Arc::new(AtomicUsize::new(0));
        let (done, ends) = channel();
        for member in &self.members[..threads] {
            let (counting, ready) = (Arc::clone(counting), Arc::clone(&ready));
            let job = Job { counting, times, ready, threads, done: done.clone() };
            let jobs = member.jobs.as_ref().expect("members work until the crew is dropped");
            jobs.send(job).expect("a member works until the crew is dropped");
        }
        drop(done);
        let spans: Vec<_> = ends.iter().collect();
        assert_eq!(spans.len(), threads, "a counting thread panicked");
        let began = spans.iter().map(|span| span.began).min();
        let ended = spans.iter().map(|span| span.ended).max();
        let spread = ended.zip(began).map_or(Duration::ZERO, |(ended, began)| ended - began);
        // The time that this thread took to wake up belongs to no way of counting.
        let awake = Instant::now();
        counting.settle();
        spread + awake.elapsed()
    }

    /// Returns how many increments [`time`](Self::time) makes, those before the measurement included.
    pub fn increments(threads: usize, times: u64) -> u64 {
        threads as u64 * (times + times.div_ceil(MAX_WALKS)) * WALK as u64
    }
}

/// Binds this thread to one of the cores that it may use. A scheduler that wakes two threads on one core moves one of them
/// later than a short measurement lasts.
#[cfg(target_os = "linux")]
fn stay_on_core(at: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    if cores.is_empty() {
        return;
    }
    let mut own = CpuSet::new();
    own.set(cores[at % cores.len()]);
    // Where that is not allowed, the numbers are only more restless.
    sched_setaffinity(None, &own).ok();
}

#[cfg(not(target_os = "linux"))]
fn stay_on_core(_: usize) {}

fn work(walk: &Walk, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job.counting.count(walk, 1);
        job.counting.settle();
        job.ready.fetch_add(1, Ordering::SeqCst);
        while job.ready.load(Ordering::SeqCst) < job.threads {
            // With more threads than cores, the others need this one's core to become ready.
            thread::yield_now();
        }
        let began = Instant::now();
        job.counting.count(walk, job.times);
        let ended = Instant::now();
        // The receiver is gone only if it panicked.
        job.done.send(Span { began, ended }).ok();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(|member| member.jobs = None);
        for thread in self.members.iter_mut().filter_map(|member| member.thread.take()) {
            // Its panic was reported by the measurement that met it.
            thread.join().ok();
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({}, {} threads)", self.counting.label(), self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        peers,
        subject::{CallSite, Handle, Increments},
        workload::{KNOWN, names},
    };

    /// Every way of counting, in numbers small enough for a test.
    #[test]
    fn every_way_of_counting_counts_every_increment() {
        let names = names(KNOWN.into());
        let crew = Crew::new(2, &names);
        let mut ways = peers::all(&names).unwrap();
        ways.push(Arc::new(Increments::start().unwrap()));
        ways.push(Arc::new(Handle::start().unwrap()));
        ways.push(Arc::new(CallSite::install().unwrap()));
        for way in ways {
            let before = way.counted();
            crew.time(&way, 1, MAX_WALKS + 1);
            crew.time(&way, 2, 1);
            let expected = Crew::increments(1, MAX_WALKS + 1) + Crew::increments(2, 1);
            assert_eq!(expected, (MAX_WALKS + 3 + 4) * WALK as u64);
            if let Some(before) = before {
                assert_eq!(way.counted(), Some(before + expected), "{}", way.label());
            }
        }
    }
}
