//! The tables, and recognising the file that has them.

use countem_sqlite::Header;
use rusqlite::Connection;

use crate::{error::ReadError, tables::state::JournalState};

/// Application id in the header of every journal: `cnTj`. `file` and `sqlite3` show it.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"cnTj");

/// Version of the tables that this countem writes: `PRAGMA user_version`.
pub const SCHEMA_VERSION: i32 = 3;

/// Steps of the schema; step `n` leads from version `n` to `n + 1`. A released step is never edited. The columns are described
/// in the crate's documentation.
const STEPS: [&str; SCHEMA_VERSION as usize] = [V1, V2, V3];

/// Requests with an idempotency key.
const V3: &str = "
CREATE TABLE keyed ( -- requests with an idempotency key that are not decided, so that they are not counted yet
    writer TEXT NOT NULL, -- identity of the entry
    lane INTEGER NOT NULL,
    position INTEGER NOT NULL,
    key TEXT NOT NULL,
    body BLOB NOT NULL, -- hash
    expires_at INTEGER NOT NULL, -- in milliseconds since 1970
    counts BLOB NOT NULL, -- as the body of a batch
    increments INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    PRIMARY KEY (writer, lane, position)
) STRICT, WITHOUT ROWID;

ALTER TABLE state ADD COLUMN keyed INTEGER;
";

/// The incarnation, which makes an identity unique, and the numbers that each lane has used.
const V2: &str = "
ALTER TABLE state ADD COLUMN incarnation INTEGER;
ALTER TABLE state ADD COLUMN numbers TEXT;
ALTER TABLE batch ADD COLUMN incarnation INTEGER;
";

const V1: &str = "
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

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recognised {
    /// An empty database of no application.
    Empty,
    /// A journal with the tables of this version.
    Journal,
    /// A journal with the tables of this earlier version.
    Older(i32),
}

/// Reads the kind of a file, without writing to it.
///
/// # Errors
/// A version that this countem does not know is refused; anything else is damage, because the name of the file is ours.
pub(crate) fn recognise(connection: &Connection) -> Result<Recognised, ReadError> {
    let header = Header::read(connection)?;
    match (header.application_id, header.user_version) {
        (APPLICATION_ID, version @ 1..=SCHEMA_VERSION) => match has_our_tables(connection, version)? {
            true if version < SCHEMA_VERSION => Ok(Recognised::Older(version)),
            true => Ok(Recognised::Journal),
            false => Err(ReadError::damaged("its tables are not those of a countem journal")),
        },
        (APPLICATION_ID, version) => Err(ReadError::Refused(format!(
            "its tables are of version {version}, this countem knows version {SCHEMA_VERSION}"
        ))),
        _ if header.is_empty() => Ok(Recognised::Empty),
        _ => Err(ReadError::damaged("it does not say that it is a countem journal")),
    }
}

/// Creates the tables in an empty database, and saves `state` in them.
pub(crate) fn create_tables(connection: &Connection, state: &JournalState) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    STEPS.iter().try_for_each(|step| connection.execute_batch(step))?;
    state.save(connection)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    connection.execute_batch("COMMIT")
}

/// Brings the tables of version `from` up to date. No row is written, so a full disk is no obstacle.
pub(crate) fn migrate(connection: &Connection, from: i32) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let steps = STEPS.iter().skip(from.unsigned_abs() as usize);
    steps.into_iter().try_for_each(|step| connection.execute_batch(step))?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    connection.execute_batch("COMMIT")
}

/// Lets SQLite check the structure of every page.
pub(crate) fn check_structure(connection: &Connection) -> Result<(), ReadError> {
    match connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))? {
        found if found == "ok" => Ok(()),
        found => Err(ReadError::damaged(found.replace('\n', " "))),
    }
}

/// Tells whether the tables are, to the letter, those of `version`.
fn has_our_tables(connection: &Connection, version: i32) -> rusqlite::Result<bool> {
    let model = Connection::open_in_memory()?;
    let steps = STEPS.iter().take(version.unsigned_abs() as usize);
    steps.into_iter().try_for_each(|step| model.execute_batch(step))?;
    Ok(tables_of(connection)? == tables_of(&model)?)
}

fn tables_of(connection: &Connection) -> rusqlite::Result<Vec<(String, String, Option<String>)>> {
    // `ANALYZE` may have added its own tables.
    let mut statement = connection.prepare(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%' ORDER BY type, name",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ErrorKind;

    fn recognised(sql: &str) -> Result<Recognised, ErrorKind> {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(sql).unwrap();
        recognise(&connection).map_err(|error| error.of(Path::new("journal.db")).kind())
    }

    #[test]
    fn only_a_journal_of_this_version_is_used() {
        let ours = |steps: &[&str]| format!("{}; PRAGMA application_id = {APPLICATION_ID}", steps.concat());
        let (older, ours) = (ours(&[V1]), ours(&STEPS));
        assert_eq!(recognised(""), Ok(Recognised::Empty));
        assert_eq!(recognised(&format!("{older}; PRAGMA user_version = 1")), Ok(Recognised::Older(1)));
        assert_eq!(recognised(&format!("{ours}; PRAGMA user_version = 3")), Ok(Recognised::Journal));
        assert_eq!(recognised(&format!("{ours}; PRAGMA user_version = 4")), Err(ErrorKind::Refused));
        assert_eq!(recognised("CREATE TABLE t (x)"), Err(ErrorKind::Corrupt));
        let altered = format!("{ours}; PRAGMA user_version = 3; ALTER TABLE pending ADD COLUMN x INTEGER");
        assert_eq!(recognised(&altered), Err(ErrorKind::Corrupt));
    }
}
