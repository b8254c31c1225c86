//! The commands that are sent, and what their replies say.

use std::time::Duration;

use countem_store::{ErrorKind, StoreError};
use futures_util::StreamExt;
use mongodb::{
    Database,
    bson::{Bson, Document, RawArrayBuf, RawDocument, RawDocumentBuf, raw::cstr, rawdoc},
};

use crate::{
    connection::Connection,
    error::{Failure, WriteError, without_effect, write_concern_words},
};

/// Sends an `update` command with all `updates` and reads its reply. `verb` is for the words of an error.
///
/// Every write waits for the journals of a majority. The server gives up when this side does, so that no request comes
/// to life much later.
///
/// # Errors
/// The command failed as a whole, or a majority did not confirm it. Failures of single updates are in the reply.
pub(crate) async fn write(
    connection: &Connection,
    verb: &str,
    collection: &str,
    updates: impl IntoIterator<Item = RawDocumentBuf>,
) -> Result<Reply, StoreError> {
    let command = update(collection, connection.config.deadline, updates);
    let action = action(verb, collection);
    let reply = connection.request(|database| async move { database.run_raw_command(command).await }).await;
    let reply = reply.map_err(|failure| connection.explain(&action, failure))?;
    Reply::read(&reply).map_err(|Unconfirmed(words)| connection.failed(ErrorKind::InDoubt, &action, &words))
}

/// Sends updates none of which may fail, and returns how many documents they met.
///
/// # Errors
/// As [`write`], and when a single update failed.
pub(crate) async fn write_all(
    connection: &Connection,
    verb: &str,
    collection: &str,
    updates: impl IntoIterator<Item = RawDocumentBuf>,
) -> Result<usize, StoreError> {
    let reply = write(connection, verb, collection, updates).await?;
    for (_, error) in reply.errors {
        match error {
            // Two upserts of one document met; it is there now.
            WriteError::Exists => {}
            WriteError::Data(words) | WriteError::Other(_, words) => {
                return Err(connection.failed(ErrorKind::InDoubt, &action(verb, collection), &words));
            }
        }
    }
    Ok(reply.matched)
}

/// Sends a command that is answered with a cursor, and hands each document to `each`. A failure leaves no doubt.
pub(crate) async fn read(
    connection: &Connection,
    collection: &str,
    find: RawDocumentBuf,
    each: impl FnMut(&RawDocument) -> Result<(), StoreError> + Send,
) -> Result<(), StoreError> {
    let explain = |failure| without_effect(connection.explain(&action("read", collection), failure));
    try_read(connection, find, each).await.map_err(explain)?
}

/// As [`read`], for callers that distinguish failures.
pub(crate) async fn try_read(
    connection: &Connection,
    find: RawDocumentBuf,
    mut each: impl FnMut(&RawDocument) -> Result<(), StoreError>,
) -> Result<Result<(), StoreError>, Failure> {
    let term = connection.direct_term().await?;
    let open = |database: Database| async move { database.run_raw_cursor_command(find).batch().await };
    let mut cursor = connection.request(open).await?;
    loop {
        // Each batch has the whole deadline: a long answer is not a late one.
        let next = connection.request(|_| async move {
            let batch = cursor.next().await.transpose()?;
            Ok((cursor, batch))
        });
        let (rest, batch) = next.await?;
        let Some(batch) = batch else {
            return if connection.direct_term().await? == term {
                Ok(Ok(()))
            } else {
                Err(Failure::NotPrimary)
            };
        };
        for document in batch.doc_slices().map_err(Failure::Driver)? {
            let document = document.ok().and_then(|document| document.as_document());
            if let Err(error) = document.map_or(Ok(()), &mut each) {
                return Ok(Err(error));
            }
        }
        cursor = rest;
    }
}

/// Sends a `delete` command none of whose parts may fail.
///
/// # Errors
/// Some of the documents may be left.
pub(crate) async fn remove_all(
    connection: &Connection,
    collection: &str,
    deletes: RawArrayBuf,
) -> Result<(), StoreError> {
    let mut command = rawdoc! { "delete": collection, "deletes": deletes };
    append_concern(&mut command, connection.config.deadline);
    let action = action("remove documents of", collection);
    let reply = connection.request(|database| async move { database.run_raw_command(command).await }).await;
    let reply = reply.map_err(|failure| without_effect(connection.explain(&action, failure)))?;
    let failed = |words: &str| connection.failed(ErrorKind::NotApplied, &action, words);
    let reply = Reply::read(&reply).map_err(|Unconfirmed(words)| failed(&words))?;
    match reply.errors.into_iter().next() {
        None => Ok(()),
        Some((_, WriteError::Exists)) => Ok(()),
        Some((_, WriteError::Data(words) | WriteError::Other(_, words))) => Err(failed(&words)),
    }
}

fn update(
    collection: &str,
    deadline: Duration,
    updates: impl IntoIterator<Item = RawDocumentBuf>,
) -> RawDocumentBuf {
    let mut command =
        rawdoc! { "update": collection, "updates": updates.into_iter().collect::<RawArrayBuf>() };
    append_concern(&mut command, deadline);
    command
}

/// Lets a write wait for the journals of a majority, and the server give up when this side does.
fn append_concern(command: &mut RawDocumentBuf, deadline: Duration) {
    let majority = rawdoc! { "w": "majority", "j": true, "wtimeout": milliseconds(deadline) };
    command.append(cstr!("ordered"), false);
    command.append(cstr!("writeConcern"), majority);
    command.append(cstr!("maxTimeMS"), milliseconds(deadline));
}

/// Returns a `find` command.
pub(crate) fn find(
    connection: &Connection,
    collection: &str,
    level: Level,
    filter: RawDocumentBuf,
    projection: RawDocumentBuf,
) -> RawDocumentBuf {
    rawdoc! {
        "find": collection,
        "filter": filter,
        "projection": projection,
        "readConcern": { "level": level.name() },
        // As many documents as fit into one reply.
        "batchSize": i32::MAX,
        "maxTimeMS": milliseconds(connection.config.deadline),
    }
}

/// Read concern of a read on the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Sees all that the primary has, even if it may still be rolled back.
    Local,
    /// Sees only what can never be rolled back.
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

/// Reply to an `update` command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Number of updates that met their condition, and then had their effect.
    pub(crate) matched: usize,
    /// The updates that failed, by their position in the command.
    pub(crate) errors: Vec<(usize, WriteError)>,
}

/// The majority did not confirm; the words say why.
#[derive(Debug, PartialEq, Eq)]
struct Unconfirmed(String);

impl Reply {
    /// Reads the reply to an `update`. The server answers `ok` even if single updates failed, or if the majority did not confirm.
    fn read(reply: &Document) -> Result<Self, Unconfirmed> {
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

/// Names an action on a collection, for the words of an error.
pub(crate) fn action(verb: &str, collection: &str) -> String {
    format!("{verb} `{collection}`")
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn write_concern_error_is_no_good_reply() {
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
