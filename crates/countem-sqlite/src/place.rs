//! The file behind a path: which one it is, and whether its content is still its own.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
};

/// The reason why an open file must not be written any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Displaced {
    /// Nothing has its path.
    Gone,
    /// Another file has its path.
    Replaced,
    /// Its content was cut off or replaced.
    Overwritten,
}

impl Displaced {
    /// Returns the end of the sentence "cannot write to `path`: …".
    pub fn why(self) -> &'static str {
        match self {
            Self::Gone => {
                "the file was moved or deleted while this process had it open; move it back, or start this process again"
            }
            Self::Replaced => {
                "another file has taken its place while this process had it open; move the first one back, or start this process again"
            }
            Self::Overwritten => {
                "its content was cut off or replaced while this process had it open; start this process again with a sound file"
            }
        }
    }
}

/// Fields of the header of a database file by which a replaced content is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskHeader {
    bytes: u64,
    /// Zero for an empty file, whose first content is still in the log.
    application_id: u32,
    page_bytes: u16,
    /// Rises with the transactions that are moved into the file.
    changes: u32,
}

impl DiskHeader {
    pub(crate) fn read(mut file: &File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let mut header = [0; 100];
        if bytes > 0 {
            file.rewind()?;
            file.read_exact(&mut header)?;
        }
        let number =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let is_database = header.starts_with(b"SQLite format 3\0");
        Ok(Self {
            bytes,
            application_id: if is_database { number(68) } else { 0 },
            page_bytes: u16::from_be_bytes([header[16], header[17]]),
            changes: number(24),
        })
    }

    /// Tells whether another process that moves the log into the file can have made this header of `before`. Only a vacuum makes
    /// the file shorter.
    pub(crate) fn may_follow(&self, before: &Self) -> bool {
        let was_empty = before.application_id == 0;
        let is_later = self.changes.wrapping_sub(before.changes) < u32::MAX / 2;
        let keeps_length = self.bytes >= before.bytes;
        was_empty
            || (self.application_id == before.application_id
                && self.page_bytes == before.page_bytes
                && is_later
                && keeps_length)
    }
}

/// The file that a path leads to. Stays the same as long as it is the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(u64, u64);

impl Place {
    /// Returns the file at `path`, `None` where there is none.
    #[cfg(unix)]
    pub fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|found| Self::of_metadata(&found))
    }

    /// Returns the place of an open file.
    #[cfg(unix)]
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|found| Self::of_metadata(&found))
    }

    /// Returns the place of the file with these metadata.
    #[cfg(unix)]
    pub(crate) fn of_metadata(found: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self(found.dev(), found.ino())
    }

    /// Elsewhere an open file can be neither moved nor deleted.
    #[cfg(not(unix))]
    pub fn of(_: &Path) -> Option<Self> {
        Some(Self(0, 0))
    }
}

/// Returns the path of the log of the file at `path`: beside the file itself, also when the path is a link to it.
pub fn log_of(path: &Path) -> PathBuf {
    let mut log = path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string();
    log.push("-wal");
    log.into()
}

/// Returns the length in bytes of the file at `path`, zero when there is none.
///
/// # Errors
/// The file may not be looked at.
pub fn bytes_of(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
