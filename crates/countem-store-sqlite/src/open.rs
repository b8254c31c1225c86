//! Opening the file, for writing or for reading only.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use countem_sqlite::{OpenFile, log_of};
use countem_store::StoreError;

use crate::{
    SqliteConfig, Synchronous,
    error::{refused, store_error},
    schema::{MIGRATIONS, migrate, version},
};

/// Memory for pages of the writing connection, in KiB: the counters of a few days of a busy node.
const WRITER_CACHE_KIB: i64 = 64 * 1024;

/// Memory for pages of each reading connection, in KiB. Reads are rare and run in key order.
const READER_CACHE_KIB: i64 = 4 * 1024;

/// Number of pages in the write-ahead log, 16 MiB, after which a commit moves them into the main file. A page that was written
/// by ten batches is moved once, so a longer log means less writing; and more reading when it has to be recovered.
const CHECKPOINT_PAGES: i64 = 4000;

/// Bytes of write-ahead log that are kept for the next commits; a longer log gives the rest back.
pub(crate) const LOG_LIMIT: u64 = 64 * 1024 * 1024;

/// Opens the file for writing. Creates it when it is missing, and brings it up to date when it is older.
///
/// # Errors
/// The file cannot be used. Nothing was written to it, unless it was empty or older.
pub(crate) fn for_writing(config: &SqliteConfig) -> Result<OpenFile, StoreError> {
    let path = absolute(&config.path)?;
    check_path(&path)?;
    let had_log = log_of(&path).exists();
    let mut file = OpenFile::for_writing(&path, config.busy_timeout)
        .map_err(|error| store_error(&path, "open", error))?;
    match make_usable(&mut file, &path, config.synchronous) {
        Ok(()) => Ok(file),
        Err(error) => {
            if had_log {
                // Closing the last connection would move a foreign program's log into its file.
                file.close_untouched();
            }
            Err(error)
        }
    }
}

/// Opens the file, which exists and is ours, for reading.
pub(crate) fn for_reading(config: &SqliteConfig) -> Result<OpenFile, StoreError> {
    let path = absolute(&config.path)?;
    let failed = |error| store_error(&path, "read", error);
    let file = OpenFile::for_reading(&path, config.busy_timeout).map_err(failed)?;
    file.connection.pragma_update(None, "cache_size", -READER_CACHE_KIB).map_err(failed)?;
    Ok(file)
}

/// Opens the file, which this process may not write or whose folder it may not, for reading.
pub(crate) fn for_reading_only(config: &SqliteConfig) -> Result<OpenFile, StoreError> {
    let path = absolute(&config.path)?;
    check_path(&path)?;
    let failed = |error| store_error(&path, "read", error);
    let log = log_of(&path);
    if log.exists() && File::open(&log).is_err() {
        let why = "may not be read by this user, and the newest counts are in it";
        return Err(refused(&path, format_args!("its log `{}` {why}", log.display())));
    }
    let file = OpenFile::for_reading_only(&path, config.busy_timeout).map_err(failed)?;
    file.connection.pragma_update(None, "cache_size", -READER_CACHE_KIB).map_err(failed)?;
    let (found, known) = (version(&file.connection, &path, MIGRATIONS.len())?, MIGRATIONS.len());
    if found < known {
        let why = format_args!(
            "it has the tables of an older countem (schema {found}, this one reads {known}); open it once with the right to write it"
        );
        return Err(refused(&path, why));
    }
    Ok(file)
}

/// Tells whether this process may write the file and what lies beside it.
pub(crate) fn is_writable(config: &SqliteConfig) -> bool {
    absolute(&config.path).is_ok_and(|path| countem_sqlite::is_writable(&path))
}

fn make_usable(file: &mut OpenFile, path: &Path, synchronous: Synchronous) -> Result<(), StoreError> {
    let failed = |error| store_error(path, "open", error);
    if file.connection.is_readonly("main").map_err(failed)? {
        return Err(refused(path, "the file is read-only"));
    }
    let found = version(&file.connection, path, MIGRATIONS.len())?;
    file.prepare_writing().map_err(failed)?;
    if found < MIGRATIONS.len() {
        migrate(&mut file.connection, path, MIGRATIONS)?;
    }
    let set = || {
        if synchronous == Synchronous::Normal {
            file.connection.pragma_update(None, "synchronous", "NORMAL")?;
        }
        file.connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        file.connection.pragma_update(None, "journal_size_limit", LOG_LIMIT.cast_signed())?;
        file.connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)
    };
    set().map_err(failed)
}

/// An absolute path is never taken for a URI or one of SQLite's own names, and survives a change of directory.
fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| refused(path, "the path is no path").with_source(error))
}

/// Finds the causes for which SQLite only says that it was unable to open a file.
fn check_path(path: &Path) -> Result<(), StoreError> {
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
    if path.is_symlink() {
        // The log lies beside the file itself: a link that is moved would part the two.
        let target = path.canonicalize().or_else(|_| path.read_link()).unwrap_or_default();
        return Err(refused(path, format_args!("it is a link; point the store at `{}`", target.display())));
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
