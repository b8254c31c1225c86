//! An open database file.

#[cfg(unix)]
use std::time::{Instant, SystemTime};
use std::{
    cell::Cell,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::{Connection, Error, OpenFlags, Result, config::DbConfig, ffi, wal::CheckpointMode};

#[cfg(unix)]
use crate::{
    Header,
    unwritable::{State, Way, immutable_uri},
};
use crate::{
    cause::Cause,
    descriptor::Descriptor,
    place::{DiskHeader, Displaced, Place, bytes_of, log_of},
    private::private_file,
    wait::wait_for_others,
};

/// A connection and the file that it was opened on. Belongs to one thread at a time.
#[derive(Debug)]
pub struct OpenFile {
    /// The connection.
    pub connection: Connection,
    /// Path of the write-ahead log.
    pub log: PathBuf,
    path: PathBuf,
    identity: Option<Place>,
    /// `None` where the file may not be opened, which the first statement tells. Dropped after the connection.
    descriptor: Option<Descriptor>,
    log_identity: Option<Place>,
    /// The newest header that was seen in the file; `None` once this connection may have changed it.
    seen: Cell<Option<DiskHeader>>,
    /// State of a file that was opened without a lock.
    #[cfg(unix)]
    state: Option<State>,
    busy_timeout: Duration,
    /// Held while the connection closes; the last field, so that it is dropped after the connection.
    closing: Option<File>,
}

impl OpenFile {
    /// Opens the file at the absolute `path` for writing, and creates it for its owner alone when it is missing. Writes nothing.
    ///
    /// Calls on the connection wait for locks of others for up to `busy_timeout`.
    ///
    /// # Errors
    /// The file cannot be opened, or the path is a link. Most other problems, such as damage, are met by the first statement.
    pub fn for_writing(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let created = Descriptor::open(path, private_file().read(true).write(true).create(true));
        if created.is_err() && path.is_symlink() {
            return Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN_SYMLINK), None));
        }
        let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        Self::open(path, access, busy_timeout, created.ok())
    }

    /// Opens the file at the absolute `path`, which exists, for reading.
    ///
    /// # Errors
    /// As for [`for_writing`](Self::for_writing).
    pub fn for_reading(path: &Path, busy_timeout: Duration) -> Result<Self> {
        Self::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, busy_timeout, None)
    }

    /// Opens the file at the absolute `path`, which exists, for reading, where this process may not write the file or its folder
    /// ([`is_writable`](crate::is_writable)). Nothing is written, also not beside it.
    ///
    /// What is read counts only if [`is_unchanged`](Self::is_unchanged) says so afterwards.
    ///
    /// # Errors
    /// As for [`for_writing`](Self::for_writing), and all that the first statement meets.
    #[cfg(unix)]
    pub fn for_reading_only(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let cannot_open = |error: io::Error| {
            Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(error.to_string()))
        };
        let mut state = State::of(path).map_err(cannot_open)?;
        let began = Instant::now();
        while !state.is_settled(SystemTime::now()) && began.elapsed() < busy_timeout {
            thread::sleep(HEADER_GAP);
            state = State::of(path).map_err(cannot_open)?;
        }
        let descriptor = Descriptor::open(path, File::options().read(true)).map_err(cannot_open)?;
        let has_log_format = descriptor.with(has_log_format).map_err(cannot_open)?;
        drop(descriptor);
        let mut opened = Err(Error::InvalidQuery);
        for way in state.ways(path, has_log_format) {
            let descriptor = Descriptor::open(path, File::options().read(true)).ok();
            opened = connect_without_writing(path, way)
                .and_then(|connection| Self::of(connection, path, busy_timeout, descriptor))
                .and_then(|file| Header::read(&file.connection).map(|_| file));
            if let Ok(file) = &mut opened {
                file.state = (way != Way::Locks).then_some(state);
                break;
            }
        }
        opened
    }

    /// Opens the file at the absolute `path`, which exists, for reading.
    ///
    /// # Errors
    /// As for [`for_writing`](Self::for_writing).
    #[cfg(not(unix))]
    pub fn for_reading_only(path: &Path, busy_timeout: Duration) -> Result<Self> {
        Self::for_reading(path, busy_timeout)
    }

    /// Tells whether the content is still the one that was opened, for a connection that has to know because it could take no lock.
    pub fn is_unchanged(&self) -> bool {
        #[cfg(unix)]
        return self
            .state
            .as_ref()
            .is_none_or(|state| State::of(&self.path).is_ok_and(|found| found == *state));
        #[cfg(not(unix))]
        true
    }

    fn open(
        path: &Path,
        access: OpenFlags,
        busy_timeout: Duration,
        descriptor: Option<Descriptor>,
    ) -> Result<Self> {
        let descriptor = descriptor.or_else(|| Descriptor::open(path, File::options().read(true)).ok());
        // A connection stays on one thread at a time, so SQLite need not lock it.
        let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        Self::of(connection, path, busy_timeout, descriptor)
    }

    fn of(
        mut connection: Connection,
        path: &Path,
        busy_timeout: Duration,
        descriptor: Option<Descriptor>,
    ) -> Result<Self> {
        connection.busy_handler(Some(wait_for_others(busy_timeout)))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        let (log, identity) = (log_of(path), Place::of(path));
        let path = path.to_owned();
        let (log_identity, seen) = (None, Cell::new(None));
        Ok(Self {
            connection,
            log,
            path,
            identity,
            descriptor,
            log_identity,
            seen,
            #[cfg(unix)]
            state: None,
            busy_timeout,
            closing: None,
        })
    }

    /// Makes every commit wait for one `fsync` of the write-ahead log, and reads wait for nothing.
    ///
    /// The log is a property of the file, so this writes to a new file, or to a copy that a tool made without one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn prepare_writing(&self) -> Result<()> {
        // SQLite does not ask its busy handler about this lock.
        let mut wait = wait_for_others(self.busy_timeout);
        let mut attempt = 0;
        while let Err(error) = self.connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())) {
            if Cause::of(&error) != Cause::Busy || !wait(attempt) {
                return Err(error);
            }
            attempt += 1;
        }
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        // On macOS, an `fsync` that reaches the disk.
        self.connection.pragma_update(None, "fullfsync", true)?;
        self.connection.pragma_update(None, "checkpoint_fullfsync", true)
    }

    /// Tells whether the path still leads to the open file. Counts written after the file was moved or deleted would be lost.
    pub fn is_current(&self) -> bool {
        Place::of(&self.path) == self.identity
    }

    /// Checks, before something is written, that the path still leads to the open file, and that no other program has replaced the
    /// content of the file: SQLite would write its pages among those of the other content.
    ///
    /// # Errors
    /// [`Displaced`]: nothing may be written, and the connection has to stay open or be given to [`abandon`](Self::abandon).
    pub fn check_place(&mut self) -> std::result::Result<(), Displaced> {
        if !self.is_current() {
            return Err(if self.path.exists() { Displaced::Replaced } else { Displaced::Gone });
        }
        let follows =
            |this: &Self, found: &DiskHeader| this.seen.get().is_none_or(|seen| found.may_follow(&seen));
        let header = |descriptor: &Descriptor| descriptor.with(DiskHeader::read).ok();
        let read = || self.descriptor.as_ref().and_then(header).ok_or(Displaced::Overwritten);
        let mut found = read();
        if !found.as_ref().is_ok_and(|found| follows(self, found)) {
            // Another process may be moving the log into the file at this moment.
            thread::sleep(HEADER_GAP);
            found = read();
        }
        match found? {
            found if follows(self, &found) => self.seen.set(Some(found)),
            _ => return Err(Displaced::Overwritten),
        }
        self.log_identity = self.log_identity.or_else(|| Place::of(&self.log));
        Ok(())
    }

    /// Closes a connection whose file has lost its path or its content. Moves the log into the file if that still has its own
    /// content, and leaves no log behind that another file at the path would take for its own.
    pub fn abandon(self) {
        let is_overwritten = self.is_current();
        if !is_overwritten && self.empty_log().is_err() {
            self.checkpoint().ok();
        }
        let has_own_log = self.log_identity.is_some() && Place::of(&self.log) == self.log_identity;
        let log = self.log.clone();
        self.close_untouched();
        if has_own_log && bytes_of(&log).is_ok_and(|bytes| bytes == 0) {
            fs::remove_file(log).ok();
        } else if has_own_log {
            let mut aside = log.clone().into_os_string();
            aside.push(".displaced");
            fs::rename(log, aside).ok();
        }
    }

    /// Returns the length of the write-ahead log in bytes.
    pub fn log_len(&self) -> u64 {
        bytes_of(&self.log).unwrap_or(0)
    }

    /// Waits until the log is on the disk: before a transaction that was found in the file is relied on.
    ///
    /// # Errors
    /// The log cannot be synced. The failure is one of `fsync`, which is not repeated.
    pub fn sync_log(&self) -> Result<()> {
        let log = File::options().read(true).write(true).open(&self.log);
        log.and_then(|log| log.sync_data()).map_err(|error| {
            Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), Some(error.to_string()))
        })
    }

    /// Moves the log into the file and empties it. Afterwards, transactions that this connection sees are durable, and those that
    /// it does not see cannot come back.
    ///
    /// # Errors
    /// Nothing is known about the transactions in the log. [`Cause::Busy`]: another connection still reads it.
    pub fn empty_log(&self) -> Result<()> {
        self.seen.set(None);
        self.connection.wal_checkpoint_v2::<&str>(None, CheckpointMode::TRUNCATE).map(|_| ())
    }

    /// Like [`empty_log`](Self::empty_log), but fails at once if another connection uses the log at this moment.
    ///
    /// # Errors
    /// As for [`empty_log`](Self::empty_log).
    pub fn try_empty_log(&mut self) -> Result<()> {
        self.connection.busy_handler(None::<fn(i32) -> bool>)?;
        let emptied = self.empty_log();
        self.connection.busy_handler(Some(wait_for_others(self.busy_timeout)))?;
        emptied
    }

    /// Moves what the log holds into the file, as far as no other connection reads it. Waits for nothing. Returns true if that was
    /// all of it; the next commit then starts the log from its beginning.
    ///
    /// # Errors
    /// Reading, writing or syncing failed.
    pub fn checkpoint(&self) -> Result<bool> {
        self.seen.set(None);
        let (pages, moved) = self.connection.wal_checkpoint_v2::<&str>(None, CheckpointMode::PASSIVE)?;
        Ok(moved >= pages)
    }

    /// Closes the connection, and neither moves the log into the file nor deletes it.
    pub fn close_untouched(self) {
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).ok();
    }
}

/// Opens a connection that writes nothing.
#[cfg(unix)]
fn connect_without_writing(path: &Path, way: Way) -> Result<Connection> {
    let access = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match way {
        Way::Locks => Connection::open_with_flags(path, access)?,
        Way::Log => {
            let connection = Connection::open_with_flags_and_vfs(path, access, c"unix-none")?;
            // The index of the log is then in the memory of this process.
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            connection
        }
        Way::File => Connection::open_with_flags(immutable_uri(path), access | OpenFlags::SQLITE_OPEN_URI)?,
    };
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Tells whether transactions of the file are in a log before they are in the file.
#[cfg(unix)]
fn has_log_format(mut file: &File) -> io::Result<bool> {
    let mut header = Vec::new();
    file.rewind()?;
    file.take(20).read_to_end(&mut header)?;
    Ok(header.get(18) == Some(&2))
}

/// Time after which a header that looks wrong is read again.
const HEADER_GAP: Duration = Duration::from_millis(20);

/// Maximum wait for another process that closes the same file.
const MAX_CLOSING_WAIT: Duration = Duration::from_secs(1);

/// The last connection to close moves the log into the file and deletes it. Two that close at the same moment each see the
/// other and would both leave the log behind, so a lock on the log lets one close at a time.
impl Drop for OpenFile {
    fn drop(&mut self) {
        #[cfg(unix)]
        if self.state.is_some() {
            return;
        }
        if self.is_current() {
            self.closing = lock(&self.log, self.busy_timeout.min(MAX_CLOSING_WAIT));
        }
    }
}

/// Locks the log for up to `limit`. Without the lock, closing may leave the log for the next process.
fn lock(log: &Path, limit: Duration) -> Option<File> {
    if !cfg!(unix) {
        // Elsewhere, a locked file cannot be read or written by others.
        return None;
    }
    let log = File::open(log).ok()?;
    let mut wait = wait_for_others(limit);
    for attempt in 0.. {
        match log.try_lock() {
            Ok(()) => return Some(log),
            Err(TryLockError::WouldBlock) if wait(attempt) => {}
            Err(_) => break,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::Header;

    const TIMEOUT: Duration = Duration::from_millis(20);

    fn path(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("countem.db")
    }

    fn open(folder: &tempfile::TempDir) -> OpenFile {
        let file = OpenFile::for_writing(&path(folder), TIMEOUT).unwrap();
        file.prepare_writing().unwrap();
        file
    }

    fn with_table(folder: &tempfile::TempDir) -> OpenFile {
        let file = open(folder);
        file.connection.execute_batch("CREATE TABLE t (x)").unwrap();
        file
    }

    #[test]
    fn commits_wait_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let file = open(&folder);
        let mode: String =
            file.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        let pragma =
            |name| file.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((mode.as_str(), pragma("synchronous")), ("wal", 2), "FULL");
        assert_eq!((pragma("fullfsync"), pragma("checkpoint_fullfsync")), (1, 1));
    }

    #[test]
    fn log_that_is_read_is_not_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = with_table(&folder);
        let mut reader = OpenFile::for_reading(&path(&folder), TIMEOUT).unwrap();
        let reading = reader.connection.transaction().unwrap();
        assert!(!Header::read(&reading).unwrap().is_empty());
        file.connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert!(!file.checkpoint().unwrap(), "the reader needs the rest");
        let began = Instant::now();
        assert_eq!(Cause::of(&file.empty_log().unwrap_err()), Cause::Busy);
        assert!(began.elapsed() >= TIMEOUT);
        file.busy_timeout = Duration::from_secs(3600);
        assert_eq!(Cause::of(&file.try_empty_log().unwrap_err()), Cause::Busy);
        drop(reading);
        file.try_empty_log().unwrap();
        assert_eq!(file.log_len(), 0);
    }

    #[test]
    fn unsynced_log_is_a_failed_fsync() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = with_table(&folder);
        file.sync_log().unwrap();
        // The system refuses to sync this one.
        file.log = "/dev/null".into();
        assert_eq!(
            file.sync_log().unwrap_err().sqlite_error().unwrap().extended_code,
            ffi::SQLITE_IOERR_FSYNC
        );
    }

    #[cfg(unix)]
    #[test]
    fn connections_close_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (with_table(&folder), open(&folder));
        let closing = lock(&first.log, TIMEOUT).unwrap();
        let began = Instant::now();
        drop(first);
        assert!(began.elapsed() >= TIMEOUT, "another connection was closing");
        drop(closing);
        drop(second);
        assert!(!log_of(&path(&folder)).exists(), "the last one tidies up");
    }

    #[test]
    fn closing_untouched_leaves_the_log() {
        let folder = tempfile::tempdir().unwrap();
        with_table(&folder).close_untouched();
        assert!(bytes_of(&log_of(&path(&folder))).unwrap() > 0);
    }

    #[cfg(unix)]
    #[test]
    fn moved_file_is_not_current() {
        let folder = tempfile::tempdir().unwrap();
        let file = open(&folder);
        assert!(file.is_current());
        fs::rename(path(&folder), folder.path().join("old.db")).unwrap();
        assert!(!file.is_current());
        drop(open(&folder));
        assert!(!file.is_current(), "a new file has its path");
    }

    #[cfg(unix)]
    #[test]
    fn log_lies_beside_the_file_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link.db");
        std::os::unix::fs::symlink(path(&folder), &link).unwrap();
        assert!(OpenFile::for_writing(&link, TIMEOUT).is_err(), "nothing is written through a link");
        drop(with_table(&folder));
        let log = log_of(&link);
        assert!(log.ends_with("countem.db-wal"), "{}", log.display());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn checks_of_the_place_keep_its_locks() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = with_table(&folder);
        drop(open(&folder));
        file.check_place().unwrap();
        // To this process, its own locks are free.
        let locks = fs::read_to_string("/proc/locks").unwrap();
        use std::os::unix::fs::MetadataExt as _;
        let (id, inode) = (std::process::id().to_string(), path(&folder).metadata().unwrap().ino());
        let is_own = |line: &&str| line.contains("POSIX") && line.split_whitespace().any(|word| word == id);
        let has_lock = locks.lines().filter(is_own).any(|line| line.contains(&format!(":{inode} ")));
        assert!(has_lock, "{locks}");
    }
}
