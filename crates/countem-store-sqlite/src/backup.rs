//! Copies of a file that is written meanwhile.

use std::path::Path;

use countem_core::{Bucket, BucketError};
use countem_store::StoreError;
use rusqlite::{Connection, OpenFlags, backup::Backup, types::Type};

use crate::{SqliteConfig, error::store_error, open};

/// A stored counter: collection, bucket, metric, value.
type Counter<'a> = (&'a str, Bucket, &'a str, i64);

/// Copies one state of a store to the empty file `to`, and calls `each` for every counter of this state.
///
/// # Errors
/// The store cannot be read, or the file cannot be written.
pub fn create(config: &SqliteConfig, to: &Path, each: impl FnMut(Counter<'_>)) -> Result<(), StoreError> {
    let failed = |error| store_error(&config.path, "read", error);
    let file = open::for_reading(config)?;
    let source = file.connection.unchecked_transaction().map_err(failed)?;
    list(&source, &config.path, each)?;
    let written = |error| store_error(to, "write", error);
    let mut target = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(written)?;
    // Within the transaction, all steps copy the state that was listed.
    let copying = Backup::new(&source, &mut target).map_err(written)?;
    copying.run_to_completion(1024, std::time::Duration::ZERO, None).map_err(written)?;
    drop(copying);
    target.close().map_err(|(_, error)| written(error))
}

/// Calls `each` for every counter of the copy at `path`, which is used by nothing else.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path, each: impl FnMut(Counter<'_>)) -> Result<(), StoreError> {
    let failed = |error| store_error(path, "read", error);
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    list(&connection, path, each)?;
    connection.close().map_err(|(_, error)| failed(error))
}

fn list(connection: &Connection, path: &Path, mut each: impl FnMut(Counter<'_>)) -> Result<(), StoreError> {
    let select = "SELECT collection, bucket, metric, value FROM counter";
    let list = || {
        let mut select = connection.prepare(select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let text = |at| Ok::<_, rusqlite::Error>(row.get_ref(at)?.as_str()?);
            let bucket = text(1)?.parse().map_err(|error: BucketError| {
                rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error))
            })?;
            each((text(0)?, bucket, text(2)?, row.get(3)?));
        }
        Ok(())
    };
    let mut list = list;
    list().map_err(|error| store_error(path, "read", error))
}
