//! The table `retired`: writers that have ended. Their rows in `applied` go two days later, by the same path as those of a writer
//! that is forgotten, so that they are known as such for ever.
//!
//! A clock that is set must not make a writer old. So the file has a clock of its own, in the table `clock`: whenever writers retire
//! or are pruned, it moves as the system's clock has since, in either direction, at most by [`MAX_STEP`]. It goes back as well, so
//! that two processes whose clocks differ, or a clock that is set ahead and back again, do not add up to two days. In a backup that
//! is restored it goes on where it was, and what the backup knows is pruned later.

use std::time::SystemTime;

use countem_core::Writer;
use rusqlite::{Connection, TransactionBehavior, params};

use crate::register;

/// Age in milliseconds at which a retired writer is forgotten. Longer than a journal keeps batches for a replay.
const RETENTION: i64 = 48 * HOUR;
/// Maximum step of the file's clock in milliseconds.
const MAX_STEP: i64 = 12 * HOUR;
const HOUR: i64 = 3600 * 1000;
/// Maximum number of writers that one transaction forgets.
const MAX_WRITERS: u32 = 100;

const ADVANCE: &str = "INSERT INTO clock (one, seen, elapsed) VALUES (1, ?1, 0)
    ON CONFLICT DO UPDATE SET elapsed = elapsed + min(max(?1 - seen, -?2), ?2), seen = ?1 RETURNING elapsed";
const RETIRE: &str = "INSERT OR REPLACE INTO retired (writer, at)
    SELECT DISTINCT writer, ?2 FROM applied WHERE writer = ?1";
const REMAINING: &str = "SELECT DISTINCT writer FROM applied
    WHERE writer BETWEEN ?1 || '-' AND ?1 || '.' AND writer NOT IN (SELECT writer FROM retired)";
const ANY: &str = "SELECT 1 FROM retired";
const OLD: &str = "SELECT writer FROM retired WHERE at <= ?1 LIMIT ?2";
const REMOVE: &str = "DELETE FROM retired WHERE writer = ?1";

/// Retires `writer`, unless nothing is known of it.
pub(crate) fn retire(connection: &mut Connection, writer: &Writer) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now = advance(&transaction, system_time())?;
    transaction.execute(RETIRE, params![writer.as_str(), now])?;
    transaction.commit()
}

/// Retires the earlier writers of the node of `writer`; those that are retired already grow no younger.
pub(crate) fn retire_predecessors(connection: &mut Connection, writer: &Writer) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let remaining = writers(&transaction, REMAINING, [register::node(writer)])?;
    let now = advance(&transaction, system_time())?;
    for earlier in remaining.iter().filter(|other| other.epoch() < writer.epoch()) {
        transaction.execute(RETIRE, params![earlier.as_str(), now])?;
    }
    transaction.commit()
}

/// Forgets some of the writers that are retired for long enough, and returns true if there may be more.
pub(crate) fn prune(connection: &mut Connection) -> rusqlite::Result<bool> {
    if !connection.prepare_cached(ANY)?.exists([])? {
        return Ok(false);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now = advance(&transaction, system_time())?;
    let old = writers(&transaction, OLD, params![now - RETENTION, MAX_WRITERS])?;
    for writer in &old {
        register::delete(&transaction, writer)?;
        transaction.execute(REMOVE, [writer.as_str()])?;
    }
    transaction.commit()?;
    Ok(old.len() >= MAX_WRITERS as usize)
}

/// Advances the file's clock, and returns its time in milliseconds.
fn advance(connection: &Connection, system_time: i64) -> rusqlite::Result<i64> {
    connection.prepare_cached(ADVANCE)?.query_row([system_time, MAX_STEP], |row| row.get(0))
}

fn writers(
    connection: &Connection,
    select: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Writer>> {
    let mut statement = connection.prepare(select)?;
    let texts = statement.query_map(parameters, |row| row.get::<_, String>(0))?;
    texts.filter_map(|text| text.map(|text| text.parse().ok()).transpose()).collect()
}

/// Returns the milliseconds since 1970 that the system's clock shows.
fn system_time() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::schema::{MIGRATIONS, migrate};

    #[test]
    fn clock_that_is_set_makes_no_writer_old() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x.db"), MIGRATIONS).unwrap();
        let at = |hours: i64| advance(&connection, hours * HOUR).unwrap() / HOUR;
        let noon = 500_000;
        assert_eq!(at(noon), 0);
        assert_eq!(at(noon + 5), 5);
        assert_eq!(at(noon - 10_000), -7, "set back");
        assert_eq!(at(noon - 9_999), -6);
        assert_eq!(at(noon + 90_000), 6, "set ahead by ten years");
        assert_eq!(at(noon + 90_001), 7);
        for _ in 0..100 {
            assert!(at(noon + 90_003) <= 9, "of two processes");
            assert!(at(noon + 90_001) <= 7, "whose clocks differ");
        }
    }
}
