//! Space put by for the moment when the disk is full.
//!
//! A log that has taken the last of a disk can be given back only after its pages were moved into the main file, which may
//! have to grow for that by some pages. A file that can be deleted makes sure that there is room for them.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rand::RngCore as _;

/// Name of the file.
pub(crate) const RESERVE: &str = "journal.reserve";

/// Bytes put by: more than the log may hold of pages that the main file has no place for.
pub(crate) const RESERVE_BYTES: usize = 256 * 1024;

/// Space put by in a directory, or not.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    is_there: bool,
    /// When it was last tried in vain.
    tried: Option<Instant>,
}

/// How long to wait after trying in vain.
const PAUSE: Duration = Duration::from_secs(1);

impl Reserve {
    /// Looks for the space put by in `dir`.
    pub(crate) fn find(dir: &Path) -> Self {
        let path = dir.join(RESERVE);
        let is_there = fs::metadata(&path).is_ok_and(|found| found.len() == RESERVE_BYTES as u64);
        Self { path, is_there, tried: None }
    }

    /// Puts space by if there is none. Without it the journal is as exact, only less able to help itself.
    pub(crate) fn put_by(&mut self) {
        if self.is_there || self.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
            return;
        }
        self.is_there = fill(&self.path).is_ok();
        self.tried = (!self.is_there).then(Instant::now);
        if !self.is_there {
            fs::remove_file(&self.path).ok();
        }
    }

    /// Gives the space free. Returns whether there was any.
    pub(crate) fn give_up(&mut self) -> bool {
        std::mem::take(&mut self.is_there) && fs::remove_file(&self.path).is_ok()
    }
}

fn fill(path: &Path) -> io::Result<()> {
    // Random, because some file systems keep no space for what they can compress.
    let mut bytes = vec![0; RESERVE_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    File::create(path)?.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_put_by_given_up_and_put_by_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::find(dir.path());
        assert!(!reserve.give_up());
        for _ in 0..2 {
            reserve.put_by();
            assert_eq!(fs::metadata(dir.path().join(RESERVE)).unwrap().len(), RESERVE_BYTES as u64);
            assert!(Reserve::find(dir.path()).is_there);
            assert!(reserve.give_up());
            assert!(!dir.path().join(RESERVE).exists());
        }
    }
}
