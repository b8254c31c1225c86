//! Disk space reserved so that a full disk can still be checkpointed.
//!
//! A log that has filled the disk can be emptied only after its pages were moved into the main file, which may have to grow
//! by some pages for that. Deleting the reserve makes room for them.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use countem_sqlite::private_file;
use rand::RngCore as _;

/// Name of the file.
pub(crate) const RESERVE: &str = "journal.reserve";

/// Size of the reserve: more than the pages in the log by which the main file may have to grow.
pub(crate) const RESERVE_BYTES: usize = 256 * 1024;

/// Minimum gap between two failed attempts to allocate the reserve.
const RETRY_GAP: Duration = Duration::from_secs(1);

/// The reserve of one directory, allocated or not.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    is_allocated: bool,
    failed_at: Option<Instant>,
}

impl Reserve {
    /// Looks for the reserve in `dir`.
    pub(crate) fn find(dir: &Path) -> Self {
        let path = dir.join(RESERVE);
        let is_allocated = fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE_BYTES as u64);
        Self { path, is_allocated, failed_at: None }
    }

    /// Allocates the reserve if it is missing. The journal is exact without it, and recovers from a full disk less often.
    pub(crate) fn allocate(&mut self) {
        if self.is_allocated || self.failed_at.is_some_and(|at| at.elapsed() < RETRY_GAP) {
            return;
        }
        self.is_allocated = fill(&self.path).is_ok();
        self.failed_at = (!self.is_allocated).then(Instant::now);
        if !self.is_allocated {
            fs::remove_file(&self.path).ok();
        }
    }

    /// Deletes the reserve. Returns whether that freed any space.
    pub(crate) fn release(&mut self) -> bool {
        std::mem::take(&mut self.is_allocated) && fs::remove_file(&self.path).is_ok()
    }
}

fn fill(path: &Path) -> io::Result<()> {
    // Random, because some file systems store compressible content in less space.
    let mut bytes = vec![0; RESERVE_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    private_file().write(true).create(true).truncate(true).open(path)?.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_is_allocated_released_and_allocated_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::find(dir.path());
        assert!(!reserve.release());
        for _ in 0..2 {
            reserve.allocate();
            assert_eq!(fs::metadata(dir.path().join(RESERVE)).unwrap().len(), RESERVE_BYTES as u64);
            assert!(Reserve::find(dir.path()).is_allocated);
            assert!(reserve.release());
            assert!(!dir.path().join(RESERVE).exists());
        }
    }
}
