//! The register of writers: one row for each node that keeps a journal. It notices a copied or restored journal.

use countem_core::Writer;
use countem_store::Registration;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::quarantine;

const NEWEST: &str = "SELECT epoch, writer FROM register WHERE node = ?1";
const SET: &str = "INSERT INTO register (node, epoch, writer) VALUES (?1, ?2, ?3)
    ON CONFLICT DO UPDATE SET epoch = excluded.epoch, writer = excluded.writer";
const FORGET: &str = "UPDATE register SET forgotten = max(coalesce(forgotten, ?2), ?2) WHERE node = ?1";
const FORGOTTEN: &str = "SELECT 1 FROM register WHERE node = ?1 AND forgotten >= ?2";

/// Registers `writer` unless another start of its node that is as new was registered; see
/// [`Store::register`](countem_store::Store::register).
pub(crate) fn register(connection: &mut Connection, writer: &Writer) -> rusqlite::Result<Registration> {
    let epoch = writer.epoch().cast_signed();
    if let Some(known) = compare(connection, writer)? {
        return Ok(known);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have registered while this one waited for the lock.
    let known = compare(&transaction, writer)?;
    if known.is_none() {
        transaction.prepare_cached(SET)?.execute(params![node(writer), epoch, writer.as_str()])?;
        transaction.commit()?;
    }
    Ok(known.unwrap_or(Registration::Fresh))
}

/// Compares `writer` with the newest writer of its node; `None` when it is newer.
fn compare(connection: &Connection, writer: &Writer) -> rusqlite::Result<Option<Registration>> {
    let mut statement = connection.prepare_cached(NEWEST)?;
    let newest =
        statement.query_row([node(writer)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
    Ok(match newest.optional()? {
        Some((_, known)) if known == writer.as_str() => Some(Registration::Fresh),
        Some((epoch, _)) if epoch >= writer.epoch().cast_signed() => Some(Registration::Cloned),
        _ => None,
    })
}

/// Deletes the bookkeeping of `writer`, and remembers that it is gone if the writer was registered.
pub(crate) fn forget(connection: &mut Connection, writer: &Writer) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    delete(&transaction, writer)?;
    transaction.commit()
}

/// Does the same in a transaction of the caller's.
pub(crate) fn delete(connection: &Connection, writer: &Writer) -> rusqlite::Result<()> {
    connection.prepare_cached(FORGET)?.execute(params![node(writer), writer.epoch().cast_signed()])?;
    connection.execute("DELETE FROM applied WHERE writer = ?1", [writer.as_str()])?;
    quarantine::delete_reports_of(connection, writer.as_str())
}

/// Tells whether a batch of `writer` that was added would be recognised.
pub(crate) fn remembers(connection: &Connection, writer: &Writer) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(FORGOTTEN)?;
    statement.exists(params![node(writer), writer.epoch().cast_signed()]).map(|forgotten| !forgotten)
}

/// Returns the text form of the node of `writer`, with which its own begins.
pub(crate) fn node(writer: &Writer) -> String {
    format!("{:016x}", writer.node())
}
