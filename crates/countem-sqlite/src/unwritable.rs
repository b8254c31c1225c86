//! Reading files that this process may not write, or whose folder it may not.

use std::path::Path;
#[cfg(unix)]
use std::{fs::Metadata, io, os::unix::ffi::OsStrExt as _};

#[cfg(unix)]
use crate::{Place, log_of};

/// Tells whether this process may write the file at `path`, the files beside it and its folder, as a connection that writes does.
/// A file that does not exist may be written as far as is known.
pub fn is_writable(path: &Path) -> bool {
    #[cfg(unix)]
    {
        let may_write = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        let or_missing = |path: &Path| may_write(path) || !path.exists();
        !path.exists()
            || path.parent().is_none_or(may_write)
                && [path, &log_of(path), &beside(path, "-shm")].into_iter().all(or_missing)
    }
    #[cfg(not(unix))]
    path.metadata().map_or(true, |found| !found.permissions().readonly())
}

/// Way to read a file without writing anything, not even beside it.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// With the locks of SQLite, which need nothing to be written.
    Locks,
    /// With no locks, and an index of the log in memory. Right as long as file and log stay as they are.
    Log,
    /// With no locks and no log. Right as long as the file stays as it is, and no log gets a content.
    File,
}

/// State of a file and its log. As long as it stays the same, so does the content.
#[cfg(unix)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    file: Stamp,
    /// `None` for no log and for an empty one.
    log: Option<Stamp>,
}

#[cfg(unix)]
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    place: Place,
    bytes: u64,
    /// Not the time of the last change of the inode: SQLite sets the owner of a log that it opens for root.
    modified: (i64, i64),
}

#[cfg(unix)]
impl State {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let log = match log_of(path).metadata() {
            Ok(log) => Some(log).filter(|log| log.len() > 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { file: Stamp::of(&path.metadata()?), log: log.as_ref().map(Stamp::of) })
    }

    /// Tells whether a change that comes now cannot go unnoticed: times of files are rounded to the tick of the system's clock.
    pub(crate) fn is_settled(&self, now: std::time::SystemTime) -> bool {
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos().cast_signed();
        [Some(&self.file), self.log.as_ref()].into_iter().flatten().all(|stamp| {
            let (seconds, nanos) = stamp.modified;
            let age = now - (i128::from(seconds) * 1_000_000_000 + i128::from(nanos));
            // A clock that was set back says nothing.
            !(0..=TICK_NANOS).contains(&age)
        })
    }

    /// Returns the ways to try in turn.
    pub(crate) fn ways(&self, path: &Path, has_log_format: bool) -> Vec<Way> {
        let exists = |end| beside(path, end).metadata().is_ok_and(|found| found.len() > 0);
        if !has_log_format || exists("-journal") {
            // Reading with a rollback journal writes nothing; one that has to be rolled back is refused.
            return vec![Way::Locks];
        }
        let without = if self.log.is_some() { Way::Log } else { Way::File };
        let may_create = path
            .parent()
            .is_some_and(|folder| rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok());
        // Where files may be created, SQLite creates those that the last writer has deleted at this moment.
        if exists("-shm") && !may_create { vec![Way::Locks, without] } else { vec![without] }
    }
}

/// More than the tick of any system's clock.
#[cfg(unix)]
const TICK_NANOS: i128 = 20_000_000;

#[cfg(unix)]
impl Stamp {
    fn of(found: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self {
            place: Place::of_metadata(found),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

/// Returns the path of a file beside the one at `path`, whose name ends with `end`.
#[cfg(unix)]
fn beside(path: &Path, end: &str) -> std::path::PathBuf {
    let mut beside = path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string();
    beside.push(end);
    beside.into()
}

/// Returns the URI by which SQLite takes the file at the absolute `path` for one that never changes.
#[cfg(unix)]
pub(crate) fn immutable_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(byte.into()),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}
