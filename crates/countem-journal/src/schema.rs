//! The tables, and how a journal is recognised and created.

use std::path::Path;

use rusqlite::Connection;

use crate::error::JournalError;

/// Stands in the header of every journal: `cnTj`. `file` and `sqlite3` show it.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"cnTj");

/// The version of the tables that this countem writes: `PRAGMA user_version`.
pub const SCHEMA_VERSION: i32 = 1;

/// The tables. The columns are described in the crate's documentation.
pub(crate) const TABLES: &str = "
CREATE TABLE state ( -- one row, written anew by every transaction
    one INTEGER PRIMARY KEY CHECK (one = 1),
    node TEXT NOT NULL, -- 16 hexadecimal digits
    epoch INTEGER NOT NULL,
    lanes INTEGER NOT NULL,
    born INTEGER, -- when this file was created, in nanoseconds since 1970
    host TEXT,
    tick INTEGER NOT NULL,
    pending INTEGER NOT NULL, -- digests of the tables
    frozen INTEGER NOT NULL,
    quarantined INTEGER NOT NULL,
    digest INTEGER NOT NULL -- of this row
) STRICT;

CREATE TABLE pending ( -- accepted and in no batch yet
    lane INTEGER NOT NULL,
    collection TEXT NOT NULL,
    bucket TEXT NOT NULL, -- such as 2026-11-20, 2026-11-20T14, 2026-W47, 2026-11, 2026, all
    metric TEXT NOT NULL,
    n INTEGER NOT NULL,
    increments INTEGER NOT NULL,
    PRIMARY KEY (lane, collection, bucket, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE batch ( -- frozen: never changed again
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    counters INTEGER NOT NULL,
    increments INTEGER NOT NULL,
    digest INTEGER NOT NULL, -- of identity and body
    body BLOB NOT NULL,
    UNIQUE (node, epoch, lane, seq)
) STRICT;

CREATE TABLE resolved ( -- batches that are in the store, kept for a while
    batch INTEGER PRIMARY KEY,
    at INTEGER NOT NULL -- in milliseconds since 1970
) STRICT;

CREATE TABLE quarantined ( -- what could not be added, and why; kept until a person retries or drops it
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    writer TEXT, -- identity of the batch, if it was in one
    lane INTEGER,
    seq INTEGER,
    collection TEXT NOT NULL,
    bucket TEXT NOT NULL,
    metric TEXT NOT NULL,
    n INTEGER NOT NULL,
    increments INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
";

/// What the header of a file says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recognised {
    /// An empty database, to which nobody has laid claim.
    Empty,
    /// A journal with the tables of this version.
    Journal,
}

/// Reads whose file this is, without writing to it.
///
/// # Errors
/// A version that this countem does not know is refused; anything else is damage, because the name of the file is ours.
pub(crate) fn recognise(connection: &Connection, path: &Path) -> Result<Recognised, JournalError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let read = || -> rusqlite::Result<_> {
        let tables =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        Ok((pragma("application_id")?, pragma("user_version")?, tables))
    };
    let found = read().map_err(|error| at_open(path, &error))?;
    match found {
        (APPLICATION_ID, SCHEMA_VERSION, _) => {
            check_tables(connection, path)?;
            Ok(Recognised::Journal)
        }
        (APPLICATION_ID, version, _) => Err(JournalError::refused(
            path,
            format_args!("its tables are of version {version}, this countem knows version {SCHEMA_VERSION}"),
        )),
        (0, 0, 0) => Ok(Recognised::Empty),
        _ => Err(JournalError::corrupt(path, "it does not say that it is a countem journal")),
    }
}

/// Describes a failure of reading a journal that nobody uses yet.
pub(crate) fn at_open(path: &Path, error: &rusqlite::Error) -> JournalError {
    if crate::error::is_corrupt_at_open(error) {
        return JournalError::corrupt(path, error);
    }
    JournalError::sqlite(path, "open the journal", error)
}

/// Checks that the tables are, to the letter, those of this version.
fn check_tables(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let expected = || {
        let model = Connection::open_in_memory()?;
        model.execute_batch(TABLES)?;
        tables_of(&model)
    };
    let expected = expected().map_err(|error| JournalError::sqlite(path, "check the tables of", &error))?;
    let found = tables_of(connection).map_err(|error| at_open(path, &error))?;
    if found != expected {
        return Err(JournalError::corrupt(path, "its tables are not those of a countem journal"));
    }
    Ok(())
}

fn tables_of(connection: &Connection) -> rusqlite::Result<Vec<(String, String, Option<String>)>> {
    // What `ANALYZE` adds harms nobody.
    let mut statement = connection.prepare(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn recognised(sql: &str) -> Result<Recognised, ErrorKind> {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        recognise(&connection, Path::new("journal.db")).map_err(|error| error.kind())
    }

    #[test]
    fn only_a_journal_of_this_version_is_used() {
        let ours = format!("{TABLES}; PRAGMA application_id = {APPLICATION_ID}");
        assert_eq!(recognised(""), Ok(Recognised::Empty));
        assert_eq!(recognised(&format!("{ours}; PRAGMA user_version = 1")), Ok(Recognised::Journal));
        assert_eq!(recognised(&format!("{ours}; PRAGMA user_version = 2")), Err(ErrorKind::Refused));
        assert_eq!(recognised("CREATE TABLE t (x)"), Err(ErrorKind::Corrupt));
        let altered = format!("{ours}; PRAGMA user_version = 1; ALTER TABLE pending ADD COLUMN x INTEGER");
        assert_eq!(recognised(&altered), Err(ErrorKind::Corrupt));
    }
}
