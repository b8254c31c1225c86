//! Compaction: the counters of a closed bucket move into its root, and what protected its batches goes.
//!
//! # Why no value changes
//!
//! *Only counters move.* The value of a counter is the sum over the documents of its bucket. One transaction reads all of them,
//! writes the sums into the root and empties the children that had a part. A batch that adds to one of them meanwhile makes the
//! transaction fail, or waits for its end: the server lets a document change under one of both only. So a value is the same
//! before and after, and a process that is killed, or a commit in doubt, leaves one of both.
//!
//! *Watermarks stay in their document*, as do stamps of the quarantine. A root keeps its split. So nothing changes for the
//! proof in [`partition`](crate::partition): a late batch goes to the same document as before, and a copy of it finds its watermark
//! there. (Watermarks that were merged into the root would be in a document that no update asks.)
//!
//! *A watermark goes when its writer is forgotten*, which the register knows for ever: no copy of a request of that writer exists any
//! more (it ended without one in doubt, or retired two days ago), and a replay from an old journal is refused before it is sent
//! ([`Store::remembers`](countem_store::Store::remembers)). Writers that are named as replaced or retired keep theirs for as long.
//!
//! *A child goes when it is empty*: no counter, no watermark, nothing in quarantine. What is left of it says no more than a
//! document that never existed, and the next writer creates it again. A child that is split stays, because a split is for
//! ever, and so does the root.
//!
//! *Readers* take the documents one after another. Each compaction of a bucket has a number that rises ([`COMPACTED`]), by which a
//! read notices that it met the root before and a child after it: see [`read`](crate::read). A child that is gone shows no number, so
//! it goes no sooner than [`MARGIN`] after the compaction that emptied it, when no read has begun before. The numbers are
//! milliseconds of the clock for that reason.
//!
//! # What is left alone
//!
//! - A bucket with a value that is no whole number, with a sum in the upper half of 64 bits (a late count in an empty child
//!   could leave the range, where it was quarantined before), or with counts in quarantine.
//! - A bucket with more counters than one document should have, [`MAX_DOCUMENT`]: its many documents are well filled, and a read of one
//!   metric needs few of them.
//! - A bucket that expires.
//! - All of them on a standalone server, which has no transactions.
//!
//! A transaction whose process is killed is ended by the server after a minute. Only late counts for that bucket wait for it.

use countem_core::{
    Bucket, CollectionName, Schedules,
    jiff::{SignedDuration, Timestamp},
};
use countem_store::{ErrorKind, StoreError};
use mongodb::bson::{DateTime, RawArrayBuf, RawDocument, RawDocumentBuf, doc, raw::cstr, rawdoc};

use crate::{
    command::{self, Level, action},
    connection::Connection,
    document::{
        COMPACTED, COUNTERS, DocumentId, HELD, QUARANTINED, SPLIT, WATERMARKS, id_bounds, number_in,
        size_of_counters,
    },
    error::{Failure, without_effect},
    expiry::has_expired,
    names::mongo_collection,
    registry::{self, Forgotten},
    schedule,
};

mod merge;
mod pass;
mod transaction;

use pass::{Pass, Position};

/// Time between the end of a bucket and its compaction.
const CLOSED_FOR: SignedDuration = SignedDuration::from_hours(48);
/// Time between the compaction that emptied a child and its removal. Longer than any read, and than clocks differ.
const MARGIN: SignedDuration = SignedDuration::from_hours(1);
/// Bytes of counters in the root of a compacted bucket.
const MAX_DOCUMENT: usize = 1024 * 1024;
/// Bytes of counters that a transaction reads.
const MAX_READ: usize = 16 * MAX_DOCUMENT;
/// Documents that a transaction changes.
const MAX_DOCUMENTS: usize = 10_000;
/// Bytes of an empty document.
const EMPTY: usize = 5;

/// A step of a pass through the closed buckets.
#[derive(Debug)]
pub(crate) struct Compaction<'a> {
    connection: &'a Connection,
    pass: Pass,
    now: Timestamp,
    /// The time of the server.
    server: DateTime,
}

impl<'a> Compaction<'a> {
    /// Returns the next step, `None` where nothing is to do: the last pass is over, or the server has no transactions.
    pub(crate) async fn due(connection: &'a Connection, now: Timestamp) -> Result<Option<Self>, StoreError> {
        let Some(server) = transactional_server_time(connection).await? else { return Ok(None) };
        let pass = Pass::due(connection, now).await?;
        Ok(pass.map(|pass| Self { connection, pass, now, server }))
    }

    /// Tells whether this is the first step of a pass.
    pub(crate) fn is_beginning(&self) -> bool {
        self.pass.is_beginning()
    }

    /// Looks at the next buckets of `collections`, at no more than `limit`, and returns at how many.
    ///
    /// The pass moves on before the buckets are compacted, so that no two processes have the same ones. Those of a process that is
    /// killed are compacted by the next pass.
    pub(crate) async fn go_on(
        mut self,
        collections: &[CollectionName],
        limit: usize,
    ) -> Result<usize, StoreError> {
        let schedules = schedule::read(self.connection).await?;
        let is_closed = |bucket| is_closed(schedules.as_ref(), bucket, self.now);
        let (found, position) = self.pass.find(self.connection, collections, limit, is_closed).await?;
        if !self.pass.advance(self.connection, position).await? || found.is_empty() {
            return Ok(0);
        }
        let forgotten = registry::forgotten(self.connection).await?;
        let mut result = Ok(found.len());
        for Position { collection, bucket } in &found {
            // One bucket must not hold up the others.
            let compacted = self.compact(&mongo_collection(collection), *bucket, &forgotten).await;
            result = compacted.and(result);
        }
        result
    }

    async fn compact(
        &self,
        stored_in: &str,
        bucket: Bucket,
        forgotten: &Forgotten,
    ) -> Result<(), StoreError> {
        let documents = self.look(stored_in, bucket, forgotten).await?;
        let Some(root) = documents.first().filter(|root| root.id == DocumentId::root(bucket)) else {
            return Ok(());
        };
        if !root.is_split || root.has_expired || documents.len() > MAX_DOCUMENTS {
            return Ok(());
        }
        let moves = can_move(&documents);
        if !moves && documents.iter().all(|document| !document.has_forgotten) {
            return self.remove_empty(stored_in, &documents).await;
        }
        let clock = self.server.max(DateTime::now());
        // The sums are computed in a task of its own, which outlives this one.
        let forgotten: Vec<_> = documents.iter().flat_map(|document| document.writers.clone()).collect();
        let plan = move |documents: &[RawDocumentBuf]| {
            let is_forgotten = |writer: &str| forgotten.iter().any(|known| known == writer);
            let number = next_number(documents.iter().map(|document| &**document), clock);
            (merge::updates(documents, moves, number, is_forgotten), ())
        };
        let done = run_transaction(self.connection, stored_in, find_all(stored_in, bucket), plan).await;
        let action = action("compact", stored_in);
        done.map(drop).map_err(|failure| without_effect(self.connection.explain(&action, failure)))
    }

    /// Looks at the documents of a bucket, without their counters.
    async fn look(
        &self,
        stored_in: &str,
        bucket: Bucket,
        forgotten: &Forgotten,
    ) -> Result<Vec<Shape>, StoreError> {
        let (from, to) = id_bounds(bucket, bucket);
        let mut find = command::find(
            self.connection,
            stored_in,
            Level::Local,
            rawdoc! { "_id": { "$gte": from, "$lt": to } },
            rawdoc! {
                WATERMARKS: 1,
                QUARANTINED: 1,
                SPLIT: 1,
                COMPACTED: 1,
                "held": { "$gt": [format!("${HELD}"), null] },
                "has_expired": has_expired(),
                "size": size_of_counters(),
            },
        );
        find.append(cstr!("sort"), rawdoc! { "_id": 1 });
        let mut documents = Vec::new();
        command::read(self.connection, stored_in, find, |document| {
            documents.extend(Shape::of(document, forgotten));
            Ok(())
        })
        .await?;
        Ok(documents)
    }

    /// Removes the children that are empty and were long enough. Each is removed only if it still is.
    async fn remove_empty(&self, stored_in: &str, documents: &[Shape]) -> Result<(), StoreError> {
        let margin = i64::try_from(MARGIN.as_millis()).expect("an hour is short");
        let before = self.server.min(DateTime::now()).timestamp_millis() - margin;
        let is_removable = |document: &&Shape| document.is_empty && document.compacted <= before;
        let children = documents[1..].iter().filter(is_removable);
        let deletes: RawArrayBuf = children
            .map(|child| {
                let is_empty = rawdoc! {
                    "_id": child.id.to_string(),
                    COUNTERS: {},
                    WATERMARKS: {},
                    QUARANTINED: { "$in": [null, {}] },
                    HELD: { "$exists": false },
                    SPLIT: { "$exists": false },
                    COMPACTED: { "$not": { "$gt": before } },
                };
                rawdoc! { "q": is_empty, "limit": 1 }
            })
            .collect();
        if deletes.is_empty() {
            return Ok(());
        }
        command::remove_all(self.connection, stored_in, deletes).await
    }
}

fn find_all(stored_in: &str, bucket: Bucket) -> RawDocumentBuf {
    let (from, to) = id_bounds(bucket, bucket);
    rawdoc! {
        "find": stored_in,
        "filter": { "_id": { "$gte": from, "$lt": to } },
        "sort": { "_id": 1 },
        "batchSize": i32::MAX,
    }
}

/// Changes documents in one transaction: all that `plan` returns for those that `find` finds, or none. Returns what it returns besides
/// the changes, `None` if another process changed one of the documents meanwhile.
pub(crate) async fn run_transaction<T: Send + 'static>(
    connection: &Connection,
    stored_in: &str,
    find: RawDocumentBuf,
    plan: impl FnOnce(&[RawDocumentBuf]) -> (Vec<RawDocumentBuf>, T) + Send + 'static,
) -> Result<Option<T>, Failure> {
    let (collection, deadline) = (stored_in.to_owned(), connection.config.deadline);
    let request = transaction::Request { find, collection, deadline };
    connection.request(|database| transaction::run(database, request, plan)).await
}

/// Returns the number of a change that takes counters out of some of the documents of a bucket.
pub(crate) fn next_number<'a>(documents: impl Iterator<Item = &'a RawDocument>, clock: DateTime) -> i64 {
    let last = documents.filter_map(|document| number_in(document, COMPACTED)).max().unwrap_or_default();
    clock.timestamp_millis().max(last.saturating_add(1))
}

/// A document of a bucket, without its counters.
#[derive(Debug)]
struct Shape {
    id: DocumentId,
    /// Bytes of its counters.
    size: usize,
    is_split: bool,
    holds: bool,
    has_expired: bool,
    /// Forgotten writers of which it has a trace.
    writers: Vec<String>,
    has_forgotten: bool,
    /// No counter, no trace of a writer, nothing in quarantine, and not split.
    is_empty: bool,
    compacted: i64,
}

impl Shape {
    fn of(document: &RawDocument, forgotten: &Forgotten) -> Option<Self> {
        let id = DocumentId::of(document)?;
        let size =
            number_in(document, "size").and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
        let is_split = document.get(SPLIT).ok().flatten().is_some();
        let holds = document.get_bool("held").unwrap_or(true);
        let traces = merge::writers_in(document);
        let is_empty = size == EMPTY && !is_split && !holds && traces.is_empty();
        let writers: Vec<_> = traces.into_iter().filter(|writer| forgotten.contains(writer)).collect();
        Some(Self {
            id,
            size,
            is_split,
            holds,
            has_expired: document.get_bool("has_expired").unwrap_or(true),
            has_forgotten: !writers.is_empty(),
            writers,
            is_empty,
            compacted: number_in(document, COMPACTED).unwrap_or_default(),
        })
    }
}

/// Tells whether there are counters in children, and no reason to leave them there is seen without reading them.
fn can_move(documents: &[Shape]) -> bool {
    let is_spread = documents[1..].iter().any(|child| child.size > EMPTY);
    let bytes: usize = documents.iter().map(|document| document.size).sum();
    let at_least = documents.iter().filter(|document| !document.is_split).fold(
        std::collections::BTreeMap::<_, usize>::new(),
        |mut sizes, document| {
            *sizes.entry(document.id.partition.writer_share()).or_default() += document.size;
            sizes
        },
    );
    let fits = at_least.values().all(|size| *size <= MAX_DOCUMENT) && bytes <= MAX_READ;
    is_spread && fits && !documents.iter().any(|document| document.holds)
}

/// Tells whether `bucket` ended long enough before `now`. Counts may still arrive, and are not lost: it only costs more.
fn is_closed(schedules: Option<&Schedules>, bucket: Bucket, now: Timestamp) -> bool {
    let utc = countem_core::jiff::tz::TimeZone::UTC;
    let zone = schedules.map_or(&utc, |schedules| schedules.zone(now));
    let end = bucket.next().map(|next| next.start_instant(zone));
    end.and_then(|end| end.checked_add(CLOSED_FOR).ok()).is_some_and(|closed| closed <= now)
}

/// Returns the time of the server, `None` if it has no transactions.
pub(crate) async fn transactional_server_time(
    connection: &Connection,
) -> Result<Option<DateTime>, StoreError> {
    let hello = connection.request(|database| async move { database.run_command(doc! { "hello": 1 }).await });
    let reply =
        hello.await.map_err(|failure| without_effect(connection.explain("ask for the time", failure)))?;
    let is_router = reply.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    if !is_router && reply.get_str("setName").is_err() {
        return Ok(None);
    }
    reply.get_datetime("localTime").copied().map(Some).map_err(|error| {
        StoreError::new(ErrorKind::NotApplied, "the server does not tell its time").with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Partition;

    fn shape(partition: &str, size: usize, is_split: bool) -> Shape {
        let partition = Partition::parse(partition).unwrap();
        Shape {
            id: DocumentId { bucket: "2026-11-20".parse().unwrap(), partition },
            size,
            is_split,
            holds: false,
            has_expired: false,
            writers: Vec::new(),
            has_forgotten: false,
            is_empty: false,
            compacted: 0,
        }
    }

    #[test]
    fn counters_move_where_one_document_can_take_them() {
        let root = || shape("1", 5, true);
        assert!(!can_move(&[root(), shape("2", 5, false)]), "the children are empty");
        assert!(can_move(&[root(), shape("2", 6, false)]));
        let half = MAX_DOCUMENT * 3 / 5;
        assert!(!can_move(&[root(), shape("2", half, false), shape("3", half, false)]), "too many metrics");
        assert!(can_move(&[root(), shape("1.2", half, false), shape("1.3", half, false)]), "of two writers");
        let held = Shape { holds: true, ..shape("3", 6, false) };
        assert!(!can_move(&[root(), shape("2", 6, false), held]), "in quarantine");
    }

    #[test]
    fn buckets_close_two_days_after_their_end() {
        let berlin: Schedules = "beginning Europe/Berlin day,all".parse().unwrap();
        let is_closed =
            |bucket: &str, now: &str| is_closed(Some(&berlin), bucket.parse().unwrap(), now.parse().unwrap());
        assert!(!is_closed("2026-11-20", "2026-11-22T22:59:59Z"));
        assert!(is_closed("2026-11-20", "2026-11-22T23:00:00Z"));
        assert!(!is_closed("all", "2126-11-22T23:00:00Z"));
    }
}
