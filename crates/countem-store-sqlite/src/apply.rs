//! The transaction that adds a batch.

use std::{fmt::Write as _, sync::LazyLock};

use countem_core::{Batch, BatchId, Group, Quarantined};
use countem_store::Applied;
use rusqlite::{
    CachedStatement, Connection, Error, OptionalExtension as _, Transaction, TransactionBehavior, params,
};

use crate::{
    quarantine, register,
    removed::{self, Removed},
};

const APPLIED: &str = "SELECT seq FROM applied WHERE writer = ?1 AND lane = ?2";
const SET_APPLIED: &str = "INSERT OR REPLACE INTO applied (writer, lane, seq) VALUES (?1, ?2, ?3)";
const MARK: &str = "SELECT value FROM mark WHERE key = ?1";
const SET_MARK: &str = "INSERT OR REPLACE INTO mark (key, value) VALUES (?1, ?2)";
const REMOVE_MARK: &str = "DELETE FROM mark WHERE key = ?1";
const STORED_FROM: &str = "SELECT metric, value FROM counter
    WHERE collection = ?1 AND bucket = ?2 AND metric >= ?3 ORDER BY metric";
const SET_ONE: &str =
    "INSERT OR REPLACE INTO counter (collection, bucket, metric, value) VALUES (?1, ?2, ?3, ?4)";

/// Number of counters that one statement sets. Half of the time of a statement with one counter is spent on starting and ending it.
const PER_STATEMENT: usize = 32;

static SET_SEVERAL: LazyLock<String> = LazyLock::new(|| {
    let mut sql = SET_ONE.to_owned();
    for index in 1..PER_STATEMENT {
        let (metric, value) = (3 + 2 * index, 4 + 2 * index);
        write!(sql, ", (?1, ?2, ?{metric}, ?{value})").expect("writing to a string does not fail");
    }
    sql
});

/// Maximum number of stored counters between two of the batch that are read over; otherwise the next one is looked up.
const MAX_READ_OVER: usize = 6;

/// Stage at which a batch failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was stored.
    BeforeCommit(Error),
    /// The commit itself failed.
    Commit(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::BeforeCommit(error)
    }
}

/// Result of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in the file, and the commit waited for the disk if commits do.
    Added(Applied),
    /// It was in the file already, but perhaps not yet on the disk: the process that committed it may have been killed before its `fsync`.
    Found(Applied),
    /// The mark is not where the batch expects it. Nothing was stored.
    Conflict,
}

/// Adds `batch` in one transaction, unless it was added before.
///
/// From the first read of `applied` to the commit, no other connection can write. That makes it safe to read the counters, to add
/// here, where overflow is seen exactly, and to set the sums: in about 60 % of the time that SQL needs to add.
pub(crate) fn apply(connection: &mut Connection, batch: &Batch) -> Result<Outcome, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let outcome = add_batch(&transaction, batch)?;
    if let Outcome::Added(_) = outcome {
        transaction.commit().map_err(Failure::Commit)?;
    }
    Ok(outcome)
}

/// Adds `batch` in a transaction of the caller, unless it was added before.
pub(crate) fn add_batch(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<Outcome> {
    let id = batch.id();
    if let Some(applied) = already_applied(transaction, id)? {
        return Ok(Outcome::Found(applied));
    }
    if !register::remembers(transaction, &id.writer)? {
        return refuse_forgotten(transaction, batch);
    }
    if let Some(mark) = batch.mark() {
        let found: Option<String> =
            transaction.prepare_cached(MARK)?.query_row([&mark.key], |row| row.get(0)).optional()?;
        if found != mark.expected {
            return Ok(Outcome::Conflict);
        }
    }
    let mut any_quarantined = false;
    let gone = Removed::read(transaction)?;
    for group in batch.groups() {
        if gone.as_ref().is_some_and(|gone| gone.holds(group.collection(), group.bucket())) {
            let reason = removed::reason(group.bucket());
            for delta in group.deltas() {
                quarantine::add(transaction, batch.id(), batch.is_journaled(), delta, &reason)?;
            }
            any_quarantined = true;
            continue;
        }
        any_quarantined |= add(transaction, batch, group)?;
    }
    if let Some(mark) = batch.mark() {
        match &mark.value {
            Some(value) => transaction.prepare_cached(SET_MARK)?.execute([&mark.key, value])?,
            None => transaction.prepare_cached(REMOVE_MARK)?.execute([&mark.key])?,
        };
    }
    if batch.is_journaled() {
        quarantine::delete_reported(transaction, id)?;
    }
    let seq = id.seq.cast_signed();
    transaction.prepare_cached(SET_APPLIED)?.execute(params![id.writer.as_str(), id.lane, seq])?;
    // Read back instead of collected, so that a repetition reports the same in the same order.
    let quarantined = if any_quarantined { quarantine::of_batch(transaction, id)? } else { Vec::new() };
    Ok(Outcome::Added(Applied { quarantined }))
}

/// Quarantines a batch of a forgotten writer as a whole: it may have been added before, by a process that was cut off meanwhile, or
/// whose journal was copied. Looking for it in the transaction of the counts leaves no moment in which it could slip in.
fn refuse_forgotten(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<Outcome> {
    let id = batch.id();
    let reason = format!("batch {id} is so old that the store may have added and forgotten it");
    if !batch.is_journaled() {
        for delta in batch.deltas() {
            quarantine::add(transaction, id, false, delta, &reason)?;
        }
    }
    let quarantined = batch.deltas().map(|delta| Quarantined::new(delta, reason.as_str())).collect();
    Ok(Outcome::Added(Applied { quarantined }))
}

/// Returns the result of the batch `id` when it, or a later one of its lane, was applied.
pub(crate) fn already_applied(connection: &Connection, id: &BatchId) -> rusqlite::Result<Option<Applied>> {
    match applied_seq(connection, id)? {
        Some(seq) if seq == id.seq => {
            Ok(Some(Applied { quarantined: quarantine::of_batch(connection, id)? }))
        }
        Some(seq) if seq > id.seq => Ok(Some(Applied::default())),
        _ => Ok(None),
    }
}

/// Returns the position of the newest batch that was applied of the lane of `id`.
pub(crate) fn applied_seq(connection: &Connection, id: &BatchId) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection.prepare_cached(APPLIED)?;
    let seq =
        statement.query_row(params![id.writer.as_str(), id.lane], |row| row.get::<_, i64>(0)).optional()?;
    Ok(seq.map(i64::cast_unsigned))
}

/// Checks that every statement of a batch fits the tables.
pub(crate) fn prepare_statements(connection: &Connection) -> rusqlite::Result<()> {
    let own = [APPLIED, SET_APPLIED, MARK, SET_MARK, REMOVE_MARK, STORED_FROM, SET_ONE, &SET_SEVERAL];
    for sql in own.into_iter().chain(quarantine::STATEMENTS).chain(removed::STATEMENTS) {
        connection.prepare_cached(sql)?;
    }
    Ok(())
}

/// Adds the deltas of a group, and quarantines those that cannot be added. Returns true if there were any of these.
fn add(connection: &Connection, batch: &Batch, group: Group<'_>) -> rusqlite::Result<bool> {
    let bucket = group.bucket().to_string();
    let stored = stored(connection, group, &bucket)?;
    let mut any_quarantined = false;
    let mut sums = Vec::with_capacity(stored.len());
    for (delta, value) in group.deltas().zip(stored) {
        match value.checked_add(delta.n) {
            Some(sum) => sums.push((delta.metric, sum)),
            None => {
                let reason = quarantine::overflow(value, delta.n);
                quarantine::add(connection, batch.id(), batch.is_journaled(), delta, &reason)?;
                any_quarantined = true;
            }
        }
    }
    let mut chunks = sums.chunks_exact(PER_STATEMENT);
    if chunks.len() > 0 {
        let mut set = begin(connection, &SET_SEVERAL, group, &bucket)?;
        chunks.by_ref().try_for_each(|chunk| set_counters(&mut set, chunk))?;
    }
    let mut set = begin(connection, SET_ONE, group, &bucket)?;
    chunks.remainder().chunks(1).try_for_each(|chunk| set_counters(&mut set, chunk))?;
    Ok(any_quarantined)
}

/// Prepares a statement and binds collection and bucket, which stay bound from one execution to the next.
fn begin<'c>(
    connection: &'c Connection,
    sql: &str,
    group: Group<'_>,
    bucket: &str,
) -> rusqlite::Result<CachedStatement<'c>> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.raw_bind_parameter(1, group.collection())?;
    statement.raw_bind_parameter(2, bucket)?;
    Ok(statement)
}

fn set_counters(set: &mut CachedStatement<'_>, counters: &[(&str, i64)]) -> rusqlite::Result<()> {
    for (index, (metric, sum)) in counters.iter().enumerate() {
        set.raw_bind_parameter(3 + 2 * index, metric)?;
        set.raw_bind_parameter(4 + 2 * index, sum)?;
    }
    set.raw_execute().map(|_| ())
}

/// Returns the stored values of the counters of `group`, in their order; zero for a new counter.
///
/// Deltas and stored counters have the same order, that of the bytes of the metric, so one walk over both finds all.
fn stored(connection: &Connection, group: Group<'_>, bucket: &str) -> rusqlite::Result<Vec<i64>> {
    let mut statement = begin(connection, STORED_FROM, group, bucket)?;
    let deltas = group.deltas();
    let mut values = Vec::with_capacity(deltas.len());
    let mut wanted = deltas.clone().map(|delta| delta.metric).peekable();
    'look_up: while let Some(&metric) = wanted.peek() {
        statement.raw_bind_parameter(3, metric)?;
        let mut rows = statement.raw_query();
        let mut read_over = 0;
        while read_over <= MAX_READ_OVER {
            let Some(row) = rows.next()? else { break 'look_up };
            let found = row.get_ref(0)?.as_str()?;
            while wanted.next_if(|metric| *metric < found).is_some() {
                values.push(0);
            }
            match wanted.next_if(|metric| *metric == found) {
                Some(_) => {
                    values.push(row.get(1)?);
                    read_over = 0;
                }
                None if wanted.peek().is_none() => break 'look_up,
                None => read_over += 1,
            }
        }
    }
    // Counters behind the last stored one are new.
    values.resize(deltas.len(), 0);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use countem_core::{Table, Writer};
    use proptest::prelude::*;

    use super::{
        Outcome::{Added, Conflict, Found},
        *,
    };
    use crate::schema::{MIGRATIONS, migrate};

    type Counters = BTreeMap<(String, String, String), i64>;

    fn empty() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("in memory"), MIGRATIONS).unwrap();
        connection
    }

    fn all(connection: &Connection) -> Counters {
        let mut statement =
            connection.prepare("SELECT collection, bucket, metric, value FROM counter").unwrap();
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }

    fn batch(seq: u64, deltas: &[(&str, &str, String, i64)]) -> Batch {
        let mut table = Table::new();
        for (collection, bucket, metric, n) in deltas {
            table.fold(collection, metric, bucket.parse().unwrap(), *n).unwrap();
        }
        let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq };
        Batch::new(id, table.drain())
    }

    /// Metrics that are dense or sparse among each other, with characters on both sides of the digits.
    fn deltas() -> impl Strategy<Value = Vec<(&'static str, &'static str, String, i64)>> {
        let metric = prop_oneof![(0..60_u32).prop_map(|i| format!("m{i:02}")), "[!-~\u{e4}\u{1f980}]{1,3}"];
        let collection = prop::sample::select(vec!["a", "a.b", "b"]);
        let bucket = prop::sample::select(vec!["2026-11-20", "2026-11-21", "2026-11", "all"]);
        prop::collection::vec((collection, bucket, metric, -5..5_i64), 0..120)
    }

    proptest! {
        #[test]
        fn stored_counters_are_the_sum_of_all_batches(batches in prop::collection::vec(deltas(), 1..8)) {
            let mut connection = empty();
            let mut expected = Counters::new();
            for (seq, deltas) in (1..).zip(&batches) {
                for (collection, bucket, metric, n) in deltas {
                    let key = ((*collection).to_owned(), (*bucket).to_owned(), metric.clone());
                    *expected.entry(key).or_default() += n;
                }
                let mut add = || apply(&mut connection, &batch(seq, deltas)).unwrap();
                prop_assert_eq!((add(), add()), (Added(Applied::default()), Found(Applied::default())));
            }
            prop_assert_eq!(all(&connection), expected);
        }
    }

    #[test]
    fn sparse_counters_among_many_are_found() {
        let mut connection = empty();
        let many: Vec<_> = (0..1000).map(|i| ("a", "all", format!("{i:04}"), 1)).collect();
        apply(&mut connection, &batch(1, &many)).unwrap();
        // Gaps of every width around the limit, before the first, behind the last and between two stored counters.
        let mut at = 0;
        let mut some = vec![("a", "all", "!".to_owned(), 1), ("a", "all", "9999".to_owned(), 1)];
        for gap in (1..40).chain([1, 1, 1]) {
            at += gap;
            some.push(("a", "all", format!("{at:04}"), 10));
            some.push(("a", "all", format!("{at:04}x"), 100));
        }
        apply(&mut connection, &batch(2, &some)).unwrap();
        let mut expected: BTreeMap<String, i64> =
            many.into_iter().map(|(_, _, metric, n)| (metric, n)).collect();
        for (_, _, metric, n) in some {
            *expected.entry(metric).or_default() += n;
        }
        let found: BTreeMap<_, _> =
            all(&connection).into_iter().map(|((_, _, metric), n)| (metric, n)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn quarantine_is_reported_for_its_own_batch() {
        let mut connection = empty();
        let add = |connection: &mut Connection, seq, n| match apply(
            connection,
            &batch(seq, &[("a", "all", "m".to_owned(), n)]),
        )
        .unwrap()
        {
            Added(applied) | Found(applied) => applied.quarantined,
            Conflict => panic!("the batch has no mark"),
        };
        assert_eq!(add(&mut connection, 1, i64::MAX), []);
        assert_eq!(add(&mut connection, 2, 1)[0].reason, "9223372036854775807 plus 1 exceeds 64 bits");
        assert_eq!(add(&mut connection, 3, -1), []);
        assert_eq!(add(&mut connection, 2, 1), [], "the writer has moved on");
        let kept: i64 =
            connection.query_row("SELECT n FROM quarantined WHERE seq = 2", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 1);
    }

    #[test]
    fn sequence_number_beyond_i64_is_still_newer() {
        let mut connection = empty();
        let one = [("a", "all", "m".to_owned(), 1)];
        for seq in [1, u64::MAX - 1, u64::MAX, 2] {
            apply(&mut connection, &batch(seq, &one)).unwrap();
        }
        assert_eq!(all(&connection).into_values().collect::<Vec<_>>(), [3]);
    }
}
