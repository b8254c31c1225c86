//! The table `pending`: deltas that were accepted and are in no batch yet.

use countem_core::{Bucket, Delta, Deltas, Table};
use rusqlite::{Connection, params};

use crate::{
    error::{ErrorKind, Failure, JournalError, ReadError, is_overflow},
    tables::{
        digest::Digest,
        state::{JournalState, Sum},
    },
};

const ADD: &str = "INSERT INTO pending (lane, collection, bucket, metric, n, increments)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT DO UPDATE SET n = n + excluded.n, increments = increments + excluded.increments";

/// Adds deltas to the pending ones of `lane`, and returns how many there were.
///
/// # Errors
/// [`Failure::Refused`] when a counter would overflow. Deltas before it may have been added.
pub(crate) fn add<'a>(
    connection: &Connection,
    state: &mut JournalState,
    lane: u16,
    deltas: impl IntoIterator<Item = Delta<'a>>,
) -> Result<u64, Failure> {
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
            Ok(_) => sum.add(share(head, delta)),
            Err(error) if is_overflow(&error) => return Err(Failure::Refused(overflow(delta))),
            Err(error) => return Err(error.into()),
        }
    }
    state.pending.entry(lane).or_default().add(sum);
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

/// Returns the share of a delta in the sum of its table.
fn share(head: Digest, delta: &Delta<'_>) -> Sum {
    let digest = head.text(delta.metric).weigh(delta.n, delta.increments);
    Sum { digest, items: 0, increments: delta.increments }
}

/// Deletes the pending deltas of `lane`.
pub(crate) fn clear(connection: &Connection, state: &mut JournalState, lane: u16) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM pending WHERE lane = ?1")?.execute(params![lane])?;
    state.pending.remove(&lane);
    Ok(())
}

/// Reads the pending deltas, lane by lane.
///
/// # Errors
/// A row is not one that was ever written. Missing rows are found by the digest of the state.
pub(crate) fn read(connection: &Connection) -> Result<Vec<(u16, Deltas, Sum)>, ReadError> {
    let damaged = || ReadError::damaged("a pending count is not readable");
    let mut statement = connection
        .prepare("SELECT lane, collection, bucket, metric, n, increments FROM pending ORDER BY lane")?;
    let mut rows = statement.query([])?;
    let mut lanes: Vec<(u16, Table, Sum)> = Vec::new();
    while let Some(row) = rows.next()? {
        let text = |at: usize| row.get_ref(at).ok().and_then(|value| value.as_str().ok()).ok_or_else(damaged);
        let bucket_id = text(2)?;
        let bucket: Bucket = bucket_id.parse().map_err(|_| damaged())?;
        let (n, increments) = (row.get(4)?, row.get::<_, i64>(5)?.cast_unsigned());
        let delta = Delta { collection: text(1)?, metric: text(3)?, bucket, n, increments };
        let lane = row.get(0)?;
        if lanes.last().is_none_or(|(last, ..)| *last != lane) {
            lanes.push((lane, Table::new(), Sum::default()));
        }
        let (_, table, sum) = lanes.last_mut().expect("the lane of this row was just pushed");
        table.merge(delta).map_err(|_| damaged())?;
        sum.add(share(head(lane, delta.collection, bucket_id), &delta));
    }
    Ok(lanes.into_iter().map(|(lane, mut table, sum)| (lane, table.drain(), sum)).collect())
}
