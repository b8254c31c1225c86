//! The queue of processes that want to write.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    sync::mpsc::{self, SyncSender},
    thread::Builder,
    time::Duration,
};

/// How long a turn is waited for at most. Who keeps it for longer is stopped, or stores a very large batch; the others then
/// go without.
const LONGEST: Duration = Duration::from_secs(1);

/// The turns of one connection to write, and to close: one connection has a turn at a time.
///
/// SQLite's write lock has no queue: those that wait for it look again every now and then, and who happens to look at the right
/// moment has it. Of eight processes that count once and go, one in a hundred then waited four times as long as the others, and
/// all of them paid for looking. The kernel queues those that wait for a lock of a whole file, wakes them one by one, and
/// forgets those that die; only who comes in the moment of waking may overtake. The file is the write-ahead log: SQLite has no
/// locks on it, and it exists for as long as anybody has the database open.
///
/// This is about order alone. Who has no turn, because of a file system without such locks, another program or
/// [`LONGEST`], competes for the write lock as if there were none, which is as safe; who closes like that may leave a log for the
/// next one to tidy up.
#[derive(Debug)]
pub(crate) struct Turns {
    patience: Duration,
    turn: Option<Turn>,
    /// The way to a thread that waits for locks, perhaps for nobody any more: such a wait cannot be called off.
    waiting: Option<SyncSender<Wanted>>,
}

/// A file to lock, and the way back to who wants it locked.
type Wanted = (File, SyncSender<Turn>);

/// The log, locked.
#[derive(Debug)]
struct Turn(File);

/// Closing alone would leave it locked for as long as a process that was forked meanwhile has it open.
impl Drop for Turn {
    fn drop(&mut self) {
        self.0.unlock().ok();
    }
}

impl Turns {
    /// Waits for each turn for `patience`, but never for longer than a second.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience: patience.min(LONGEST), turn: None, waiting: None }
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

    fn next(&mut self, log: &Path) -> Option<Turn> {
        // Elsewhere a lock keeps others from reading and writing, too.
        if !cfg!(unix) {
            return None;
        }
        let file = File::open(log).ok()?;
        match file.try_lock() {
            Ok(()) => return Some(Turn(file)),
            Err(TryLockError::Error(_)) => return None,
            Err(TryLockError::WouldBlock) => {}
        }
        let waiting = match self.waiting.take() {
            Some(waiting) => waiting,
            None => start_waiting().ok()?,
        };
        let (locked, turn) = mpsc::sync_channel(1);
        // It has no room while it waits for those who have given up.
        self.waiting.insert(waiting).try_send((file, locked)).ok()?;
        turn.recv_timeout(self.patience).ok()
    }
}

fn start_waiting() -> io::Result<SyncSender<Wanted>> {
    let (sender, wanted) = mpsc::sync_channel::<Wanted>(1);
    let wait = move || {
        for (file, locked) in wanted {
            if file.lock().is_ok() {
                // Who has given up does not take it, and it ends at once.
                locked.send(Turn(file)).ok();
            }
        }
    };
    Builder::new().name("countem-sqlite-turn".to_owned()).spawn(wait)?;
    Ok(sender)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
pub(crate) mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, thread, time::Instant};

    use super::*;

    fn log() -> (tempfile::TempDir, Arc<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("countem.db-wal");
        File::create(&log).unwrap();
        (folder, Arc::new(log))
    }

    /// Waits until `count` others wait for a lock on `log`.
    pub(crate) fn until_waiting(log: &Path, count: usize) {
        let inode = format!(":{} ", log.metadata().unwrap().ino());
        let began = Instant::now();
        loop {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let waiting = locks.lines().filter(|line| line.contains("-> ") && line.contains(&inode)).count();
            if waiting == count {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{waiting} instead of {count} wait:\n{locks}");
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
                    let mut turns = Turns { patience: Duration::from_secs(60), ..Turns::new(LONGEST) };
                    turns.begin(&path);
                    assert!(turns.turn.is_some());
                    order.send(at).unwrap();
                    turns.end();
                });
                until_waiting(&log, at + 1);
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
    fn who_has_waited_long_enough_goes_without_and_leaves_nothing_locked() {
        let (_folder, log) = log();
        let mut stopped = Turns::new(LONGEST);
        stopped.begin(&log);
        let mut turns = Turns::new(Duration::from_millis(10));
        for _ in 0..3 {
            turns.begin(&log);
            assert!(turns.turn.is_none());
            until_waiting(&log, 1);
        }
        drop(stopped);
        let began = Instant::now();
        while turns.turn.is_none() {
            turns.begin(&log);
            assert!(began.elapsed() < Duration::from_secs(30), "nobody has it");
        }
    }

    #[test]
    fn without_a_log_there_is_no_queue() {
        let mut turns = Turns::new(LONGEST);
        turns.begin(Path::new("/nowhere/countem.db-wal"));
        assert!(turns.turn.is_none());
    }
}
