//! A batch in the form in which it crosses to the writing thread.

use std::ops::Range;

use countem_core::{Batch, BatchId, Bucket, Delta, Mark};

/// A copy of a [`Batch`] that a thread of its own can own: the caller's batch stays where it is.
///
/// Deltas come ordered by collection and bucket, so both are kept once per group, and all metrics share one allocation.
#[derive(Debug)]
pub(crate) struct OwnedBatch {
    id: BatchId,
    mark: Option<Mark>,
    groups: Vec<Group>,
    rows: Vec<Row>,
    metrics: String,
}

#[derive(Debug)]
struct Group {
    collection: String,
    bucket: Bucket,
    bucket_id: String,
    rows: Range<usize>,
}

#[derive(Debug)]
struct Row {
    metric: Range<usize>,
    n: i64,
    increments: u64,
}

/// The deltas of one collection and bucket, ordered by metric.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnedGroup<'a> {
    batch: &'a OwnedBatch,
    group: &'a Group,
}

impl OwnedBatch {
    pub(crate) fn new(batch: &Batch) -> Self {
        let mut copy = Self {
            id: batch.id().clone(),
            mark: batch.mark().cloned(),
            groups: Vec::new(),
            rows: Vec::with_capacity(batch.len()),
            metrics: String::new(),
        };
        for delta in batch.deltas() {
            let metric = copy.metrics.len()..copy.metrics.len() + delta.metric.len();
            copy.metrics.push_str(delta.metric);
            let row = copy.rows.len();
            copy.rows.push(Row { metric, n: delta.n, increments: delta.increments });
            match copy.groups.last_mut() {
                Some(group) if group.bucket == delta.bucket && group.collection == delta.collection => {
                    group.rows.end = row + 1;
                }
                _ => copy.groups.push(Group {
                    collection: delta.collection.to_owned(),
                    bucket: delta.bucket,
                    bucket_id: delta.bucket.to_string(),
                    rows: row..row + 1,
                }),
            }
        }
        copy
    }

    pub(crate) fn id(&self) -> &BatchId {
        &self.id
    }

    pub(crate) fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = OwnedGroup<'_>> {
        self.groups.iter().map(|group| OwnedGroup { batch: self, group })
    }
}

impl<'a> OwnedGroup<'a> {
    pub(crate) fn collection(self) -> &'a str {
        &self.group.collection
    }

    pub(crate) fn bucket_id(self) -> &'a str {
        &self.group.bucket_id
    }

    pub(crate) fn len(self) -> usize {
        self.group.rows.len()
    }

    pub(crate) fn deltas(self) -> impl ExactSizeIterator<Item = Delta<'a>> {
        self.batch.rows[self.group.rows.clone()].iter().map(move |row| Delta {
            collection: &self.group.collection,
            metric: &self.batch.metrics[row.metric.clone()],
            bucket: self.group.bucket,
            n: row.n,
            increments: row.increments,
        })
    }
}

#[cfg(test)]
mod tests {
    use countem_core::{Table, Writer};

    use super::*;

    #[test]
    fn a_copy_has_the_deltas_of_the_batch_in_their_order() {
        let mut table = Table::new();
        for (collection, bucket, metric, n) in [
            ("b", "2026-11-20", "x", 1),
            ("a", "2026-11-20", "xx", 2),
            ("a", "2026-11-20", "x", 3),
            ("a", "2026-11-19", "x", 4),
            ("a", "2026-11", "ä", -5),
        ] {
            table.fold(collection, metric, bucket.parse().unwrap(), n).unwrap();
        }
        let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 };
        let batch = Batch::new(id.clone(), table.drain());
        let copy = OwnedBatch::new(&batch);
        assert_eq!(copy.id(), &id);
        let deltas: Vec<_> = copy.groups().flat_map(OwnedGroup::deltas).collect();
        assert_eq!(deltas, batch.deltas().collect::<Vec<_>>());
        let groups: Vec<_> = copy.groups().map(|g| (g.collection(), g.bucket_id(), g.len())).collect();
        assert_eq!(
            groups,
            [("a", "2026-11", 1), ("a", "2026-11-19", 1), ("a", "2026-11-20", 2), ("b", "2026-11-20", 1)]
        );
    }

    #[test]
    fn an_empty_batch_has_no_groups() {
        let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq: 1 };
        let batch = Batch::new(id, Table::new().drain());
        assert_eq!(OwnedBatch::new(&batch).groups().count(), 0);
    }
}
