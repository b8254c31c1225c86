//! A place in the queue: a lock of one byte that belongs to an open file, so that several connections of a process queue, too.

use std::{fs, path::Path};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc::{self, c_int, c_short, flock},
    time::{ClockId, clock_gettime},
};

use super::{MANY, Micros};

/// Who has this byte has the turn. A log never becomes that long: where locks keep others from writing (SMB), they are in
/// nobody's way.
const TURN: i64 = 1 << 62;

/// A place in the queue at a log, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    log: fs::File,
    /// [`TURN`], or so many microseconds behind it as the clock showed when the wait began.
    at: Micros,
}

impl Place {
    /// Takes a place behind those who have waited for longer than since then, or than not at all; `None` where there are no
    /// such locks.
    pub(super) fn take(log: &Path, since: Option<Micros>) -> Option<Self> {
        let log = fs::File::options().read(true).write(true).open(log).ok()?;
        let first = TURN + 1 + since.or_else(now)?;
        let mut place = Self { log, at: TURN };
        // More than a few at the same microsecond are no others that wait, but a lock of something else.
        for at in first..first + i64::from(MANY) {
            if place.lock(at)? {
                place.at = at;
                return Some(place);
            }
        }
        None
    }

    /// Returns behind about how many others this place is, zero when it has the turn; `None` when that cannot be known.
    pub(super) fn behind(&mut self) -> Option<u32> {
        let (mut ahead, mut from) = (0, TURN + 1);
        while ahead < MANY && from < self.at {
            let Some(other) = self.find(from, self.at - from)? else { break };
            ahead += 1;
            // Somebody else's lock may have no end.
            from = other.l_start.checked_add(other.l_len).filter(|end| *end > from)?;
        }
        if ahead > 0 || self.at > TURN && !self.lock(TURN)? {
            return Some(ahead + 1);
        }
        if self.at > TURN {
            self.unlock();
            self.at = TURN;
        }
        Some(0)
    }

    /// Finds the lock of somebody else on any of `len` bytes from `from` on.
    fn find(&self, from: i64, len: i64) -> Option<Option<flock>> {
        let mut found = range(libc::F_WRLCK, from, len);
        fcntl(&self.log, FcntlArg::F_OFD_GETLK(&mut found)).ok()?;
        Some((c_int::from(found.l_type) != libc::F_UNLCK).then_some(found))
    }

    /// Locks a byte, or tells that somebody else has.
    fn lock(&self, at: i64) -> Option<bool> {
        match fcntl(&self.log, FcntlArg::F_OFD_SETLK(&range(libc::F_WRLCK, at, 1))) {
            Ok(_) => Some(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Some(false),
            Err(_) => None,
        }
    }

    fn unlock(&self) {
        fcntl(&self.log, FcntlArg::F_OFD_SETLK(&range(libc::F_UNLCK, self.at, 1))).ok();
    }
}

/// Closing alone would keep the place for as long as a process that was forked meanwhile has the file open.
impl Drop for Place {
    fn drop(&mut self) {
        self.unlock();
    }
}

/// Returns about when this process started. What is known of that elsewhere is a hundredth of a second, in which several others
/// may have started; so it is as long ago as its first thread has run or waited for a processor.
pub(super) fn started() -> Option<Micros> {
    let times = fs::read_to_string("/proc/self/schedstat").ok()?;
    let mut times = times.split_whitespace().map(|nanos| nanos.parse::<i64>().ok());
    let age = (times.next()?? + times.next()??) / 1_000;
    now().map(|now| (now - age).clamp(0, now))
}

pub(super) fn now() -> Option<Micros> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
    Some(now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000)
}

fn range(kind: c_int, from: i64, len: i64) -> flock {
    let short = |number| c_short::try_from(number).expect("a small number");
    flock { l_type: short(kind), l_whence: short(libc::SEEK_SET), l_start: from, l_len: len, l_pid: 0 }
}
