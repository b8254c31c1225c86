//! A place in the queue: a lock of one byte that belongs to an open file, so that several connections of a process queue, too.

use std::{fs::File, path::Path};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc::{self, c_int, c_short, flock},
};

/// The first place. A log never becomes that long: where locks keep others from writing (SMB), they are in nobody's way.
const FIRST: i64 = 1 << 62;

/// A place in the queue at a log, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    log: File,
    at: i64,
}

impl Place {
    /// Takes the place behind the last one; `None` where there are no such locks.
    pub(super) fn last(log: &Path) -> Option<Self> {
        let log = File::options().read(true).write(true).open(log).ok()?;
        let mut place = Self { log, at: FIRST };
        loop {
            while let Some(other) = place.find(place.at, 0)? {
                // Somebody else's lock may have no end.
                place.at = other.l_start.checked_add(other.l_len).filter(|end| *end > place.at)?;
            }
            match place.lock(libc::F_WRLCK) {
                // It seemed to be the last one while somebody was about to take a place behind those who have gone.
                Ok(()) if place.find(place.at + 1, 0)?.is_some() => place.lock(libc::F_UNLCK).ok()?,
                Ok(()) => return Some(place),
                Err(Errno::EAGAIN | Errno::EACCES) => {}
                Err(_) => return None,
            }
        }
    }

    /// Returns behind about how many others this place is, zero when it is the first; `None` when that cannot be known.
    pub(super) fn behind(&self) -> Option<u32> {
        if self.at == FIRST {
            return Some(0);
        }
        let ahead = self.find(FIRST, self.at - FIRST)?;
        Some(ahead.map_or(0, |other| u32::try_from(self.at - other.l_start).unwrap_or(u32::MAX).max(1)))
    }

    /// Finds the lock of somebody else on any of `len` bytes from `from` on, on any at all behind that when `len` is zero.
    fn find(&self, from: i64, len: i64) -> Option<Option<flock>> {
        let mut found = range(libc::F_WRLCK, from, len);
        fcntl(&self.log, FcntlArg::F_OFD_GETLK(&mut found)).ok()?;
        Some((c_int::from(found.l_type) != libc::F_UNLCK).then_some(found))
    }

    fn lock(&self, kind: c_int) -> Result<(), Errno> {
        fcntl(&self.log, FcntlArg::F_OFD_SETLK(&range(kind, self.at, 1))).map(|_| ())
    }
}

/// Closing alone would keep the place for as long as a process that was forked meanwhile has the file open.
impl Drop for Place {
    fn drop(&mut self) {
        self.lock(libc::F_UNLCK).ok();
    }
}

fn range(kind: c_int, from: i64, len: i64) -> flock {
    let short = |number| c_short::try_from(number).expect("a small number");
    flock { l_type: short(kind), l_whence: short(libc::SEEK_SET), l_start: from, l_len: len, l_pid: 0 }
}
