//! The table `pending`: what was accepted and is in no batch yet.

use std::path::Path;

use countem_core::{Bucket, Delta, Deltas, Table};
use rusqlite::{Connection, params};

use crate::{
    digest::Digest,
    error::{ErrorKind, JournalError, is_overflow},
    ledger::{Ledger, Sum},
    schema::at_open,
    task::Failure,
};

const ADD: &str = "INSERT INTO pending (lane, collection, bucket, metric, n, increments)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT DO UPDATE SET n = n + excluded.n, increments = increments + excluded.increments";

/// Adds deltas to what is pending in `lane`, and returns how many there were.
///
/// # Errors
/// [`Failure::Refused`] when a counter would overflow. Deltas before it may have been added.
pub(crate) fn add<'a>(
    connection: &Connection,
    ledger: &mut Ledger,
    lane: u16,
    deltas: impl IntoIterator<Item = Delta<'a>>,
) -> Result<u64, Failure> {
    // A delta of nothing changes nothing.
    let mut deltas: Vec<_> =
        deltas.into_iter().filter(|delta| delta.n != 0 || delta.increments != 0).collect();
    if deltas.is_empty() {
        return Ok(0);
    }
    // In the order of the table, so that each of its pages is touched once.
    deltas.sort_unstable_by_key(|delta| (delta.collection, delta.bucket, delta.metric));
    let mut statement = connection.prepare_cached(ADD)?;
    statement.raw_bind_parameter(1, lane)?;
    let mut sum = Sum::default();
    let mut group: Option<(&str, Bucket, Digest)> = None;
    for delta in &deltas {
        let head = match group {
            Some((collection, bucket, head)) if (collection, bucket) == (delta.collection, delta.bucket) => {
                head
            }
            _ => {
                let id = delta.bucket.to_string();
                statement.raw_bind_parameter(2, delta.collection)?;
                statement.raw_bind_parameter(3, &id)?;
                let head = head(lane, delta.collection, &id);
                group = Some((delta.collection, delta.bucket, head));
                head
            }
        };
        statement.raw_bind_parameter(4, delta.metric)?;
        statement.raw_bind_parameter(5, delta.n)?;
        statement.raw_bind_parameter(6, delta.increments.cast_signed())?;
        match statement.raw_execute() {
            Ok(_) => sum.add(contribution(head, delta)),
            Err(error) if is_overflow(&error) => return Err(Failure::Refused(overflow(delta))),
            Err(error) => return Err(error.into()),
        }
    }
    ledger.pending.entry(lane).or_default().add(sum);
    Ok(deltas.len() as u64)
}

fn overflow(delta: &Delta<'_>) -> JournalError {
    let Delta { collection, metric, bucket, n, .. } = delta;
    JournalError::new(
        ErrorKind::Overflow,
        format!(
            "cannot record {n} for `{metric}` of `{collection}` in {bucket}: what is pending would exceed i64"
        ),
    )
}

fn head(lane: u16, collection: &str, bucket_id: &str) -> Digest {
    Digest::new().number(lane.into()).text(collection).text(bucket_id)
}

fn contribution(head: Digest, delta: &Delta<'_>) -> Sum {
    let digest = head.text(delta.metric).weigh(delta.n, delta.increments);
    Sum { digest, items: 0, increments: delta.increments }
}

/// Deletes what is pending in `lane`: it is in batches now.
pub(crate) fn clear(connection: &Connection, ledger: &mut Ledger, lane: u16) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM pending WHERE lane = ?1")?.execute(params![lane])?;
    ledger.pending.remove(&lane);
    Ok(())
}

/// Reads what is pending, lane by lane.
///
/// # Errors
/// A row is not one that was ever written. Whether any is missing is the ledger's business.
pub(crate) fn read(connection: &Connection, path: &Path) -> Result<Vec<(u16, Deltas, Sum)>, JournalError> {
    let failed = |error: rusqlite::Error| at_open(path, &error);
    let corrupt = || JournalError::corrupt(path, "a pending count is not readable");
    let mut statement = connection
        .prepare("SELECT lane, collection, bucket, metric, n, increments FROM pending ORDER BY lane")
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut lanes: Vec<(u16, Table, Sum)> = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let text = |at: usize| row.get_ref(at).ok().and_then(|value| value.as_str().ok()).ok_or_else(corrupt);
        let number = |at: usize| row.get::<_, i64>(at).map_err(failed);
        let bucket_id = text(2)?;
        let bucket: Bucket = bucket_id.parse().map_err(|_| corrupt())?;
        let (n, increments) = (number(4)?, number(5)?.cast_unsigned());
        let delta = Delta { collection: text(1)?, metric: text(3)?, bucket, n, increments };
        let lane = row.get(0).map_err(failed)?;
        if lanes.last().is_none_or(|(last, ..)| *last != lane) {
            lanes.push((lane, Table::new(), Sum::default()));
        }
        let (_, table, sum) = lanes.last_mut().expect("the lane of this row was just pushed");
        table.merge(delta).map_err(|_| corrupt())?;
        sum.add(contribution(head(lane, delta.collection, bucket_id), &delta));
    }
    Ok(lanes.into_iter().map(|(lane, mut table, sum)| (lane, table.drain(), sum)).collect())
}
