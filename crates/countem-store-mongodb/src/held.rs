//! Quarantine of the store: deltas that no journal keeps, in the documents that could not add them.
//!
//! The update that adds a batch writes them into the field `held`, in the same atomic step as the watermark; the update that
//! releases one removes it there in the same atomic step in which it is added. A document that is split takes no batches any
//! more, and still takes what it holds: a read sums over all documents of a bucket.

use countem_core::{Batch, BatchId, BucketRange, CollectionName, MetricName, Quarantined, Table, Writer};
use countem_store::{ErrorKind, Held, Release, Released, RowQuery, Select, StoreError};
use mongodb::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, raw::cstr, rawdoc};

use crate::{
    apply::{self, Context},
    command::{self, Level, action},
    connection::Connection,
    document::{COUNTERS, DocumentId, HELD, id_bounds, number_in, value_of},
    error::WriteError,
    expiry::{has_expired, is_live},
    names::{counter_path, mongo_collection},
    partition::hash,
    read,
};

/// Lists what the documents of a collection hold.
pub(crate) async fn list(
    connection: &Connection,
    collection: &CollectionName,
) -> Result<Vec<Held>, StoreError> {
    let stored_in = mongo_collection(collection.as_str());
    let filter = rawdoc! { HELD: { "$exists": true } };
    let find = command::find(connection, &stored_in, Level::Local, filter, rawdoc! { HELD: 1 });
    let mut all = Vec::new();
    command::read(connection, &stored_in, find, |document| {
        let Some(document_id) = DocumentId::of(document) else { return Ok(()) };
        let held = parse(document, document_id, collection).ok_or_else(|| {
            let why =
                format!("the field `{HELD}` of the document `{document_id}` of `{collection}` is damaged");
            StoreError::new(ErrorKind::Refused, why)
        })?;
        all.extend(held);
        Ok(())
    })
    .await?;
    Ok(all)
}

fn parse(document: &RawDocument, id: DocumentId, collection: &CollectionName) -> Option<Vec<Held>> {
    let entry = |entry: &RawDocument| {
        let quarantined = Quarantined {
            collection: collection.to_string(),
            metric: entry.get_str("metric").ok()?.to_owned(),
            bucket: id.bucket,
            n: number_in(entry, "n")?,
            increments: number_in(entry, "increments")?.cast_unsigned(),
            reason: entry.get_str("reason").ok()?.to_owned(),
        };
        Some(Held { batch: entry.get_str("batch").ok()?.parse().ok()?, quarantined })
    };
    let entries = document.get_array(HELD).ok()?.into_iter();
    entries.map(|held| entry(held.ok()?.as_document()?)).collect()
}

/// Releases a delta. One that fits into the sum over the documents of its bucket, but not into the document that holds it, goes
/// into another one.
pub(crate) async fn release(
    context: Context<'_>,
    held: &Held,
    release: Release,
) -> Result<Released, StoreError> {
    let connection = context.connection;
    let released = release_there(connection, held, release).await?;
    let is_full = matches!(&released, Released::Kept(_)) && fits(connection, held).await?;
    if is_full && add_elsewhere(context, held).await? {
        return release_there(connection, held, Release::Drop).await;
    }
    Ok(released)
}

/// Tells whether the sum over all documents can take the delta.
async fn fits(connection: &Connection, held: &Held) -> Result<bool, StoreError> {
    let Quarantined { collection, bucket, metric, n, .. } = &held.quarantined;
    let (Ok(collection), Ok(metric)) = (collection.parse(), MetricName::new(metric)) else {
        return Ok(false);
    };
    let query =
        RowQuery { collection, range: BucketRange::one(*bucket), select: Select::One(metric.clone()) };
    let rows = read::read(connection, &query, None).await?;
    let value = rows.get(bucket).map_or(Ok(None), |counters| counters.get(metric.as_str()));
    Ok(value.is_ok_and(|value| value.unwrap_or(0).checked_add(*n).is_some()))
}

/// Maximum number of documents that are tried, each by a writer of its own: a shard may be full as well.
const MAX_ATTEMPTS: u64 = 16;

/// Adds the delta to the document that takes counts now, as a batch whose identity follows from that of the delta. So it is
/// added once, however often this is repeated until the delta has left its quarantine.
async fn add_elsewhere(context: Context<'_>, held: &Held) -> Result<bool, StoreError> {
    let Held { batch, quarantined } = held;
    for attempt in 0..MAX_ATTEMPTS {
        let delta = quarantined.delta();
        let name = format!("{batch} {} {} {}", delta.collection, delta.bucket, delta.metric);
        let id = BatchId { writer: Writer::new(hash(&name), attempt), lane: batch.lane, seq: 1 };
        let mut table = Table::new();
        table.merge(delta).expect("an empty table takes any delta");
        // What is quarantined again is still held.
        let again = Batch::new(id, table.drain()).journaled();
        let deltas: Vec<_> = again.deltas().collect();
        let outcome = apply::apply(context, &again, delta.collection, &deltas, false).await;
        if outcome.result?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Releases a delta in the document that holds it.
async fn release_there(
    connection: &Connection,
    held: &Held,
    release: Release,
) -> Result<Released, StoreError> {
    let Quarantined { collection, bucket, metric, n, .. } = &held.quarantined;
    let stored_in = mongo_collection(collection);
    let entry = rawdoc! { "batch": held.batch.to_string(), "metric": metric.as_str() };
    let (from, to) = id_bounds(*bucket, *bucket);
    let ids = rawdoc! { "$gte": from, "$lt": to };
    let holds = rawdoc! { "_id": ids.clone(), HELD: { "$elemMatch": entry.clone() } };
    let counter = counter_path(metric);
    let mut condition = holds.clone();
    let mut change = rawdoc! { "$pull": { HELD: entry.clone() } };
    if release == Release::Retry {
        // The server would add to a float or a decimal, too, and not exactly.
        let is_addable =
            [rawdoc! { &counter: { "$exists": false } }, rawdoc! { &counter: { "$type": ["int", "long"] } }];
        condition.append(cstr!("$expr"), is_live());
        condition.append(cstr!("$or"), is_addable.into_iter().collect::<RawArrayBuf>());
        change.append(cstr!("$inc"), rawdoc! { &counter: *n });
    }
    let update = rawdoc! { "q": condition, "u": change };
    let reply = command::write(connection, "release a count in", &stored_in, [update]).await?;
    if let Some((_, WriteError::Other(kind, words))) = reply.errors.into_iter().next() {
        return Err(connection.failed(kind, &action("update", &stored_in), &words));
    }
    if reply.matched == 0 {
        let reason = reason(connection, &stored_in, &holds, metric, *n).await?;
        return Ok(reason.map_or(Released::Gone, Released::Kept));
    }
    let emptied = rawdoc! {
        "q": { "_id": ids, HELD: { "$size": 0 } },
        "u": { "$unset": { HELD: true } },
        "multi": true,
    };
    command::write_all(connection, "tidy", &stored_in, [emptied]).await?;
    Ok(Released::Done)
}

/// Returns the reason why the counter cannot take `n`, `None` when no document holds the delta.
async fn reason(
    connection: &Connection,
    stored_in: &str,
    holds: &RawDocumentBuf,
    metric: &str,
    n: i64,
) -> Result<Option<String>, StoreError> {
    let counter = counter_path(metric);
    // What was released by a write that may still be rolled back is not gone.
    let projection = rawdoc! { &counter: 1, "has_expired": has_expired() };
    let find = command::find(connection, stored_in, Level::Majority, holds.clone(), projection);
    let mut reason = None;
    command::read(connection, stored_in, find, |document| {
        let stored = document.get_document(COUNTERS).ok().and_then(|counters| {
            let value = counters.into_iter().next()?.ok()?.1;
            Some(value_of(value))
        });
        reason = Some(match stored {
            _ if document.get_bool("has_expired").unwrap_or(false) => "the bucket has expired".to_owned(),
            Some(Err(why)) => why.to_string(),
            Some(Ok(value)) => format!("{value} plus {n} exceeds the range of a 64-bit integer"),
            None => "the document changed meanwhile".to_owned(),
        });
        Ok(())
    })
    .await?;
    Ok(reason)
}
