//! The commands that are sent, and what their replies say.

use std::time::Duration;

use countem_core::BatchId;
use countem_store::StoreError;
use futures_util::StreamExt;
use mongodb::{
    Database,
    bson::{Bson, Document, RawDocument, RawDocumentBuf},
};

use crate::{
    connection::Connection,
    document::{COUNTERS, SPLIT, WATERMARKS},
    encoder::Encoder,
    error::{Failure, WriteError, write_concern_words},
};

/// Bytes of a command beside its updates, generously.
const COMMAND_BYTES: usize = 512;

/// Writes an `update` command whose updates `fill` writes one by one.
///
/// Every write waits for the journals of a majority. The server gives up when this side does, so that no request comes
/// to life much later.
pub(crate) fn update<T>(
    collection: &str,
    deadline: Duration,
    capacity: usize,
    updates: impl IntoIterator<Item = T>,
    fill: impl FnMut(&mut Encoder, T),
) -> Result<RawDocumentBuf, StoreError> {
    let milliseconds = milliseconds(deadline);
    Encoder::encode(COMMAND_BYTES + capacity, |command| {
        command.string("update", collection);
        command.boolean("ordered", false);
        command.document("writeConcern", |concern| {
            concern.string("w", "majority");
            concern.boolean("j", true);
            concern.int32("wtimeout", milliseconds);
        });
        command.int32("maxTimeMS", milliseconds);
        command.documents("updates", updates, fill);
    })
}

/// Writes a `find` command.
pub(crate) fn find(
    collection: &str,
    level: Level,
    deadline: Duration,
    filter: impl FnOnce(&mut Encoder),
    projection: impl FnOnce(&mut Encoder),
) -> Result<RawDocumentBuf, StoreError> {
    Encoder::encode(COMMAND_BYTES, |command| {
        command.string("find", collection);
        command.document("filter", filter);
        command.document("projection", projection);
        command.document("readConcern", |concern| concern.string("level", level.name()));
        // As many documents as fit into one reply.
        command.int32("batchSize", i32::MAX);
        command.int32("maxTimeMS", milliseconds(deadline));
    })
}

/// What a read on the primary may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What the primary has, even if it may still be rolled back.
    Local,
    /// What can never be rolled back.
    Majority,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Majority => "majority",
        }
    }
}

fn milliseconds(deadline: Duration) -> i32 {
    i32::try_from(deadline.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// Writes the condition under which a batch is added to a document: it is not in it yet, and the document is not split.
/// This is the whole protection against adding twice. With `full`, the document also has to be smaller than that.
pub(crate) fn guard(query: &mut Encoder, document: &str, id: &BatchId, full: Option<i32>) {
    query.string("_id", document);
    query.document(&path(WATERMARKS, id.writer.as_str()), |watermark| {
        watermark.document("$not", |not| not.int64("$gte", seq(id)));
    });
    query.document(SPLIT, |split| split.boolean("$exists", false));
    if let Some(full) = full {
        query.document("$expr", |expression| {
            expression.array("$lt", |operands| {
                operands.document("0", |size| size.string("$bsonSize", &format!("${COUNTERS}")));
                operands.int32("1", full);
            });
        });
    }
}

/// Returns the number of a batch as it is stored.
pub(crate) fn seq(id: &BatchId) -> i64 {
    i64::try_from(id.seq).expect("no lane sends 2^63 batches")
}

/// Returns the path of a field in a field.
pub(crate) fn path(field: &str, inner: &str) -> String {
    format!("{field}.{inner}")
}

/// What an `update` command was answered with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// How many updates met their condition, and then had their effect.
    pub(crate) matched: usize,
    /// The updates that failed, by their position in the command.
    pub(crate) errors: Vec<(usize, WriteError)>,
}

/// The majority did not confirm; the words say why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unconfirmed(pub(crate) String);

impl Reply {
    /// Reads the reply to an `update`. A command is answered with `ok` even if single updates of it failed, or if the majority did
    /// not confirm it.
    pub(crate) fn read(reply: &Document) -> Result<Self, Unconfirmed> {
        if let Ok(error) = reply.get_document("writeConcernError") {
            let (code, message) = code_and_message(error);
            return Err(Unconfirmed(write_concern_words(code, message)));
        }
        let errors = match reply.get_array("writeErrors") {
            Ok(errors) => errors.iter().filter_map(Bson::as_document).map(write_error).collect(),
            Err(_) => Vec::new(),
        };
        Ok(Self { matched: count(reply.get("n")), errors })
    }
}

fn write_error(error: &Document) -> (usize, WriteError) {
    let (code, message) = code_and_message(error);
    (count(error.get("index")), WriteError::new(code, message))
}

fn code_and_message(error: &Document) -> (i32, &str) {
    (error.get_i32("code").unwrap_or_default(), error.get_str("errmsg").unwrap_or_default())
}

fn count(value: Option<&Bson>) -> usize {
    let value = value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from)));
    value.and_then(|value| usize::try_from(value).ok()).unwrap_or_default()
}

/// Sends a command that is answered with one document.
pub(crate) async fn send(connection: &Connection, command: RawDocumentBuf) -> Result<Document, Failure> {
    connection.request(|database| async move { database.run_raw_command(command).await }).await
}

/// Sends a command that is answered with a cursor, and hands each document to `each`.
pub(crate) async fn fetch(
    connection: &Connection,
    command: RawDocumentBuf,
    mut each: impl FnMut(&RawDocument) -> Result<(), StoreError>,
) -> Result<Result<(), StoreError>, Failure> {
    let open = |database: Database| async move { database.run_raw_cursor_command(command).batch().await };
    let mut cursor = connection.request(open).await?;
    loop {
        // Each batch has the whole deadline: a long answer is not a late one.
        let next = connection.request(|_| async move {
            let batch = cursor.next().await.transpose()?;
            Ok((cursor, batch))
        });
        let (rest, batch) = next.await?;
        let Some(batch) = batch else { return Ok(Ok(())) };
        for document in batch.doc_slices().map_err(Failure::Driver)? {
            let document = document.ok().and_then(|document| document.as_document());
            if let Err(error) = document.map_or(Ok(()), &mut each) {
                return Ok(Err(error));
            }
        }
        cursor = rest;
    }
}

/// Names what is done to a collection, for the words of an error.
pub(crate) fn what(verb: &str, collection: &str) -> String {
    format!("{verb} `{collection}`")
}

#[cfg(test)]
mod tests {
    use countem_core::Writer;
    use countem_store::ErrorKind;
    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn the_guard_asks_for_watermark_split_and_size() {
        let id = BatchId { writer: Writer::new(255, 12), lane: 0, seq: 88 };
        let guard = |full| {
            let raw = Encoder::encode(0, |query| guard(query, "2026-11-20/1", &id, full)).unwrap();
            Document::try_from(&raw).unwrap()
        };
        let mut expected = doc! {
            "_id": "2026-11-20/1",
            "w.00000000000000ff-12": { "$not": { "$gte": 88_i64 } },
            "split": { "$exists": false },
        };
        assert_eq!(guard(None), expected);
        expected.insert("$expr", doc! { "$lt": [{ "$bsonSize": "$c" }, 9000] });
        assert_eq!(guard(Some(9000)), expected);
    }

    #[test]
    fn a_reply_is_good_only_without_a_write_concern_error() {
        let reply = Reply::read(&doc! { "ok": 1.0, "n": 3, "nModified": 3 }).unwrap();
        assert_eq!(reply, Reply { matched: 3, errors: Vec::new() });
        let failed = doc! { "index": 1, "code": 2, "errmsg": "Failed to apply $inc" };
        let reply = Reply::read(&doc! { "ok": 1.0, "n": 2_i64, "writeErrors": [failed] }).unwrap();
        assert_eq!(reply.matched, 2);
        assert_eq!(reply.errors, [(1, WriteError::Data("Failed to apply $inc".to_owned()))]);
        let unconfirmed =
            doc! { "ok": 1.0, "n": 3, "writeConcernError": { "code": 64, "errmsg": "timed out" } };
        assert!(Reply::read(&unconfirmed).unwrap_err().0.contains("majority"));
        assert!(matches!(WriteError::new(50, "m"), WriteError::Other(ErrorKind::InDoubt, _)));
    }
}
