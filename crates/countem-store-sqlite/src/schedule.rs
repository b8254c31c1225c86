//! The recorded schedules.

use countem_core::Schedules;
use countem_store::{ErrorKind, StoreError};
use rusqlite::{Connection, TransactionBehavior, params};

/// Returns the recorded lines, none in a file that was never written by a countem that records them.
pub(crate) fn lines(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schedule')";
    if !connection.prepare_cached(exists)?.query_row([], |row| row.get(0))? {
        return Ok(Vec::new());
    }
    let mut select = connection.prepare_cached("SELECT line FROM schedule ORDER BY revision")?;
    let lines = select.query_map([], |row| row.get(0))?;
    lines.collect()
}

/// Appends the last line of `schedules` if the file has all before, and returns the lines that it has then.
pub(crate) fn record(connection: &mut Connection, schedules: &Schedules) -> rusqlite::Result<Vec<String>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut recorded = lines(&transaction)?;
    let text = schedules.to_string();
    if let Some(line) = text.lines().last().filter(|_| recorded.len() + 1 == schedules.revision()) {
        let insert = "INSERT INTO schedule (revision, line) VALUES (?1, ?2)";
        transaction.execute(insert, params![schedules.revision() as i64, line])?;
        recorded.push(line.to_owned());
    }
    transaction.commit()?;
    Ok(recorded)
}

/// Describes a record that cannot be read.
pub(crate) fn unreadable(error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error)
}

/// Returns the schedules of recorded lines, `None` when there are none.
pub(crate) fn parse(lines: &[String]) -> Result<Option<Schedules>, StoreError> {
    if lines.is_empty() {
        return Ok(None);
    }
    let parsed = lines.join("\n").parse::<Schedules>();
    parsed.map(Some).map_err(|error| StoreError::new(ErrorKind::Refused, error.to_string()))
}
