//! Marks: facts that become true together with the counts of a batch.
//!
//! `_countem_marks`: `{_id: "<key>", value, w: {"<writer>": seq}, pending: {id, batch}}`
//!
//! A batch touches many documents, and each is an atomic step of its own. So the document of the mark is a small journal:
//!
//! 1. compare-and-set at the expected value: the frozen batch becomes `pending`, with its watermark;
//! 2. the deltas are added as those of any batch: exactly once, from whichever process;
//! 3. the new value is set, and `pending` removed.
//!
//! A process that finds a pending batch, of its own or another's, completes it before it goes on. So a process that dies
//! between two steps loses nothing, and a second one counts nothing twice. A mark that was removed keeps its document, without
//! a value: its watermarks refuse late copies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use countem_core::{Batch, Mark, Writer};
use countem_store::{Applied, ErrorKind, StoreError};
use mongodb::bson::{
    Binary, RawDocument, RawDocumentBuf,
    raw::{CStr, cstr},
    rawdoc,
    spec::BinarySubtype,
};

use crate::{
    command::{self, Level},
    connection::Connection,
    document::{MARKS, WATERMARKS, number_in, watermark},
    error::without_effect,
    names::path,
};

const VALUE: &CStr = cstr!("value");
const PENDING: &CStr = cstr!("pending");
const PENDING_ID: &CStr = cstr!("pending.id");
const ID: &CStr = cstr!("id");
const BATCH: &CStr = cstr!("batch");

/// Maximum number of bytes of a frozen batch with a mark. A document ends at 16 MB.
const MAX_BATCH_BYTES: usize = 12 << 20;
/// Maximum number of attempts. If the document changes more often, the caller may back off.
const MAX_ROUNDS: usize = 16;

/// State of the document of a mark.
#[derive(Debug, Default)]
struct Found {
    value: Option<String>,
    pending: Option<Arc<Batch>>,
    /// The watermark of the writer that was asked for.
    watermark: Option<i64>,
}

/// Adds a batch and moves its mark. `add` adds the deltas of a batch.
///
/// # Errors
/// [`Conflict`](ErrorKind::Conflict) when the mark is elsewhere, and everything that `add` returns.
pub(crate) async fn apply<F: Future<Output = Result<Applied, StoreError>>>(
    connection: &Connection,
    batch: &Arc<Batch>,
    mark: &Mark,
    add: impl Fn(Arc<Batch>) -> F,
) -> Result<Applied, StoreError> {
    let frozen = batch.encode();
    if frozen.len() > MAX_BATCH_BYTES {
        let why = format!(
            "a batch of {} counters with a mark has {} bytes, and MongoDB takes {MAX_BATCH_BYTES}; lower `flush.batch_counters`",
            batch.len(),
            frozen.len()
        );
        return Err(StoreError::new(ErrorKind::Refused, why));
    }
    let writer = batch.id().writer.as_str();
    for _ in 0..MAX_ROUNDS {
        if update(connection, begin(batch, mark, &frozen)).await? == 1 {
            return complete(connection, batch, &add).await;
        }
        match find(connection, &mark.key, writer).await? {
            None => create(connection, &mark.key).await?,
            Some(found) => match found.pending {
                Some(pending) if pending.id() == batch.id() => {
                    return complete(connection, batch, &add).await;
                }
                // The deltas are in the counters. Adding them again adds nothing, and reports what was quarantined.
                _ if found.watermark >= Some(watermark(batch.id())) => {
                    return add(Arc::clone(batch)).await.map_err(in_doubt);
                }
                Some(pending) => {
                    complete(connection, &pending, &add).await.map_err(without_effect)?;
                }
                None if found.value != mark.expected => return Err(StoreError::conflict(&mark.key)),
                // Another batch was pending a moment ago.
                None => {}
            },
        }
    }
    let why = format!("cannot move the mark `{}`: other processes move it all the time", mark.key);
    Err(StoreError::new(ErrorKind::NotApplied, why))
}

/// Returns the marks whose keys begin with `prefix`, after completing the batches that are pending in them.
///
/// # Errors
/// The marks could not be read, or a pending batch not be completed.
pub(crate) async fn read<F: Future<Output = Result<Applied, StoreError>>>(
    connection: &Connection,
    prefix: &str,
    add: impl Fn(Arc<Batch>) -> F,
) -> Result<BTreeMap<String, String>, StoreError> {
    let mut filter = rawdoc! { "_id": { "$gte": prefix } };
    if let Some(end) = end_of(prefix) {
        filter = rawdoc! { "_id": { "$gte": prefix, "$lt": end } };
    }
    let find = command::find(connection, MARKS, Level::Majority, filter, rawdoc! { WATERMARKS: 0 });
    let mut found = Vec::new();
    command::read(connection, MARKS, find, |document| {
        let key = document.get_str("_id").unwrap_or_default().to_owned();
        found.push((key, Found::of(document, "")?));
        Ok(())
    })
    .await?;
    let mut marks = BTreeMap::new();
    for (key, mut state) in found {
        for _ in 0..MAX_ROUNDS {
            let Some(pending) = state.pending.take() else { break };
            complete(connection, &pending, &add).await.map_err(without_effect)?;
            state = self::find(connection, &key, "").await?.unwrap_or_default();
        }
        if state.pending.is_some() {
            let why = format!("cannot read the mark `{key}`: other processes move it all the time");
            return Err(StoreError::new(ErrorKind::NotApplied, why));
        }
        marks.extend(state.value.map(|value| (key, value)));
    }
    Ok(marks)
}

/// Removes the watermarks of `writer` from the marks `keys`. Only the writer itself makes its batches pending, so that no
/// other process needs them here, unlike those in the counters.
///
/// # Errors
/// Harmless: some watermarks stay.
pub(crate) async fn forget(
    connection: &Connection,
    writer: &Writer,
    keys: &BTreeSet<String>,
) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let field = path(WATERMARKS, writer.as_str());
    let updates = keys.iter().map(|key| {
        rawdoc! { "q": { "_id": key.as_str() }, "u": { "$unset": { (field.clone()): true } } }
    });
    command::write_all(connection, "forget a writer in", MARKS, updates).await.map(drop)
}

/// Returns the update that makes `batch` pending while the mark is where it has to be.
fn begin(batch: &Batch, mark: &Mark, frozen: &[u8]) -> RawDocumentBuf {
    let field = path(WATERMARKS, batch.id().writer.as_str());
    let mut query = rawdoc! {
        "_id": mark.key.as_str(),
        PENDING: { "$exists": false },
        (field.clone()): { "$not": { "$gte": watermark(batch.id()) } },
    };
    match &mark.expected {
        Some(expected) => query.append(VALUE, expected.as_str()),
        None => query.append(VALUE, rawdoc! { "$exists": false }),
    }
    let frozen = Binary { subtype: BinarySubtype::Generic, bytes: frozen.to_vec() };
    let pending = rawdoc! { ID: batch.id().to_string(), BATCH: frozen };
    rawdoc! { "q": query, "u": { "$set": { PENDING: pending, (field): watermark(batch.id()) } } }
}

/// Adds the deltas of a pending batch, and moves its mark.
async fn complete<F: Future<Output = Result<Applied, StoreError>>>(
    connection: &Connection,
    batch: &Arc<Batch>,
    add: &impl Fn(Arc<Batch>) -> F,
) -> Result<Applied, StoreError> {
    let applied = add(Arc::clone(batch)).await.map_err(in_doubt)?;
    let mark = batch.mark().ok_or_else(|| damaged("a pending batch has no mark"))?;
    let mut change = rawdoc! {};
    match &mark.value {
        Some(value) => {
            change.append(cstr!("$set"), rawdoc! { VALUE: value.as_str() });
            change.append(cstr!("$unset"), rawdoc! { PENDING: true });
        }
        None => change.append(cstr!("$unset"), rawdoc! { PENDING: true, VALUE: true }),
    }
    // An update that meets nothing is as good: another process has completed the batch.
    let query = rawdoc! { "_id": mark.key.as_str(), PENDING_ID: batch.id().to_string() };
    update(connection, rawdoc! { "q": query, "u": change }).await.map_err(in_doubt)?;
    Ok(applied)
}

/// Creates the document of a mark. The filter is equality on `_id` only, as in every upsert.
async fn create(connection: &Connection, key: &str) -> Result<(), StoreError> {
    let creation =
        rawdoc! { "q": { "_id": key }, "u": { "$setOnInsert": { WATERMARKS: {} } }, "upsert": true };
    update(connection, creation).await.map(drop).map_err(without_effect)
}

async fn find(connection: &Connection, key: &str, writer: &str) -> Result<Option<Found>, StoreError> {
    let find =
        command::find(connection, MARKS, Level::Majority, rawdoc! { "_id": key }, RawDocumentBuf::new());
    let mut found = None;
    command::read(connection, MARKS, find, |document| {
        found = Some(Found::of(document, writer)?);
        Ok(())
    })
    .await?;
    Ok(found)
}

async fn update(connection: &Connection, update: RawDocumentBuf) -> Result<usize, StoreError> {
    command::write_all(connection, "update", MARKS, [update]).await
}

impl Found {
    fn of(document: &RawDocument, writer: &str) -> Result<Self, StoreError> {
        let value = document.get_str(VALUE).ok().map(str::to_owned);
        let watermarks = document.get_document(WATERMARKS).ok();
        let watermark = watermarks.and_then(|all| number_in(all, writer));
        let pending = match document.get_document(PENDING) {
            Err(_) => None,
            Ok(pending) => {
                let binary = pending.get_binary(BATCH);
                let batch = binary.ok().and_then(|binary| Batch::decode(binary.bytes).ok());
                Some(Arc::new(batch.ok_or_else(|| damaged("a pending batch cannot be read"))?))
            }
        };
        Ok(Self { value, pending, watermark })
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::new(ErrorKind::Refused, format!("`{MARKS}` is damaged: {what}"))
}

/// Returns an error of a batch that is pending already, so that a part of it may be stored.
fn in_doubt(error: StoreError) -> StoreError {
    match error.kind() {
        ErrorKind::InDoubt => error,
        _ => StoreError::new(ErrorKind::InDoubt, error.to_string()),
    }
}

/// Returns the end of the keys that begin with `prefix`; `None` when all later keys do.
fn end_of(prefix: &str) -> Option<String> {
    let last = prefix.chars().next_back()?;
    let next = (u32::from(last) + 1..)
        .map_while(|code| (code <= u32::from(char::MAX)).then(|| char::from_u32(code)));
    let next = next.flatten().next()?;
    Some(format!("{}{next}", &prefix[..prefix.len() - last.len_utf8()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_before_the_next_key() {
        assert_eq!(end_of("a/"), Some("a0".to_owned()));
        assert_eq!(end_of("a\u{d7ff}"), Some("a\u{e000}".to_owned()));
        assert_eq!((end_of(""), end_of("\u{10ffff}")), (None, None));
    }
}
