//! The queue of processes that want to write.

#[cfg_attr(not(all(target_os = "linux", target_pointer_width = "64")), path = "turn/without.rs")]
mod place;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use place::Place;

/// How long a turn is waited for at most. Who keeps it for longer is stopped, or stores a very large batch; the others then
/// go without.
const LONGEST: Duration = Duration::from_secs(1);

/// After this time who is next looks again. Short enough for the disk not to be idle for long, long enough not to interrupt those
/// who are about to come, and to cost less than a thread that could be woken, which a wait for a lock that has to end in time
/// would need.
const NEXT: Duration = Duration::from_micros(400);

/// How much later who is behind one more looks again; a turn takes about as long, an `fsync` and a little.
const EACH: Duration = Duration::from_micros(800);

/// Behind this many it makes no difference.
const MANY: u32 = 20;

/// A moment, as the clock shows it that all processes of the machine see.
type Micros = i64;

/// The turns of one connection to write, and to close: one connection has a turn at a time.
///
/// SQLite's write lock has no queue: those that wait for it look again every now and then, and who happens to look at the right
/// moment has it. Of eight processes that count once and go, one in a hundred then waited three times as long as the others. A lock
/// of the whole file is no better: whom the kernel wakes has to try again, and finds that somebody who came in the meantime was
/// faster. So everybody takes a place, and it is the turn of who has waited for longest, whoever comes.
///
/// A place is a lock of one byte, far behind the end of the write-ahead log, and so is the turn; the kernel gives up the locks of
/// those that die. SQLite has no locks on that file, and it exists for as long as anybody has the database open.
///
/// This is about order alone. Who has no turn, because of a file system without such locks, another program or
/// [`LONGEST`], competes for the write lock as if there were none, which is as safe; who closes like that may leave a log for the
/// next one to tidy up.
#[derive(Debug)]
pub(crate) struct Turns {
    patience: Duration,
    /// When the wait began; none when that is whenever it asks.
    since: Option<Micros>,
    turn: Option<Place>,
}

impl Turns {
    /// Waits for each turn for `patience`, but never for longer than a second.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience: patience.min(LONGEST), since: None, turn: None }
    }

    /// Counts as one who has waited since the process started, because it started for nothing else. On a busy machine that
    /// takes one of eight processes three times as long as another; who has lost as much is not to wait for all others besides.
    pub(crate) fn since_start(self) -> Self {
        Self { since: place::started(), ..self }
    }

    /// Waits for the turn to write to the database with this `log`, or goes without. Keeps the one that there already is.
    pub(crate) fn begin(&mut self, log: &Path) {
        if self.turn.is_none() {
            self.turn = self.next(log);
        }
    }

    /// Lets the next one write.
    pub(crate) fn end(&mut self) {
        self.turn = None;
    }

    fn next(&self, log: &Path) -> Option<Place> {
        let mut place = Place::take(log, self.since)?;
        let began = Instant::now();
        loop {
            let behind = place.behind()?;
            if behind == 0 {
                return Some(place);
            }
            let left = self.patience.checked_sub(began.elapsed())?;
            std::thread::sleep(left.min(until_next_look(behind)));
        }
    }
}

fn until_next_look(behind: u32) -> Duration {
    NEXT + EACH * behind.saturating_sub(1).min(MANY)
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::MetadataExt as _,
        path::PathBuf,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
            mpsc,
        },
        thread,
    };

    use super::*;

    fn log() -> (tempfile::TempDir, Arc<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("countem.db-wal");
        File::create(&log).unwrap();
        (folder, Arc::new(log))
    }

    fn patient() -> Turns {
        Turns { patience: Duration::from_secs(60), ..Turns::new(LONGEST) }
    }

    /// Waits until `count` have a place in the queue at `log`, with the one whose turn it is.
    pub(crate) fn until_queued(log: &Path, count: usize) {
        let inode = format!(":{} ", log.metadata().unwrap().ino());
        let began = Instant::now();
        loop {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let places =
                locks.lines().filter(|line| line.contains("OFDLCK") && line.contains(&inode)).count();
            if places == count {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{places} instead of {count}:\n{locks}");
            thread::yield_now();
        }
    }

    #[test]
    fn turns_come_in_the_order_in_which_they_were_asked_for() {
        let (_folder, log) = log();
        let mut first = Turns::new(LONGEST);
        first.begin(&log);
        let (order, came) = mpsc::channel();
        let others: Vec<_> = (0..4)
            .map(|at| {
                let (path, order) = (Arc::clone(&log), order.clone());
                let other = thread::spawn(move || {
                    let mut turns = patient();
                    turns.begin(&path);
                    assert!(turns.turn.is_some());
                    order.send(at).unwrap();
                    turns.end();
                });
                until_queued(&log, at + 2);
                other
            })
            .collect();
        first.begin(&log);
        assert!(came.try_recv().is_err(), "it has its turn until it ends it");
        first.end();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(came.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn who_comes_in_the_moment_of_handing_over_does_not_overtake() {
        let (_folder, log) = log();
        let mut first = patient();
        first.begin(&log);
        let (order, came) = mpsc::channel();
        let path = Arc::clone(&log);
        let other = thread::spawn(move || {
            let mut turns = patient();
            turns.begin(&path);
            order.send(()).unwrap();
        });
        until_queued(&log, 2);
        first.end();
        first.begin(&log);
        assert!(first.turn.is_some());
        came.try_recv().expect("the other one had its turn before");
        other.join().unwrap();
    }

    #[test]
    fn who_has_waited_for_longest_is_the_next_though_it_asked_later() {
        let (_folder, log) = log();
        let mut first = Turns::new(LONGEST);
        first.begin(&log);
        let (order, came) = mpsc::channel();
        let others = [(None, 2), (Some(1), 3), (Some(0), 4)].map(|(since, queued)| {
            let (path, order) = (Arc::clone(&log), order.clone());
            let other = thread::spawn(move || {
                let mut turns = Turns { since, ..patient() };
                turns.begin(&path);
                order.send(since).unwrap();
            });
            until_queued(&log, queued);
            other
        });
        first.end();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(came.try_iter().collect::<Vec<_>>(), [Some(0), Some(1), None]);
    }

    #[test]
    fn a_process_started_before_now_and_not_long_ago() {
        let (started, now) = (place::started().unwrap(), place::now().unwrap());
        assert!((now - 600_000_000..now).contains(&started), "{started} {now}");
    }

    #[test]
    fn behind_many_the_next_look_is_not_far_away() {
        assert_eq!(until_next_look(1), NEXT);
        assert_eq!(until_next_look(3), NEXT + 2 * EACH);
        assert!(until_next_look(u32::MAX) <= Duration::from_millis(17));
    }

    #[test]
    fn one_has_a_turn_at_a_time() {
        const EACH_HAS: u32 = 50;
        let (_folder, log) = log();
        let writing = Arc::new(AtomicU32::new(0));
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let (path, writing) = (Arc::clone(&log), Arc::clone(&writing));
                thread::spawn(move || {
                    let mut turns = patient();
                    for _ in 0..EACH_HAS {
                        turns.begin(&path);
                        assert!(turns.turn.is_some());
                        assert_eq!(writing.fetch_add(1, Ordering::SeqCst), 0, "another one writes");
                        thread::yield_now();
                        writing.fetch_sub(1, Ordering::SeqCst);
                        turns.end();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        until_queued(&log, 0);
    }

    #[test]
    fn who_has_waited_long_enough_goes_without_and_holds_up_nobody() {
        let (_folder, log) = log();
        let mut stopped = Turns::new(LONGEST);
        stopped.begin(&log);
        let mut turns = Turns::new(Duration::from_millis(10));
        for _ in 0..3 {
            turns.begin(&log);
            assert!(turns.turn.is_none());
            until_queued(&log, 1);
        }
        drop(stopped);
        turns.begin(&log);
        assert!(turns.turn.is_some(), "nobody has it");
    }

    #[test]
    fn without_a_log_there_is_no_queue() {
        let mut turns = Turns::new(LONGEST);
        turns.begin(Path::new("/nowhere/countem.db-wal"));
        assert!(turns.turn.is_none());
    }
}
