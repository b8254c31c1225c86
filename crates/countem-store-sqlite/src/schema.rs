//! The tables, and how a file is recognised, created and brought up to date.

use std::path::Path;

use countem_store::StoreError;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::{refused, store_error};

/// Stands in the header of every file that countem made: `cntm`. `file` and `sqlite3` show it.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"cntm");

/// The version of the tables that this countem writes: `PRAGMA user_version`.
pub const SCHEMA_VERSION: usize = MIGRATIONS.len();

/// Step `n` leads from version `n` to `n + 1`. A step that was released is never edited.
pub(crate) const MIGRATIONS: &[&str] = &[V1];

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

/// What the header of a file says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recognised {
    /// An empty database, to which nobody has laid claim.
    Empty,
    /// Made by countem, with the tables of this version.
    Countem(usize),
    /// Somebody else's.
    Foreign,
}

/// Reads whose file this is, without writing to it.
pub(crate) fn recognise(connection: &Connection) -> rusqlite::Result<Recognised> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application_id, version) = (pragma("application_id")?, pragma("user_version")?);
    if application_id == APPLICATION_ID {
        return Ok(usize::try_from(version).map_or(Recognised::Foreign, Recognised::Countem));
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application_id, version, tables) {
        (0, 0, 0) => Recognised::Empty,
        _ => Recognised::Foreign,
    })
}

/// Tells whether the file needs [`migrate`] before it can be used.
///
/// # Errors
/// The file is not ours, or newer than `migrations`.
pub(crate) fn is_outdated(path: &Path, found: Recognised, migrations: &[&str]) -> Result<bool, StoreError> {
    match found {
        Recognised::Foreign => Err(refused(path, "it is a database of another program")),
        Recognised::Countem(version) if version > migrations.len() => {
            let known = migrations.len();
            Err(refused(
                path,
                format_args!(
                    "it was written by a newer countem (schema {version}, this one knows up to {known})"
                ),
            ))
        }
        Recognised::Countem(version) => Ok(version < migrations.len()),
        Recognised::Empty => Ok(true),
    }
}

/// Takes an empty or older file to the newest version, in one transaction.
pub(crate) fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<(), StoreError> {
    let failed = |error| store_error(path, "create the tables of", error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have done it while this one waited for the lock.
    let found = recognise(&transaction).map_err(failed)?;
    if !is_outdated(path, found, migrations)? {
        return Ok(());
    }
    let from = match found {
        Recognised::Countem(version) => version,
        Recognised::Empty | Recognised::Foreign => 0,
    };
    for step in &migrations[from..] {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    transaction.pragma_update(None, "user_version", migrations.len() as i64).map_err(failed)?;
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> i64 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_older_file_is_brought_up_to_date_and_keeps_its_counts() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = Path::new("x.db");
        migrate(&mut connection, path, &[V1]).unwrap();
        connection.execute("INSERT INTO counter VALUES ('c', '2026-11-20', 'm', 7)", []).unwrap();

        let later = [V1, "CREATE TABLE later (x INTEGER) STRICT", "INSERT INTO later VALUES (3)"];
        migrate(&mut connection, path, &later).unwrap();
        migrate(&mut connection, path, &later).unwrap();
        assert_eq!(version(&connection), 3);
        let read = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(read("SELECT value FROM counter"), 7);
        assert_eq!(read("SELECT sum(x) FROM later"), 3);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_old_version() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = Path::new("x.db");
        migrate(&mut connection, path, &[V1]).unwrap();
        let error =
            migrate(&mut connection, path, &[V1, "CREATE TABLE y (x)", "CREATE TABLE y (x)"]).unwrap_err();
        assert!(error.to_string().contains("`x.db`"), "{error}");
        assert_eq!(version(&connection), 1);
        assert_eq!(recognise(&connection).unwrap(), Recognised::Countem(1));
    }

    #[test]
    fn only_an_empty_database_without_an_owner_is_taken() {
        let recognised = |sql| {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(sql).unwrap();
            recognise(&connection).unwrap()
        };
        assert_eq!(recognised(""), Recognised::Empty);
        assert_eq!(recognised("CREATE TABLE t (x)"), Recognised::Foreign);
        assert_eq!(recognised("PRAGMA user_version = 1"), Recognised::Foreign);
        assert_eq!(recognised("PRAGMA application_id = 252006674"), Recognised::Foreign);
    }
}
