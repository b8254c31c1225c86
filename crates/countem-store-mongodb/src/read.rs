//! Reads counters, and says which of a batch's deltas are in them.
//!
//! Reads go to the primary and see what it has, even what a majority does not have yet. What a majority has confirmed, the
//! primary always has, also the next one after a failover; a majority read on a new primary may for a moment be older than
//! that. What no majority has yet belongs to batches that are not resolved: they will be added, just once, in any case.
//!
//! The documents of a bucket are not read at one moment, and a batch may be on its way. Its delta is in the sum if and
//! only if one of the documents that *cover* its metric showed the watermark: each document is read once, at a moment of its own,
//! counters and watermark together, and the delta ends up in exactly one of them.

use std::collections::BTreeMap;

use countem_core::{Batch, Bucket, BucketRange, Delta};
use countem_store::{Counters, Query, Rows, Select, StoreError, overlay};
use mongodb::bson::{RawDocument, RawDocumentBuf};

use crate::{
    command::{self, Level, path, seq, what},
    connection::Connection,
    document::{
        COUNTERS, WATERMARKS, bucket_id_len, decode_metric, id_bounds, mongo_collection, parse_id, value_of,
        watermark_of,
    },
    encoder::Encoder,
    error::without_effect,
    partition::{Partition, hash},
    target::counter_path,
};

/// A range with more buckets than this is read as one span of ids, in which those of other periods are passed over.
const MOST_SPANS: usize = 1000;
/// How often a read is tried before its failure is told.
const ATTEMPTS: usize = 3;

/// Reads what `query` asks for, as if `in_flight` had been applied.
pub(crate) async fn read(
    connection: &Connection,
    query: &Query,
    in_flight: Option<&Batch>,
) -> Result<Rows, StoreError> {
    let pending = in_flight.and_then(|batch| Pending::of(batch, query));
    let stored_in = mongo_collection(query.collection.as_str());
    let command = find(&stored_in, connection, query, pending.as_ref())?;
    let mut attempt = 1;
    let sums = loop {
        let mut sums = Sums::new(query, pending.as_ref());
        match command::fetch(connection, command.clone(), |document| sums.add(document)).await {
            Ok(result) => break result.map(|()| sums)?,
            Err(failure) if attempt < ATTEMPTS && failure.may_pass() => attempt += 1,
            Err(failure) => {
                return Err(without_effect(connection.explain(&what("read", &stored_in), failure)));
            }
        }
    };
    Ok(sums.finish(query))
}

fn find(
    stored_in: &str,
    connection: &Connection,
    query: &Query,
    pending: Option<&Pending<'_>>,
) -> Result<RawDocumentBuf, StoreError> {
    let watermark = pending.map(|pending| path(WATERMARKS, pending.batch.id().writer.as_str()));
    let filter = |filter: &mut Encoder| {
        filter.document("_id", |id| write_ids(id, query));
        // A document without the counter says nothing, unless it has the watermark.
        if let Select::One(metric) = &query.select {
            filter.array("$or", |either| {
                either.document("0", |has| {
                    has.document_at(
                        |key| counter_path(metric.as_str(), key),
                        |field| field.boolean("$exists", true),
                    );
                });
                if let Some(watermark) = &watermark {
                    either
                        .document("1", |has| has.document(watermark, |field| field.boolean("$exists", true)));
                }
            });
        }
    };
    let projection = |projection: &mut Encoder| {
        match &query.select {
            Select::All | Select::Page { .. } => projection.int32(COUNTERS, 1),
            Select::One(metric) => projection.included_at(|key| counter_path(metric.as_str(), key)),
        }
        if let Some(watermark) = &watermark {
            projection.int32(watermark, 1);
        }
    };
    command::find(stored_in, Level::Local, connection.options.deadline, filter, projection)
}

/// Writes the condition on `_id`: bounds for the index, and where it pays a pattern that is matched on the index alone.
fn write_ids(id: &mut Encoder, query: &Query) {
    let BucketsOfOne { range, one } = BucketsOfOne::of(query);
    // The documents that can hold one metric are few, and their numbers follow from its hash.
    let partitions = one.map(|metric| {
        let numbers: Vec<_> = Partition::numbers_covering(hash(metric)).map(|n| n.to_string()).collect();
        format!("({})(\\.|$)", numbers.join("|"))
    });
    let length = bucket_id_len(range.period());
    let pattern = |bucket: String| format!("^{bucket}/{}", partitions.as_deref().unwrap_or_default());
    if range.first() == range.last() {
        write_bounds(id, range);
        if one.is_some() {
            id.pattern("$regex", &pattern(range.first().to_string()));
        }
        return;
    }
    let buckets: Vec<_> = range.iter().take(MOST_SPANS + 1).collect();
    if buckets.len() <= MOST_SPANS {
        id.patterns("$in", buckets.iter().map(|bucket| format!("^{bucket}/")));
        if one.is_some() {
            id.pattern("$regex", &pattern(format!(".{{{length}}}")));
        }
        return;
    }
    write_bounds(id, range);
    id.pattern("$regex", &pattern(format!(".{{{length}}}")));
}

fn write_bounds(id: &mut Encoder, range: BucketRange) {
    let (from, to) = id_bounds(range.first(), range.last());
    id.string("$gte", &from);
    id.string("$lt", &to);
}

/// The range of a query, and its metric if it asks for one.
struct BucketsOfOne<'a> {
    range: BucketRange,
    one: Option<&'a str>,
}

impl<'a> BucketsOfOne<'a> {
    fn of(query: &'a Query) -> Self {
        let one = match &query.select {
            Select::All | Select::Page { .. } => None,
            Select::One(metric) => Some(metric.as_str()),
        };
        Self { range: query.range, one }
    }
}

/// The deltas of an unresolved batch that a query asks for.
struct Pending<'a> {
    batch: &'a Batch,
    writer: u64,
    deltas: Vec<(u64, Delta<'a>)>,
}

impl<'a> Pending<'a> {
    fn of(batch: &'a Batch, query: &Query) -> Option<Self> {
        let asked_for = batch.deltas().filter(|delta| query.asks_for(delta));
        let deltas: Vec<_> = asked_for.map(|delta| (hash(delta.metric), delta)).collect();
        let writer = hash(batch.id().writer.as_str());
        (!deltas.is_empty()).then_some(Self { batch, writer, deltas })
    }
}

/// What was read so far.
struct Sums<'a> {
    query: &'a Query,
    pending: Option<&'a Pending<'a>>,
    buckets: BTreeMap<Bucket, Vec<(String, i128)>>,
    /// Where the batch is in.
    applied: BTreeMap<Bucket, Vec<Partition>>,
}

impl<'a> Sums<'a> {
    fn new(query: &'a Query, pending: Option<&'a Pending<'a>>) -> Self {
        Self { query, pending, buckets: BTreeMap::new(), applied: BTreeMap::new() }
    }

    fn add(&mut self, document: &RawDocument) -> Result<(), StoreError> {
        let Some((bucket, partition)) = document.get_str("_id").ok().and_then(parse_id) else {
            return Ok(());
        };
        if !self.query.range.contains(bucket) {
            return Ok(());
        }
        if let Some(pending) = self.pending {
            let id = pending.batch.id();
            if watermark_of(document, id.writer.as_str()).is_some_and(|watermark| watermark >= seq(id)) {
                self.applied.entry(bucket).or_default().push(partition);
            }
        }
        let Ok(counters) = document.get_document(COUNTERS) else { return Ok(()) };
        let values = self.buckets.entry(bucket).or_default();
        for field in counters {
            let Ok((name, value)) = field else { break };
            // A value that is no number counts nothing. What is to be added to it is quarantined, with the reason.
            if let Some(value) = value_of(value) {
                let metric = decode_metric(name.as_str());
                if self.query.selects(&metric) {
                    values.push((metric.into_owned(), value.into()));
                }
            }
        }
        Ok(())
    }

    fn finish(self, query: &Query) -> Rows {
        let sums = self.buckets.into_iter().map(|(bucket, values)| (bucket, sum(values)));
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

/// Adds up what several documents hold of one metric. Each part fits into `i64`; a sum that does not stays at its end.
fn sum(mut values: Vec<(String, i128)>) -> Counters {
    values.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    values.dedup_by(|(metric, n), (kept, sum)| {
        let is_same = metric == kept;
        if is_same {
            *sum += *n;
        }
        is_same
    });
    let clamped = |sum: i128| i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
    values.into_iter().map(|(metric, sum)| (metric, clamped(sum))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_metric_are_summed() {
        let most = i128::from(i64::MAX);
        let values = [
            ("b", 1),
            ("a", 2),
            ("b", 3),
            ("b", -1),
            ("c", most),
            ("c", 2),
            ("c", -1),
            ("d", most),
            ("d", -most),
        ];
        let sums = [("a", 2), ("b", 3), ("c", i64::MAX), ("d", 0)].map(|(metric, n)| (metric.to_owned(), n));
        assert_eq!(sum(values.map(|(metric, n)| (metric.to_owned(), n)).to_vec()), Counters::from(sums));
    }
}
