//! The journal file: opening it, its size and its log.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig, wal::CheckpointMode};

/// Name of the journal file.
pub(crate) const JOURNAL: &str = "journal.db";

/// Bytes per page.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Bytes that a page takes in the write-ahead log.
pub(crate) const FRAME_BYTES: u64 = PAGE_BYTES + 24;

/// Page cache of the writing connection, in KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// Maximum wait for a reader in another process. No other process writes to the journal.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection and the file that it was opened on.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) connection: Connection,
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl OpenFile {
    /// Opens the file for writing, without writing to it; creates it when it is missing.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        Ok(Self { connection: connect(path, flags)?, path: path.to_owned(), identity: identity(path) })
    }

    /// Opens the file, which exists, for reading.
    pub(crate) fn open_read_only(path: &Path) -> rusqlite::Result<Self> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        Ok(Self { connection, path: path.to_owned(), identity: identity(path) })
    }

    /// Sets the page size and vacuum mode of a new file, before anything else is written to it.
    pub(crate) fn format(&self) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "page_size", PAGE_BYTES.cast_signed())?;
        // So that a journal that an outage has filled can return its space.
        self.connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")
    }

    /// Switches to a write-ahead log that is synced by every commit and moved into the file only on request.
    pub(crate) fn prepare_writing(&self) -> rusqlite::Result<()> {
        let pragma = |name: &str, value: &str| self.connection.pragma_update(None, name, value);
        self.connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        // One fsync per commit, and on macOS one that reaches the disk.
        pragma("synchronous", "FULL")?;
        pragma("fullfsync", "ON")?;
        pragma("checkpoint_fullfsync", "ON")?;
        // The log is moved into the file after callers have their answer, and errors of that are handled.
        self.connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
        pragma("temp_store", "MEMORY")?;
        self.connection.pragma_update(None, "cache_size", -CACHE_KIB)
    }

    /// Moves the log into the file as far as no reader uses it, without waiting for readers. Returns whether all of it was
    /// moved, after which the next commit overwrites the log from its beginning.
    pub(crate) fn checkpoint(&self) -> rusqlite::Result<bool> {
        let (pages, moved) = self.connection.wal_checkpoint_v2::<&str>(None, CheckpointMode::PASSIVE)?;
        Ok(moved >= pages)
    }

    /// Moves the whole log into the file and empties the log.
    ///
    /// Afterwards every transaction that this connection sees is durable, and no other one can come back.
    pub(crate) fn empty_log(&self) -> rusqlite::Result<()> {
        self.connection.wal_checkpoint_v2::<&str>(None, CheckpointMode::TRUNCATE).map(|_| ())
    }

    /// Empties the log unless a reader uses it at this moment.
    pub(crate) fn try_to_empty_log(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(Duration::ZERO)?;
        let emptied = self.empty_log();
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        emptied
    }

    /// Returns the number of pages in the log.
    pub(crate) fn log_pages(&self) -> rusqlite::Result<u64> {
        let (pages, _) = self.connection.wal_checkpoint_v2::<&str>(None, CheckpointMode::NOOP)?;
        Ok(u64::try_from(pages).unwrap_or(0))
    }

    /// Returns the number of pages of the file as of the current transaction.
    pub(crate) fn pages(&self) -> rusqlite::Result<u64> {
        // Prepared once, because every record asks.
        let mut statement = self.connection.prepare_cached("PRAGMA page_count")?;
        statement.query_row([], |row| row.get(0)).map(i64::cast_unsigned)
    }

    /// Returns the number of free pages in the file.
    pub(crate) fn free_pages(&self) -> rusqlite::Result<u64> {
        let pages: i64 = self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        Ok(pages.cast_unsigned())
    }

    /// Returns up to `pages` free pages to the file system.
    pub(crate) fn vacuum(&self, pages: u64) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        // Each step returns one page.
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// Tells whether the path still leads to the file of this connection. Writes to a file that was moved or deleted are
    /// lost to the next process.
    pub(crate) fn is_current(&self) -> bool {
        identity(&self.path) == self.identity
    }

    /// Closes the connection without touching a damaged file or its log.
    pub(crate) fn close_untouched(self) {
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).ok();
    }
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Every connection stays on one thread at a time, so SQLite need not lock it.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Returns `path` with `suffix` appended to its file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns the path of the write-ahead log of the file `path`.
pub(crate) fn log_of(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

/// Returns the size in bytes of the file at `path`, zero when there is none.
pub(crate) fn bytes_of(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Returns the sizes in bytes of the file at `path` and of its log, zero for one that cannot be read.
pub(crate) fn sizes(path: &Path) -> (u64, u64) {
    (bytes_of(path).unwrap_or(0), bytes_of(&log_of(path)).unwrap_or(0))
}

/// Makes the file names in `dir` durable.
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    path.metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// On other systems an open file can be neither moved nor deleted.
#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    Some((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_sync_and_checkpoints_are_explicit() {
        let dir = tempfile::tempdir().unwrap();
        let file = OpenFile::open(&dir.path().join(JOURNAL)).unwrap();
        file.format().unwrap();
        file.prepare_writing().unwrap();
        let pragma =
            |name| file.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        let mode: String =
            file.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        assert_eq!(pragma("synchronous"), 2, "FULL");
        assert_eq!(pragma("wal_autocheckpoint"), 0);
        assert_eq!(pragma("auto_vacuum"), 2, "INCREMENTAL");
        assert_eq!(pragma("page_size").cast_unsigned(), PAGE_BYTES);
    }

    #[test]
    fn free_pages_are_returned() {
        let dir = tempfile::tempdir().unwrap();
        let file = OpenFile::open(&dir.path().join(JOURNAL)).unwrap();
        file.format().unwrap();
        file.prepare_writing().unwrap();
        let run = |sql| file.connection.execute_batch(sql).unwrap();
        run("CREATE TABLE t (x BLOB); INSERT INTO t VALUES (zeroblob(400000)); DELETE FROM t");
        let free = file.free_pages().unwrap();
        assert!(free > 90, "{free}");
        file.vacuum(free - 10).unwrap();
        assert_eq!(file.free_pages().unwrap(), 10);
    }
}
