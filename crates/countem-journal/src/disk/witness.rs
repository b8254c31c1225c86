//! The witness: a second file that holds the number of the newest transaction.
//!
//! To SQLite a log that was cut or damaged looks like a log whose last transactions never happened. So after every commit,
//! and before its requests are answered, its number is also written to the witness. The witness is not synced: after a
//! power cut it may be behind the journal, never ahead of it. A journal that is behind its witness has lost acknowledged
//! transactions.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use countem_core::hash::{Fnv64, splitmix64};
use countem_sqlite::private_file;

/// Name of the witness file.
pub(crate) const WITNESS: &str = "journal.witness";

/// Content of a witness file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Witnessed {
    /// There is no witness.
    Absent,
    /// It is not readable, and proves only that there was a journal.
    Unreadable,
    /// The transaction with this number was committed.
    Tick(u64),
}

/// The open witness file.
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
}

impl Witness {
    /// Reads the witness in `dir`.
    pub(crate) fn read(dir: &Path) -> io::Result<Witnessed> {
        match std::fs::read(dir.join(WITNESS)) {
            Ok(bytes) if bytes.is_empty() => Ok(Witnessed::Absent),
            Ok(bytes) => Ok(std::str::from_utf8(&bytes)
                .ok()
                .and_then(parse)
                .map_or(Witnessed::Unreadable, Witnessed::Tick)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Witnessed::Absent),
            Err(error) => Err(error),
        }
    }

    /// Opens the witness in `dir` for writing; creates it when it is missing.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(WITNESS);
        let file = private_file().write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file })
    }

    /// Writes that transaction `tick` is committed.
    pub(crate) fn write(&mut self, tick: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(line(tick).as_bytes())
    }
}

/// Returns the content of the file, always equally long, so that it overwrites all of the one before.
fn line(tick: u64) -> String {
    let head = format!("countem journal tick {tick:020}");
    let digest = splitmix64(Fnv64::new().bytes(head.as_bytes()).bytes(&[0xff]).finish());
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
    fn witness_holds_the_newest_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let read = || Witness::read(dir.path()).unwrap();
        assert_eq!(read(), Witnessed::Absent);
        let mut witness = Witness::open(dir.path()).unwrap();
        assert_eq!(read(), Witnessed::Absent);
        for tick in [12, u64::MAX, 3] {
            witness.write(tick).unwrap();
            assert_eq!(read(), Witnessed::Tick(tick));
        }
    }

    #[test]
    fn damaged_witness_names_no_transaction() {
        assert_eq!(line(42), "countem journal tick 00000000000000000042 9e977036fa943ae1\n");
        let good = line(123_456);
        for at in 0..good.len() {
            for flip in 1..=255 {
                let mut bytes = good.clone().into_bytes();
                bytes[at] ^= flip;
                let tick = std::str::from_utf8(&bytes).ok().and_then(parse);
                assert_eq!(tick, None, "{bytes:?}");
            }
            assert_eq!(parse(&good[..at]), None);
        }
    }
}
