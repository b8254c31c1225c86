//! The tables: recognising a file, creating it and bringing it up to date.

use std::path::Path;

use countem_sqlite::Header;
use countem_store::StoreError;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::{refused, store_error};

/// Mark in the header of every file that countem made: `cntm`. `file` and `sqlite3` show it.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"cntm");

/// The version of the tables that this countem writes: `PRAGMA user_version`.
pub const SCHEMA_VERSION: usize = MIGRATIONS.len();

/// Steps of the schema; step `n` leads from version `n` to `n + 1`. A released step is never edited.
pub(crate) const MIGRATIONS: &[&str] = &[V1, V2, V3, V4, V5, V6, V7];

const V1: &str = "
CREATE TABLE counter (
    collection TEXT NOT NULL,
    bucket TEXT NOT NULL, -- such as 2026-11-20, 2026-11-20T14, 2026-W47, 2026-11, 2026, all
    metric TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (collection, bucket, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE applied ( -- the newest batch of every lane of every writer
    writer TEXT NOT NULL,
    lane INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (writer, lane)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantined ( -- what could not be added, and why; kept until a person deletes it
    writer TEXT NOT NULL,
    lane INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    collection TEXT NOT NULL,
    bucket TEXT NOT NULL,
    metric TEXT NOT NULL,
    n INTEGER NOT NULL,
    increments INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (writer, lane, seq, collection, bucket, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE mark ( -- facts that became true together with counts, such as how far a file was read
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

const V2: &str = "
CREATE TABLE register ( -- the newest writer of every node that keeps a journal
    node TEXT NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    writer TEXT NOT NULL,
    forgotten INTEGER -- epoch up to which batches of this node are not recognised any more
) STRICT, WITHOUT ROWID;
";

const V3: &str = "
CREATE TABLE schedule ( -- zone and stored periods, with every change since the first count
    revision INTEGER NOT NULL PRIMARY KEY,
    line TEXT NOT NULL -- such as `beginning UTC day` or `2026-11-21T00:00:00Z Europe/Berlin hour,day`
) STRICT;
";

const V4: &str = "
-- A journal keeps what was quarantined; the row only repeats the report of its batch.
ALTER TABLE quarantined ADD COLUMN journaled INTEGER NOT NULL DEFAULT 0;
";

const V5: &str = "
CREATE TABLE retired ( -- writers that have ended: their rows in `applied` go two days later
    writer TEXT NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL -- time of `clock`
) STRICT, WITHOUT ROWID;

CREATE TABLE clock ( -- of retirements; one row
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seen INTEGER NOT NULL, -- the time of the system, in milliseconds since 1970, when this clock advanced
    elapsed INTEGER NOT NULL -- in milliseconds
) STRICT;
";

const V6: &str = "
CREATE TABLE removed ( -- one row once expired buckets were removed: those that had expired by then take no count again
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    second INTEGER NOT NULL -- since 1970
) STRICT;
";

const V7: &str = "
CREATE TABLE claim ( -- idempotency keys of requests, and the entry that counts each
    key TEXT NOT NULL PRIMARY KEY,
    body BLOB NOT NULL, -- hash
    by TEXT NOT NULL, -- writer, lane and position of the entry
    expires_at INTEGER NOT NULL -- in milliseconds since 1970
) STRICT, WITHOUT ROWID;

CREATE INDEX claim_by_expiry ON claim (expires_at);
";

/// Returns the version of the tables, zero for an empty file, without writing to it.
///
/// # Errors
/// The file belongs to another program, or its version is newer than `known`.
pub(crate) fn version(connection: &Connection, path: &Path, known: usize) -> Result<usize, StoreError> {
    let header = Header::read(connection).map_err(|error| store_error(path, "open", error))?;
    match usize::try_from(header.user_version) {
        _ if header.is_empty() => Ok(0),
        Ok(found) if header.application_id == APPLICATION_ID && found <= known => Ok(found),
        Ok(found) if header.application_id == APPLICATION_ID => Err(refused(
            path,
            format_args!("it was written by a newer countem (schema {found}, this one knows up to {known})"),
        )),
        _ => Err(refused(path, "it is a database of another program")),
    }
}

/// Brings an empty or older file to the newest version, in one transaction.
pub(crate) fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<(), StoreError> {
    let failed = |error| store_error(path, "create the tables of", error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have migrated the file while this one waited for the lock.
    let found = version(&transaction, path, migrations.len())?;
    if found == migrations.len() {
        return Ok(());
    }
    for step in &migrations[found..] {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    transaction.pragma_update(None, "user_version", migrations.len() as i64).map_err(failed)?;
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use countem_core::Writer;

    use super::*;
    use crate::retired;

    #[test]
    fn older_file_is_migrated_and_keeps_its_counts() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = Path::new("x.db");
        migrate(&mut connection, path, &[V1]).unwrap();
        connection.execute("INSERT INTO counter VALUES ('c', '2026-11-20', 'm', 7)", []).unwrap();

        let later = [V1, "CREATE TABLE later (x INTEGER) STRICT", "INSERT INTO later VALUES (3)"];
        migrate(&mut connection, path, &later).unwrap();
        migrate(&mut connection, path, &later).unwrap();
        assert_eq!(version(&connection, path, 3).unwrap(), 3);
        let read = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(read("SELECT value FROM counter"), 7);
        assert_eq!(read("SELECT sum(x) FROM later"), 3);
    }

    #[test]
    fn file_of_the_fourth_version_is_migrated() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = Path::new("x.db");
        migrate(&mut connection, path, &MIGRATIONS[..4]).unwrap();
        connection.execute("INSERT INTO applied VALUES ('00000000000000ff-1', 0, 7)", []).unwrap();
        assert!(version(&connection, path, SCHEMA_VERSION).is_ok_and(|found| found == 4));
        migrate(&mut connection, path, MIGRATIONS).unwrap();
        let later = Writer::incarnation(255, 2, 9);
        retired::retire_predecessors(&mut connection, &later).unwrap();
        let read = |sql| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(read("SELECT writer FROM retired"), "00000000000000ff-1");
        let error = version(&connection, path, 4).unwrap_err();
        assert!(error.to_string().contains("newer countem"), "{error}");
    }

    #[test]
    fn failed_migration_leaves_the_old_version() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = Path::new("x.db");
        migrate(&mut connection, path, &[V1]).unwrap();
        let error =
            migrate(&mut connection, path, &[V1, "CREATE TABLE y (x)", "CREATE TABLE y (x)"]).unwrap_err();
        assert!(error.to_string().contains("`x.db`"), "{error}");
        assert_eq!(version(&connection, path, 1).unwrap(), 1);
    }

    #[test]
    fn only_empty_database_without_owner_is_taken() {
        let found = |sql: &str| {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(sql).unwrap();
            version(&connection, Path::new("x.db"), 1).ok()
        };
        assert_eq!(found(""), Some(0));
        assert_eq!(
            found(&format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1")),
            Some(1)
        );
        for foreign in ["CREATE TABLE t (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 252006674"]
        {
            assert_eq!(found(foreign), None, "{foreign}");
        }
    }
}
