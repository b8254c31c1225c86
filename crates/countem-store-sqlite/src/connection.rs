//! Opening the file, for writing or for reading only.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use countem_store::StoreError;
use rusqlite::{Connection, OpenFlags, config::DbConfig, ffi};

use crate::{
    SqliteConfig, Synchronous,
    error::{is_busy, refused, store_error},
    schema::{MIGRATIONS, Recognised, is_outdated, migrate, recognise},
    turn::Turns,
};

/// Memory for pages of the writing connection, in KiB: the counters of a few days of a busy node.
const WRITER_CACHE_KIB: i64 = 64 * 1024;

/// Memory for pages of each reading connection, in KiB. Reads are rare and run in key order.
const READER_CACHE_KIB: i64 = 4 * 1024;

/// After this many pages in the write-ahead log, 16 MiB, a commit moves them into the main file. A page that was written by
/// ten batches is moved once, so a longer log means less writing; and more reading when it has to be recovered.
const CHECKPOINT_PAGES: i64 = 4000;

/// Bytes of write-ahead log that are kept for the next commits; what was needed beyond that is given back.
pub(crate) const LOG_LIMIT: u64 = 64 * 1024 * 1024;

/// A connection and the file that it was opened on.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) connection: Connection,
    path: PathBuf,
    pub(crate) log: PathBuf,
    /// None when it only reads.
    turns: Option<Turns>,
    /// What commits were last said to be about.
    commits: Option<Commits>,
    identity: Option<FileIdentity>,
}

impl OpenFile {
    /// Opens the file for writing. Creates it when it is missing, and brings it up to date when it is older.
    ///
    /// # Errors
    /// The file cannot be used. Nothing was written to it, unless it was empty or older.
    pub(crate) fn for_writing(options: &SqliteConfig) -> Result<Self, StoreError> {
        let path = absolute(&options.path)?;
        check_place(&path)?;
        let had_log = log_of(&path).exists();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = connect(&path, flags, options.busy_timeout)?;
        if let Err(error) = make_usable(&mut connection, &path, options) {
            if had_log {
                // Closing the last connection would move a foreign program's log into its file.
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).ok();
            }
            return Err(error);
        }
        let (log, identity) = (log_of(&path), FileIdentity::of(&path));
        let turns = Turns::new(options.busy_timeout);
        let turns = if options.one_shot { turns.since_start() } else { turns };
        Ok(Self { connection, path, log, turns: Some(turns), commits: None, identity })
    }

    /// Opens the file, which exists and is ours, for reading.
    pub(crate) fn for_reading(options: &SqliteConfig) -> Result<Self, StoreError> {
        let path = absolute(&options.path)?;
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, options.busy_timeout)?;
        connection
            .pragma_update(None, "cache_size", -READER_CACHE_KIB)
            .map_err(|error| store_error(&path, "read", error))?;
        let (log, identity) = (log_of(&path), FileIdentity::of(&path));
        Ok(Self { connection, path, log, turns: None, commits: None, identity })
    }

    /// Tells whether the path still leads to the file of this connection. After the file was moved or deleted, counts
    /// would otherwise go to where nobody finds them.
    pub(crate) fn is_current(&self) -> bool {
        FileIdentity::of(&self.path) == self.identity
    }

    /// Waits for the disk, if that is wanted, before something that was found in the file is relied on. After a process was
    /// killed in a commit, the next one finds in the log what nobody has waited for.
    pub(crate) fn sync_found(&self, synchronous: Synchronous) -> rusqlite::Result<()> {
        if synchronous == Synchronous::Normal {
            return Ok(());
        }
        let log = File::options().read(true).write(true).open(&self.log);
        log.and_then(|log| log.sync_data()).map_err(|error| {
            rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), Some(error.to_string()))
        })
    }

    /// Says what a commit does beyond writing to the log, until something else is said.
    ///
    /// Bookkeeping causes no checkpoint, because that would be the first to call `fsync` for it, and it does so without telling
    /// whether it failed. As it is, the commit of the next counts calls it, and is told.
    pub(crate) fn commit_like(&mut self, commits: Commits) -> rusqlite::Result<()> {
        if self.commits == Some(commits) {
            return Ok(());
        }
        let (synchronous, pages) = match commits {
            Commits::Counts(Synchronous::Full) => ("FULL", CHECKPOINT_PAGES),
            Commits::Counts(Synchronous::Normal) => ("NORMAL", CHECKPOINT_PAGES),
            Commits::Bookkeeping => ("NORMAL", 0),
        };
        // One of the two alone is neither.
        self.commits = None;
        self.connection.pragma_update(None, "synchronous", synchronous)?;
        self.connection.pragma_update(None, "wal_autocheckpoint", pages)?;
        self.commits = Some(commits);
        Ok(())
    }

    /// Waits for the turn to write, and keeps it until [`end_turn`](Self::end_turn) or the end.
    pub(crate) fn begin_turn(&mut self) {
        if let Some(turns) = &mut self.turns {
            turns.begin(&self.log);
        }
    }

    /// Lets the next connection write.
    pub(crate) fn end_turn(&mut self) {
        if let Some(turns) = &mut self.turns {
            turns.end();
        }
    }

    /// Returns the length of the write-ahead log in bytes.
    pub(crate) fn log_len(&self) -> u64 {
        self.log.metadata().map_or(0, |log| log.len())
    }

    /// Closes the connection to a file that was moved or deleted, without touching what now stands in its place.
    pub(crate) fn abandon(mut self) {
        // It would be a turn at the new file.
        self.turns = None;
        // Moves the log into the old file, so that it is whole for whoever moved it. If that fails nobody can be helped.
        self.connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").ok();
        // The log of a new file would have the name that closing deletes.
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).ok();
    }
}

/// The last connection moves the log into the file. Two that close at the same moment would each take the other for one that
/// stays, and leave the log behind; so they close in turn.
impl Drop for OpenFile {
    fn drop(&mut self) {
        self.begin_turn();
    }
}

/// An absolute path is never taken for a URI or one of SQLite's own names, and survives a change of directory.
fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| refused(path, "the path is no path").with_source(error))
}

/// Returns where SQLite keeps the log: beside the file itself, also when the path is a link to it.
fn log_of(path: &Path) -> PathBuf {
    let mut log = path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string();
    log.push("-wal");
    log.into()
}

/// Finds the causes for which SQLite only says that it was unable to open a file.
fn check_place(path: &Path) -> Result<(), StoreError> {
    if let Ok(found) = path.metadata() {
        if found.is_dir() {
            return Err(refused(path, "it is a folder"));
        }
        if !found.is_file() {
            return Err(refused(path, "it is not an ordinary file"));
        }
        // SQLite, for the sake of an old file system, takes a single byte for nothing at all and writes over it.
        if found.len() == 1 {
            return Err(refused(path, "it is no SQLite database"));
        }
    }
    let Some(folder) = path.parent() else { return Ok(()) };
    match folder.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(refused(path, format_args!("`{}` is not a folder", folder.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(refused(path, format_args!("the folder `{}` does not exist", folder.display())))
        }
        Err(error) => Err(refused(path, "its folder cannot be reached").with_source(error)),
    }
}

fn connect(path: &Path, access: OpenFlags, patience: Duration) -> Result<Connection, StoreError> {
    // Every connection stays on one thread, so SQLite need not lock it.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |error| store_error(path, "open", error);
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_handler(Some(wait_for_others(patience))).map_err(failed)?;
    Ok(connection)
}

fn make_usable(connection: &mut Connection, path: &Path, options: &SqliteConfig) -> Result<(), StoreError> {
    let failed = |error| store_error(path, "open", error);
    if connection.is_readonly("main").map_err(failed)? {
        return Err(refused(path, "the file is read-only"));
    }
    // One look: between two, another process may give the file its owner.
    let found = connection.transaction().and_then(|look| recognise(&look)).map_err(failed)?;
    let outdated = is_outdated(path, found, MIGRATIONS)?;
    use_log(connection, found, options.busy_timeout).map_err(failed)?;
    if outdated {
        migrate(connection, path, MIGRATIONS)?;
    }
    if options.one_shot {
        // What follows is for those that stay.
        return Ok(());
    }
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(failed)?;
    connection.pragma_update(None, "journal_size_limit", LOG_LIMIT.cast_signed()).map_err(failed)
}

/// What transactions are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commits {
    /// Counts, which are as safe as was configured.
    Counts(Synchronous),
    /// Bookkeeping that may come back after a power cut.
    Bookkeeping,
}

/// Sees to it that the file has a write-ahead log: one `fsync` per commit, and reads that never wait.
///
/// The mode is part of the file, so this writes only to a new file or to a copy that a tool has made without.
fn use_log(connection: &Connection, found: Recognised, patience: Duration) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    if found == Recognised::Empty {
        connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    }
    // SQLite does not ask its busy handler about this lock.
    let mut wait = wait_for_others(patience);
    let mut count = 0;
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Err(error) if is_busy(&error) && wait(count) => count += 1,
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

/// Bytes per page of a new file.
const PAGE_SIZE: i64 = 4096;

/// Returns a busy handler: sleeps a little and says whether to try again, for up to `patience` each time.
///
/// Locks are held for about one `fsync`, often a fraction of a millisecond. SQLite's own handler sleeps for up to 100 ms between
/// two looks, in which time eight one-shot processes could all have finished.
fn wait_for_others(patience: Duration) -> impl FnMut(i32) -> bool + Send + 'static {
    let mut began = Instant::now();
    move |count| {
        if count == 0 {
            began = Instant::now();
        }
        let left = patience.saturating_sub(began.elapsed());
        std::thread::sleep(left.min(Duration::from_micros(500)));
        !left.is_zero()
    }
}

/// What stays the same as long as a path leads to the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity(u64, u64);

impl FileIdentity {
    #[cfg(unix)]
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        path.metadata().ok().map(|found| Self(found.dev(), found.ino()))
    }

    /// Elsewhere an open file can be neither moved nor deleted.
    #[cfg(not(unix))]
    fn of(_: &Path) -> Option<Self> {
        Some(Self(0, 0))
    }
}
