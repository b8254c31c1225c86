//! Reads of counters, with or without the deltas of a batch in flight.
//!
//! Reads go to the primary and see all that it has, even writes that a majority does not have yet. The primary has all
//! writes that a majority has confirmed, also after a failover; a majority read on a new primary may for a moment be older.
//! Writes without a majority belong to unresolved batches: these will be added, just once, in any case.
//!
//! The documents of a bucket are not read at one moment, and a batch may be on its way. Its delta is in the sum if and
//! only if one of the documents that *cover* its metric showed the watermark: each document is read once, counters and
//! watermark together, and the delta ends up in exactly one of them.
//!
//! A [compaction](crate::compaction) moves counters from the children of a bucket to its root. Documents are read in the order of their
//! ids, a root first. So a read misses counts only if it read the root before a compaction and a child after it; the child then
//! shows the number of that compaction ([`COMPACTED`]), the root a lower one or none, and the read is repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use countem_core::{Batch, Bucket, BucketRange, Delta};
use countem_store::{Counters, ErrorKind, RowQuery, Rows, Select, StoreError, Unreadable, overlay};
use mongodb::bson::{
    RawArrayBuf, RawDocument, RawDocumentBuf,
    raw::{CStr, cstr},
    rawdoc,
};

use crate::{
    command::{self, Level, action},
    connection::Connection,
    document::{
        COMPACTED, COUNTERS, DocumentId, SPLIT, WATERMARKS, bucket_id_len, counters_of, has_batch, id_bounds,
        number_in, pattern, value_of,
    },
    error::without_effect,
    expiry::is_live,
    names::{counter_path, decode_metric, mongo_collection, path},
    partition::{Partition, hash},
};

/// Maximum number of buckets that are read one by one. A longer range is read as one span of ids, in which buckets of other
/// periods are skipped.
const MAX_SPANS: usize = 1000;
/// Type of the counters, in the answer to a query for one metric.
const KIND: &CStr = cstr!("kind");
/// Minimum number of values of a bucket that are cut to a page while it is read.
const MIN_CUT: usize = 10_000;
/// Maximum number of attempts to read.
const MAX_ATTEMPTS: usize = 3;
/// Maximum number of attempts to read between compactions. Each bucket is compacted once a day at most, and the read is faster than
/// the compaction of its many buckets.
const MAX_TORN: usize = 16;

/// Reads the counters that `query` asks for, as if `in_flight` had been applied.
pub(crate) async fn read(
    connection: &Connection,
    query: &RowQuery,
    in_flight: Option<&Batch>,
) -> Result<Rows, StoreError> {
    let pending = in_flight.and_then(|batch| Pending::of(batch, query));
    let stored_in = mongo_collection(query.collection.as_str());
    let find = find(&stored_in, connection, query, pending.as_ref());
    let (mut attempt, mut torn) = (1, 1);
    let sums = loop {
        let mut sums = Sums::new(query, pending.as_ref());
        match command::try_read(connection, find.clone(), |document| sums.add(document)).await {
            // A root that was created meanwhile is found by the next attempt.
            Ok(Ok(())) if attempt < MAX_ATTEMPTS && sums.orphan().is_some() => attempt += 1,
            Ok(Ok(())) if torn < MAX_TORN && sums.torn().is_some() => torn += 1,
            Ok(result) => break result.map(|()| sums)?,
            Err(failure) if attempt < MAX_ATTEMPTS && failure.is_transient() => attempt += 1,
            Err(failure) => {
                return Err(without_effect(connection.explain(&action("read", &stored_in), failure)));
            }
        }
    };
    let failed = |kind, why: &str| Err(StoreError::new(kind, format!("cannot read `{stored_in}`: {why}")));
    if let Some(bucket) = sums.orphan() {
        let why = format!("the documents of `{bucket}` are not complete, `{bucket}/1` is gone");
        return failed(ErrorKind::Refused, &why);
    }
    if let Some(bucket) = sums.torn() {
        let why = format!("the documents of `{bucket}` are compacted all the time; read again");
        return failed(ErrorKind::NotApplied, &why);
    }
    Ok(sums.finish(query))
}

/// Returns the first and the last bucket of `range` in which the collection has a counter. Looks at the two ends only.
pub(crate) async fn extent(
    connection: &Connection,
    collection: &str,
    range: BucketRange,
) -> Result<Option<BucketRange>, StoreError> {
    let stored_in = mongo_collection(collection);
    let (from, to) = id_bounds(range.first(), range.last());
    let of_period = pattern(&format!("^.{{{}}}/", bucket_id_len(range.period())));
    let end = async |direction: i32| {
        let filter = rawdoc! {
            "_id": { "$gte": from.as_str(), "$lt": to.as_str(), "$regex": of_period.clone() },
            // Some documents hold watermarks alone.
            COUNTERS: { "$gt": {} },
        };
        let mut find = command::find(connection, &stored_in, Level::Local, filter, rawdoc! { "_id": 1 });
        find.append(cstr!("sort"), rawdoc! { "_id": direction });
        find.append(cstr!("limit"), 1);
        let mut bucket = None;
        command::read(connection, &stored_in, find, |document| {
            bucket = DocumentId::of(document).map(|id| id.bucket);
            Ok(())
        })
        .await?;
        Ok::<_, StoreError>(bucket)
    };
    let mut first = end(1).await?;
    // A compaction moves counters to the root, which the search may have passed already. The next search finds them there.
    loop {
        let again = end(1).await?;
        if again == first {
            break;
        }
        first = again;
    }
    let Some(first) = first else { return Ok(None) };
    // From the end the children come before their root.
    let last = end(-1).await?.unwrap_or(first);
    Ok(BucketRange::new(first, last))
}

fn find(
    stored_in: &str,
    connection: &Connection,
    query: &RowQuery,
    pending: Option<&Pending<'_>>,
) -> RawDocumentBuf {
    let mut filter = rawdoc! { "_id": ids(query), "$expr": is_live() };
    let mut projection = RawDocumentBuf::new();
    let watermark = pending.map(|pending| path(WATERMARKS, pending.batch.id().writer.as_str()));
    match &query.select {
        Select::All | Select::Page { .. } => projection.append(COUNTERS, 1),
        Select::One(metric) => {
            let counter = counter_path(metric.as_str());
            projection.append(&counter, 1);
            // A projection of one field shows nothing of counters that are no object.
            projection.append(KIND, rawdoc! { "$type": format!("${COUNTERS}") });
            // A document without the counter contributes nothing, unless it has the watermark or its counters are damaged.
            let fields = [Some(&counter), watermark.as_ref()].into_iter().flatten();
            let exists = |field| rawdoc! { field: { "$exists": true } };
            let damaged = [
                rawdoc! { COUNTERS: { "$not": { "$type": "object" } } },
                // An array of objects is of both types.
                rawdoc! { COUNTERS: { "$type": "array" } },
                // The root of every child.
                rawdoc! { SPLIT: { "$exists": true } },
                // It may have had the counter a moment ago.
                rawdoc! { COMPACTED: { "$exists": true } },
            ];
            filter.append(cstr!("$or"), fields.map(exists).chain(damaged).collect::<RawArrayBuf>());
        }
    }
    if let Some(watermark) = watermark {
        projection.append(watermark, 1);
    }
    projection.append(COMPACTED, 1);
    let mut find = command::find(connection, stored_in, Level::Local, filter, projection);
    find.append(cstr!("sort"), rawdoc! { "_id": 1 });
    find
}

/// Returns the condition on `_id`: bounds for the index, and where it pays a pattern that is matched on the index alone.
fn ids(query: &RowQuery) -> RawDocumentBuf {
    let range = query.range;
    // The documents that can hold one metric are few, and their numbers follow from its hash.
    let partitions = match &query.select {
        Select::All | Select::Page { .. } => None,
        Select::One(metric) => {
            let numbers: Vec<_> =
                Partition::numbers_covering(hash(metric.as_str())).map(|number| number.to_string()).collect();
            Some(format!("({})(\\.|$)", numbers.join("|")))
        }
    };
    let regex = |bucket: String| pattern(&format!("^{bucket}/{}", partitions.as_deref().unwrap_or_default()));
    let any_bucket = || regex(format!(".{{{}}}", bucket_id_len(range.period())));
    let bounds = || {
        let (from, to) = id_bounds(range.first(), range.last());
        rawdoc! { "$gte": from, "$lt": to }
    };
    if range.first() == range.last() {
        let mut ids = bounds();
        if partitions.is_some() {
            ids.append(cstr!("$regex"), regex(range.first().to_string()));
        }
        return ids;
    }
    let buckets: Vec<_> = range.iter().take(MAX_SPANS + 1).collect();
    if buckets.len() > MAX_SPANS {
        let mut ids = bounds();
        ids.append(cstr!("$regex"), any_bucket());
        return ids;
    }
    let spans = buckets.iter().map(|bucket| pattern(&format!("^{bucket}/")));
    let mut ids = rawdoc! { "$in": spans.collect::<RawArrayBuf>() };
    if partitions.is_some() {
        ids.append(cstr!("$regex"), any_bucket());
    }
    ids
}

/// The deltas of an unresolved batch that a query asks for.
struct Pending<'a> {
    batch: &'a Batch,
    writer: u64,
    deltas: Vec<(u64, Delta<'a>)>,
}

impl<'a> Pending<'a> {
    fn of(batch: &'a Batch, query: &RowQuery) -> Option<Self> {
        let asked_for = batch.deltas().filter(|delta| query.asks_for(delta));
        let deltas: Vec<_> = asked_for.map(|delta| (hash(delta.metric), delta)).collect();
        let writer = hash(batch.id().writer.as_str());
        (!deltas.is_empty()).then_some(Self { batch, writer, deltas })
    }
}

/// A metric and its part of a sum.
type Value = (String, Result<i64, Unreadable>);

/// Sums over the documents read so far.
struct Sums<'a> {
    query: &'a RowQuery,
    pending: Option<&'a Pending<'a>>,
    buckets: BTreeMap<Bucket, Vec<Value>>,
    /// Documents that have the batch.
    applied: BTreeMap<Bucket, Vec<Partition>>,
    /// Buckets of which a root, and of which a child was read.
    roots: BTreeSet<Bucket>,
    children: BTreeSet<Bucket>,
    /// The last compaction that the root of a bucket shows, and the last that one of its children shows.
    compacted: BTreeMap<Bucket, (i64, i64)>,
}

impl<'a> Sums<'a> {
    fn new(query: &'a RowQuery, pending: Option<&'a Pending<'a>>) -> Self {
        Self {
            query,
            pending,
            buckets: BTreeMap::new(),
            applied: BTreeMap::new(),
            roots: BTreeSet::new(),
            children: BTreeSet::new(),
            compacted: BTreeMap::new(),
        }
    }

    /// Returns a bucket whose root was read before a compaction, and a child after it.
    fn torn(&self) -> Option<Bucket> {
        self.compacted.iter().find(|(_, (root, child))| child > root).map(|(bucket, _)| *bucket)
    }

    /// Returns a bucket that has children and no root.
    fn orphan(&self) -> Option<Bucket> {
        self.children.difference(&self.roots).next().copied()
    }

    fn add(&mut self, document: &RawDocument) -> Result<(), StoreError> {
        let Some(DocumentId { bucket, partition }) = DocumentId::of(document) else { return Ok(()) };
        if !self.query.range.contains(bucket) {
            return Ok(());
        }
        let is_root = partition == Partition::ROOT;
        if is_root { &mut self.roots } else { &mut self.children }.insert(bucket);
        if let Some(number) = number_in(document, COMPACTED) {
            let (root, child) = self.compacted.entry(bucket).or_insert((i64::MIN, i64::MIN));
            let last = if is_root { root } else { child };
            *last = number.max(*last);
        }
        if self.pending.is_some_and(|pending| has_batch(document, pending.batch.id())) {
            self.applied.entry(bucket).or_default().push(partition);
        }
        let collection = &self.query.collection;
        let damaged = |why: &dyn Display| {
            let document = format!("the document `{bucket}/{partition}` of `{collection}`");
            StoreError::new(ErrorKind::Refused, format!("cannot read {document}: {why}"))
        };
        let kind = document.get_str(KIND).ok().filter(|kind| !["object", "missing"].contains(kind));
        if let Some(kind) = kind {
            return Err(damaged(&format_args!("the field `{COUNTERS}` is of type {kind}, not an object")));
        }
        let Some(counters) = counters_of(document).map_err(|why| damaged(&why))? else { return Ok(()) };
        let values = self.buckets.entry(bucket).or_default();
        for field in counters {
            let (name, value) = field.map_err(|error| damaged(&error))?;
            let metric = decode_metric(name.as_str());
            if self.query.selects(&metric) {
                values.push((metric.into_owned(), value_of(value)));
            }
        }
        self.cut(bucket);
        Ok(())
    }

    /// Cuts the values of a page that can no longer be in it, so that the memory of a read is that of its page.
    fn cut(&mut self, bucket: Bucket) {
        let limit = self.query.limit();
        let Some(values) = self.buckets.get_mut(&bucket) else { return };
        if values.len() > limit.saturating_mul(2).max(MIN_CUT) {
            let mut sums = Counters::sum(std::mem::take(values));
            sums.truncate(limit);
            values.extend(sums);
        }
    }

    fn finish(self, query: &RowQuery) -> Rows {
        let sums = self.buckets.into_iter().map(|(bucket, values)| (bucket, Counters::sum(values)));
        let mut rows: Rows = sums.filter(|(_, counters)| !counters.is_empty()).collect();
        // Partitions have no order by metric, so a page is cut from whole buckets.
        query.cut(&mut rows);
        if let Some(pending) = self.pending {
            let is_applied = |(hash, delta): &(u64, Delta<'_>)| {
                let partitions = self.applied.get(&delta.bucket);
                partitions.is_some_and(|all| all.iter().any(|one| one.covers(*hash, pending.writer)))
            };
            let missing = pending.deltas.iter().filter(|delta| !is_applied(delta));
            overlay(&mut rows, query, missing.map(|(_, delta)| *delta));
        }
        rows
    }
}
