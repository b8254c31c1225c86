//! Register of writers: one document for each node. It notices a copied data directory, and lists retired writers, whose
//! watermarks are removed later.
//!
//! `_countem_writers`: `{_id: "<node>", epoch, writer, replaced: {"<epoch>-<incarnation>": true},
//! retired: {"<epoch>-<incarnation>": Date}, forgotten: <epoch>}`
//!
//! `replaced` are earlier writers of the node that are not known to have no unresolved batch. A writer that starts is entered there
//! by its successor, and retired once the successor has resolved all that the journal had.
//!
//! `forgotten` stays for ever: batches of this and of earlier epochs of the node are not recognised any more.

use std::{collections::HashMap, time::Duration};

use countem_core::{Bucket, CollectionName, Writer};
use countem_store::{ErrorKind, Registration, StoreError};
use mongodb::bson::{
    DateTime, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, doc,
    raw::{CStr, CString, cstr},
    rawdoc,
};

use crate::{
    command::{self, Level},
    connection::Connection,
    document::{QUARANTINED, WATERMARKS, WRITERS, id_bounds, number_in, pattern},
    names::{mongo_collection, path},
};

const EPOCH: &CStr = cstr!("epoch");
const WRITER: &CStr = cstr!("writer");
const REPLACED: &CStr = cstr!("replaced");
const RETIRED: &CStr = cstr!("retired");
const FORGOTTEN: &CStr = cstr!("forgotten");

/// Maximum number of attempts to register. If the document changes more often, something else is wrong.
const MAX_ROUNDS: usize = 16;
/// Maximum number of writers whose watermarks one command removes.
const MAX_WRITERS: usize = 100;
/// Pattern of the ids of long-lived documents, in which watermarks would pile up: weeks, months, years and `all`.
const LONG_LIVED: &str = "^([0-9]{4}(-W?[0-9]{2})?|all)/";

/// Registers `writer`; see [`Store::register`](countem_store::Store::register).
///
/// A journal gives every start a new epoch, so two writers can only have the same one when a data directory was copied.
///
/// # Errors
/// The registration is not known to be stored. Registering again is harmless.
pub(crate) async fn register(connection: &Connection, writer: &Writer) -> Result<Registration, StoreError> {
    let node = node(writer);
    let epoch = epoch(writer)?;
    for _ in 0..MAX_ROUNDS {
        match find_registered(connection, &node).await? {
            Some(found) if found.writer.as_deref() == Some(writer.as_str()) => {
                return Ok(Registration::Fresh);
            }
            Some(found) if found.epoch >= Some(epoch) => return Ok(Registration::Cloned),
            Some(found) => {
                // Compare and swap: only an older epoch gives way.
                let mut query = rawdoc! { "_id": node.as_str(), EPOCH: { "$not": { "$gte": epoch } } };
                let mut set = rawdoc! { EPOCH: epoch, WRITER: writer.as_str() };
                match found.writer.and_then(|replaced| replaced.parse::<Writer>().ok()) {
                    Some(replaced) => {
                        query.append(WRITER, replaced.as_str());
                        set.append(field_of(REPLACED, &replaced), true);
                    }
                    None => query.append(WRITER, rawdoc! { "$exists": false }),
                }
                let registered = update(connection, rawdoc! { "q": query, "u": { "$set": set } });
                if registered.await? == 1 {
                    return Ok(Registration::Fresh);
                }
            }
            None => create(connection, &node).await?,
        }
    }
    Err(StoreError::new(
        ErrorKind::NotApplied,
        format!("cannot register `{writer}`: other processes keep registering it"),
    ))
}

/// Tells whether a batch of `writer` that was added would be recognised.
///
/// # Errors
/// It is not known.
pub(crate) async fn remembers(connection: &Connection, writer: &Writer) -> Result<bool, StoreError> {
    let epoch = epoch(writer)?;
    let registered = find_registered(connection, &node(writer)).await?;
    Ok(registered.is_none_or(|found| found.forgotten.is_none_or(|forgotten| forgotten < epoch)))
}

/// Remembers for ever that the bookkeeping of `writer` is about to be removed. Has no effect on a writer that was not registered.
///
/// # Errors
/// It may not be remembered, so the bookkeeping has to stay.
pub(crate) async fn mark_forgotten(connection: &Connection, writer: &Writer) -> Result<(), StoreError> {
    update(
        connection,
        rawdoc! {
            "q": { "_id": node(writer) },
            "u": { "$max": { FORGOTTEN: epoch(writer)? } },
        },
    )
    .await?;
    Ok(())
}

/// Marks `writer` as retired: all its batches are resolved, and it will send no other. Its watermarks stay until
/// [`prune`] removes them, when no late copy of a batch can exist any more.
///
/// # Errors
/// Harmless: the watermarks stay for longer.
pub(crate) async fn retire(connection: &Connection, writer: &Writer) -> Result<(), StoreError> {
    let node = node(writer);
    create(connection, &node).await?;
    let at = latest(server_time(connection).await?);
    let change = rawdoc! {
        "$set": { (field_of(RETIRED, writer)): at },
        "$unset": { (field_of(REPLACED, writer)): true },
    };
    update(connection, rawdoc! { "q": { "_id": node }, "u": change }).await?;
    Ok(())
}

/// Retires all earlier writers of the node of `writer`: it has resolved what they left.
///
/// # Errors
/// Harmless: the watermarks stay for longer.
pub(crate) async fn retire_predecessors(connection: &Connection, writer: &Writer) -> Result<(), StoreError> {
    let filter = rawdoc! { "_id": node(writer) };
    let find = command::find(connection, WRITERS, Level::Majority, filter, rawdoc! { REPLACED: 1 });
    let mut replaced = Vec::new();
    command::read(connection, WRITERS, find, |document| {
        replaced = writers_in(document, REPLACED, |_| true);
        Ok(())
    })
    .await?;
    replaced.retain(|earlier| earlier.epoch() < writer.epoch());
    for earlier in replaced {
        retire(connection, &earlier).await?;
    }
    Ok(())
}

/// Removes from long-lived documents of `collections` the watermarks of `writers`, and returns how many documents had some.
///
/// # Errors
/// Some watermarks may be left. Pruning again goes on.
pub(crate) async fn prune(
    connection: &Connection,
    writers: &[Writer],
    collections: &[CollectionName],
) -> Result<usize, StoreError> {
    let mut pruned = 0;
    for writers in writers.chunks(MAX_WRITERS) {
        for writer in writers {
            mark_forgotten(connection, writer).await?;
        }
        let has_watermark = writers.iter().map(|writer| {
            rawdoc! { (path(WATERMARKS, writer.as_str())): { "$exists": true } }
        });
        let pruning = rawdoc! {
            "q": {
                "_id": { "$regex": pattern(LONG_LIVED) },
                "$or": has_watermark.collect::<RawArrayBuf>(),
            },
            "u": unset_watermarks(writers),
            "multi": true,
        };
        for collection in collections {
            let stored_in = mongo_collection(collection.as_str());
            pruned += command::write_all(connection, "prune", &stored_in, [pruning.clone()]).await?;
        }
        // Last: a writer that is still in the registry is pruned again.
        for writer in writers {
            update(
                connection,
                rawdoc! {
                    "q": { "_id": node(writer) },
                    "u": { "$unset": { (field_of(RETIRED, writer)): true } },
                },
            )
            .await?;
        }
    }
    Ok(pruned)
}

/// The writers that are forgotten for ever, so that their watermarks protect nothing any more.
#[derive(Debug, Default)]
pub(crate) struct Forgotten(HashMap<u64, Node>);

/// The writers of a node, as far as a document of the register tells.
#[derive(Debug)]
struct Node {
    forgotten: i64,
    /// Writers of which late copies of a batch may still exist, whatever the number says.
    kept: Vec<Writer>,
}

impl Forgotten {
    /// Returns true if no batch of `writer` is sent any more, and a replay is refused.
    pub(crate) fn contains(&self, writer: &str) -> bool {
        let Ok(writer) = writer.parse::<Writer>() else { return false };
        let is_old = |node: &Node| i64::try_from(writer.epoch()).is_ok_and(|epoch| epoch <= node.forgotten);
        self.0.get(&writer.node()).is_some_and(|node| is_old(node) && !node.kept.contains(&writer))
    }

    fn note(&mut self, document: &RawDocument) {
        let node = document.get_str("_id").ok().and_then(|node| u64::from_str_radix(node, 16).ok());
        if let (Some(node), Some(forgotten)) = (node, number_in(document, FORGOTTEN)) {
            let kept = [REPLACED, RETIRED].into_iter().flat_map(|list| writers_in(document, list, |_| true));
            self.0.insert(node, Node { forgotten, kept: kept.collect() });
        }
    }
}

/// Returns the writers that are forgotten for ever.
pub(crate) async fn forgotten(connection: &Connection) -> Result<Forgotten, StoreError> {
    let filter = rawdoc! { FORGOTTEN: { "$exists": true } };
    let projection = rawdoc! { FORGOTTEN: 1, REPLACED: 1, RETIRED: 1 };
    let find = command::find(connection, WRITERS, Level::Majority, filter, projection);
    let mut forgotten = Forgotten::default();
    command::read(connection, WRITERS, find, |document| {
        forgotten.note(document);
        Ok(())
    })
    .await?;
    Ok(forgotten)
}

/// Removes the watermarks of `writer` from the documents of `buckets`.
pub(crate) async fn forget(
    connection: &Connection,
    writer: &Writer,
    collection: &str,
    buckets: impl IntoIterator<Item = &Bucket>,
) -> Result<(), StoreError> {
    let updates = buckets.into_iter().map(|bucket| {
        let (from, to) = id_bounds(*bucket, *bucket);
        rawdoc! {
            "q": {
                "_id": { "$gte": from, "$lt": to },
                (path(WATERMARKS, writer.as_str())): { "$exists": true },
            },
            "u": unset_watermarks(std::slice::from_ref(writer)),
            "multi": true,
        }
    });
    let stored_in = mongo_collection(collection);
    command::write_all(connection, "forget a writer in", &stored_in, updates).await?;
    Ok(())
}

/// Returns the writers that retired at least `age` ago. That a new primary has another clock is no danger: a writer retires at the
/// later of the moments that server and process tell, and is as old as the earlier of the two makes it. So both clocks have to be
/// wrong, in one direction, before watermarks go too early.
pub(crate) async fn retired_before(
    connection: &Connection,
    age: Duration,
) -> Result<Vec<Writer>, StoreError> {
    let now = earliest(server_time(connection).await?);
    let find =
        command::find(connection, WRITERS, Level::Majority, RawDocumentBuf::new(), rawdoc! { RETIRED: 1 });
    let mut writers = Vec::new();
    command::read(connection, WRITERS, find, |document| {
        writers.extend(retired(document, now, age));
        Ok(())
    })
    .await?;
    Ok(writers)
}

fn latest(server: DateTime) -> DateTime {
    server.max(DateTime::now())
}

fn earliest(server: DateTime) -> DateTime {
    server.min(DateTime::now())
}

async fn server_time(connection: &Connection) -> Result<DateTime, StoreError> {
    let hello = connection.request(|database| async move { database.run_command(doc! { "hello": 1 }).await });
    let reply = hello.await.map_err(|failure| connection.explain("ask for the time", failure))?;
    reply.get_datetime("localTime").copied().map_err(|error| {
        StoreError::new(ErrorKind::NotApplied, "the server does not tell its time").with_source(error)
    })
}

/// Creates the document of a node. The filter is equality on `_id` only, as in every upsert.
async fn create(connection: &Connection, node: &str) -> Result<(), StoreError> {
    update(
        connection,
        rawdoc! {
            "q": { "_id": node },
            "u": { "$setOnInsert": { EPOCH: -1_i64 } },
            "upsert": true,
        },
    )
    .await?;
    Ok(())
}

async fn find_registered(connection: &Connection, node: &str) -> Result<Option<Registered>, StoreError> {
    let projection = rawdoc! { EPOCH: 1, WRITER: 1, FORGOTTEN: 1 };
    let find = command::find(connection, WRITERS, Level::Majority, rawdoc! { "_id": node }, projection);
    let mut registered = None;
    command::read(connection, WRITERS, find, |document| {
        registered = Some(Registered {
            epoch: number_in(document, EPOCH),
            writer: document.get_str(WRITER).ok().map(str::to_owned),
            forgotten: number_in(document, FORGOTTEN),
        });
        Ok(())
    })
    .await?;
    Ok(registered)
}

/// Sends one update of the register and returns the number of documents that it met.
async fn update(connection: &Connection, update: RawDocumentBuf) -> Result<usize, StoreError> {
    command::write_all(connection, "update", WRITERS, [update]).await
}

#[derive(Debug)]
struct Registered {
    epoch: Option<i64>,
    writer: Option<String>,
    forgotten: Option<i64>,
}

fn node(writer: &Writer) -> String {
    format!("{:016x}", writer.node())
}

fn epoch(writer: &Writer) -> Result<i64, StoreError> {
    let refused =
        |_| StoreError::new(ErrorKind::Refused, format!("cannot register `{writer}`: no epoch is that high"));
    i64::try_from(writer.epoch()).map_err(refused)
}

fn field_of(list: &CStr, writer: &Writer) -> CString {
    // The node is the document.
    path(list, &writer.as_str()[17..])
}

/// Returns the writers in a document of the register that retired at least `age` before `now`.
fn retired(document: &RawDocument, now: DateTime, age: Duration) -> Vec<Writer> {
    let is_old = |at: RawBsonRef<'_>| {
        let at = at.as_datetime().map_or(i64::MAX, |at| at.timestamp_millis());
        let since = u64::try_from(now.timestamp_millis().saturating_sub(at));
        since.is_ok_and(|since| Duration::from_millis(since) >= age)
    };
    writers_in(document, RETIRED, is_old)
}

/// Returns the writers of one of the lists in a document of the register, as far as their values are asked for.
fn writers_in(
    document: &RawDocument,
    list: &CStr,
    is_asked_for: impl Fn(RawBsonRef<'_>) -> bool,
) -> Vec<Writer> {
    let read = || {
        let node = document.get_str("_id").ok()?;
        let writers = document.get_document(list).ok()?.into_iter().filter_map(|field| {
            let (start, value) = field.ok()?;
            format!("{node}-{}", start.as_str()).parse().ok().filter(|_| is_asked_for(value))
        });
        Some(writers.collect())
    };
    read().unwrap_or_default()
}

/// Returns a change that removes all traces of `writers` from a document.
fn unset_watermarks(writers: &[Writer]) -> RawDocumentBuf {
    let fields = writers.iter().map(Writer::as_str);
    let fields = fields.flat_map(|writer| [path(WATERMARKS, writer), path(QUARANTINED, writer)]);
    rawdoc! { "$unset": fields.map(|field| (field, true)).collect::<RawDocumentBuf>() }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::rawdoc;

    use super::*;

    #[test]
    fn a_writer_is_old_by_both_clocks() {
        let hours = |n: i64| DateTime::from_millis(DateTime::now().timestamp_millis() + n * 3_600_000);
        let age = |retired_by: DateTime, pruned_by: DateTime| {
            earliest(pruned_by).timestamp_millis() - latest(retired_by).timestamp_millis()
        };
        for (retired_by, pruned_by) in [(0, 60), (-60, 0), (60, 0), (0, -60)] {
            assert!(age(hours(retired_by), hours(pruned_by)) < 3_600_000, "{retired_by} {pruned_by}");
        }
    }

    #[test]
    fn only_writers_without_late_batches_are_forgotten() {
        let mut forgotten = Forgotten::default();
        forgotten.note(&rawdoc! {
            "_id": "00000000000000ff", "forgotten": 9_i64, "replaced": { "7": true }, "retired": { "8-0000beef": DateTime::now() },
        });
        forgotten.note(&rawdoc! { "_id": "0000000000000001", "epoch": 9_i64 });
        let expected = [
            (Writer::new(255, 7), false),
            (Writer::incarnation(255, 7, 1), true),
            (Writer::incarnation(255, 8, 0xbeef), false),
            (Writer::new(255, 9), true),
            (Writer::new(255, 10), false),
            (Writer::new(1, 1), false),
            (Writer::new(2, 1), false),
        ];
        for (writer, is_forgotten) in expected {
            assert_eq!(forgotten.contains(writer.as_str()), is_forgotten, "{writer}");
        }
        assert!(!forgotten.contains("by hand"));
    }

    #[test]
    fn only_long_retired_writers_are_pruned() {
        let at = DateTime::from_millis;
        let document = rawdoc! { "_id": "00000000000000ff", "epoch": 9_i64, "retired": {
            "7": at(1_000), "8-0000beef": at(5_000), "9": at(99_000), "x": at(0),
        } };
        let retired = |age| retired(&document, at(10_000), Duration::from_secs(age));
        assert_eq!(retired(5), [Writer::new(255, 7), Writer::incarnation(255, 8, 0xbeef)]);
        assert_eq!(retired(6), [Writer::new(255, 7)]);
        assert_eq!(retired(48 * 3600), []);
    }
}
