//! The witness: a second place that knows how far the journal got.
//!
//! A log that was cut or damaged looks to SQLite like a log whose last transactions never were. So after every commit, and
//! before anybody is told of it, its number is also written here. It is not synced: after a power cut the witness may
//! know less than the journal, never more. A journal that knows less than its witness has lost what was acknowledged.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use crate::digest::Digest;

/// Name of the witness file.
pub(crate) const WITNESS: &str = "journal.witness";

/// What a witness file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Testimony {
    /// There is no witness.
    Absent,
    /// It is not readable, so it testifies only that a journal was here.
    Unreadable,
    /// This many transactions were committed.
    Tick(u64),
}

/// The open witness file.
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
}

impl Witness {
    /// Reads what the witness in `dir` says.
    pub(crate) fn testimony(dir: &Path) -> io::Result<Testimony> {
        match std::fs::read(dir.join(WITNESS)) {
            Ok(bytes) if bytes.is_empty() => Ok(Testimony::Absent),
            Ok(bytes) => Ok(std::str::from_utf8(&bytes)
                .ok()
                .and_then(parse)
                .map_or(Testimony::Unreadable, Testimony::Tick)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Testimony::Absent),
            Err(error) => Err(error),
        }
    }

    /// Opens the witness in `dir` for writing; creates it when it is missing.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(WITNESS);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file })
    }

    /// Notes that transaction `tick` is committed.
    pub(crate) fn note(&mut self, tick: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(line(tick).as_bytes())
    }
}

/// Always equally long, so that a shorter line never leaves the end of a longer one.
fn line(tick: u64) -> String {
    let head = format!("countem journal tick {tick:020}");
    let digest = Digest::new().text(&head).finish();
    format!("{head} {digest:016x}\n")
}

fn parse(text: &str) -> Option<u64> {
    let tick = text.split(' ').nth(3)?.parse().ok()?;
    (line(tick) == text).then_some(tick)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_says_what_was_noted_last() {
        let dir = tempfile::tempdir().unwrap();
        let said = || Witness::testimony(dir.path()).unwrap();
        assert_eq!(said(), Testimony::Absent);
        let mut witness = Witness::open(dir.path()).unwrap();
        assert_eq!(said(), Testimony::Absent);
        for tick in [12, u64::MAX, 3] {
            witness.note(tick).unwrap();
            assert_eq!(said(), Testimony::Tick(tick));
        }
    }

    #[test]
    fn a_damaged_witness_says_nothing_wrong() {
        let good = line(123_456);
        for at in 0..good.len() {
            for flip in 1..=255 {
                let mut bytes = good.clone().into_bytes();
                bytes[at] ^= flip;
                let read = std::str::from_utf8(&bytes).ok().and_then(parse);
                assert_eq!(read, None, "{bytes:?}");
            }
            assert_eq!(parse(&good[..at]), None);
        }
    }
}
