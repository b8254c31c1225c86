//! The journal file: its form, its size and its log.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use countem_sqlite::{OpenFile, bytes_of, log_of};
use rusqlite::{Connection, wal::CheckpointMode};

/// Name of the journal file.
pub(crate) const JOURNAL: &str = "journal.db";

/// Bytes per page.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Bytes that a page takes in the write-ahead log.
pub(crate) const FRAME_BYTES: u64 = PAGE_BYTES + 24;

/// Page cache of the writing connection, in KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// Maximum wait for a reader in another process. No other process writes to the journal.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Sets the page size and vacuum mode of a new file, before anything else is written to it.
pub(crate) fn format(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", PAGE_BYTES.cast_signed())?;
    // So that a journal that an outage has filled can return its space.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")
}

/// Switches to a write-ahead log that is synced by every commit and moved into the file only on request.
pub(crate) fn prepare_writing(file: &OpenFile) -> rusqlite::Result<()> {
    file.prepare_writing()?;
    // The log is moved into the file after callers have their answer, and errors of that are handled.
    file.connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    file.connection.pragma_update(None, "temp_store", "MEMORY")?;
    file.connection.pragma_update(None, "cache_size", -CACHE_KIB)
}

/// Returns the number of pages in the log.
pub(crate) fn log_pages(connection: &Connection) -> rusqlite::Result<u64> {
    let (pages, _) = connection.wal_checkpoint_v2::<&str>(None, CheckpointMode::NOOP)?;
    Ok(u64::try_from(pages).unwrap_or(0))
}

/// Returns the number of pages of the file as of the current transaction.
pub(crate) fn pages(connection: &Connection) -> rusqlite::Result<u64> {
    // Prepared once, because every record asks.
    let mut statement = connection.prepare_cached("PRAGMA page_count")?;
    statement.query_row([], |row| row.get(0)).map(i64::cast_unsigned)
}

/// Returns the number of free pages in the file.
pub(crate) fn free_pages(connection: &Connection) -> rusqlite::Result<u64> {
    let pages: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    Ok(pages.cast_unsigned())
}

/// Returns up to `pages` free pages to the file system.
pub(crate) fn vacuum(connection: &Connection, pages: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    // Each step returns one page.
    while rows.next()?.is_some() {}
    Ok(())
}

/// Returns the sizes in bytes of the file at `path` and of its log, zero for one that cannot be read.
pub(crate) fn sizes(path: &Path) -> (u64, u64) {
    (bytes_of(path).unwrap_or(0), bytes_of(&log_of(path)).unwrap_or(0))
}

/// Returns `path` with `suffix` appended to its file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &tempfile::TempDir) -> OpenFile {
        let file = OpenFile::for_writing(&dir.path().join(JOURNAL), BUSY_TIMEOUT).unwrap();
        format(&file.connection).unwrap();
        prepare_writing(&file).unwrap();
        file
    }

    #[test]
    fn log_is_moved_only_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir);
        let pragma =
            |name| file.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(pragma("synchronous"), 2, "FULL");
        assert_eq!(pragma("wal_autocheckpoint"), 0);
        assert_eq!(pragma("auto_vacuum"), 2, "INCREMENTAL");
        assert_eq!(pragma("page_size").cast_unsigned(), PAGE_BYTES);
    }

    #[test]
    fn free_pages_are_returned() {
        let dir = tempfile::tempdir().unwrap();
        let connection = &open(&dir).connection;
        let sql = "CREATE TABLE t (x BLOB); INSERT INTO t VALUES (zeroblob(400000)); DELETE FROM t";
        connection.execute_batch(sql).unwrap();
        let free = free_pages(connection).unwrap();
        assert!(free > 90, "{free}");
        vacuum(connection, free - 10).unwrap();
        assert_eq!(free_pages(connection).unwrap(), 10);
    }
}
