//! A toy of a replica set: documents with watermarks, a primary, and what a majority of the members has.

use std::collections::{BTreeMap, BTreeSet};

use countem_core::{Batch, BatchId, Writer};

/// Documents that the metrics of a collection are spread over.
pub(super) const DOCUMENTS: usize = 2;

/// A counter: collection and metric.
pub(super) type Key = (String, String);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Server {
    primary: Data,
    majority: Data,
    /// The newest writer of every node.
    register: BTreeMap<u64, Writer>,
}

#[derive(Debug, Default, Clone)]
struct Data {
    documents: BTreeMap<Document, Content>,
}

/// A document: collection and number.
type Document = (String, usize);

#[derive(Debug, Default, Clone)]
struct Content {
    counters: BTreeMap<String, i64>,
    watermarks: BTreeMap<Writer, u64>,
}

/// Returns the number of the document that has a metric.
fn document_of(metric: &str) -> usize {
    metric.bytes().map(usize::from).sum::<usize>() % DOCUMENTS
}

fn documents_of(batch: &Batch) -> BTreeSet<Document> {
    batch.deltas().map(|delta| (delta.collection.to_owned(), document_of(delta.metric))).collect()
}

impl Server {
    /// Writes the documents of a batch, in any case at most once: all of them, or the one number `part`. Returns whether
    /// all are written.
    pub(super) fn apply(&mut self, batch: &Batch, part: Option<usize>) -> bool {
        let BatchId { writer, seq, .. } = batch.id();
        for document in documents_of(batch) {
            if part.is_some_and(|part| part != document.1) {
                continue;
            }
            let content = self.primary.documents.entry(document.clone()).or_default();
            let watermark = content.watermarks.entry(writer.clone()).or_default();
            if *watermark >= *seq {
                continue;
            }
            *watermark = *seq;
            let here = batch
                .deltas()
                .filter(|delta| delta.collection == document.0 && document_of(delta.metric) == document.1);
            for delta in here {
                *content.counters.entry(delta.metric.to_owned()).or_default() += delta.n;
            }
        }
        part.is_none()
    }

    /// Registers a writer, unless another start of its node that is as new was registered. Returns whether it is registered.
    pub(super) fn register(&mut self, writer: &Writer) -> bool {
        let known = self.register.entry(writer.node()).or_insert_with(|| writer.clone());
        if known.epoch() < writer.epoch() {
            *known = writer.clone();
        }
        known == writer
    }

    /// Tells whether every document of a batch has it, and whether a majority has it, too.
    pub(super) fn has(&self, batch: &Batch) -> (bool, bool) {
        (self.primary.has(batch), self.majority.has(batch))
    }

    pub(super) fn replicate(&mut self) {
        self.majority = self.primary.clone();
    }

    pub(super) fn fail_over(&mut self) {
        self.primary = self.majority.clone();
    }

    /// Returns all counters that are not zero.
    pub(super) fn counters(&self) -> BTreeMap<Key, i64> {
        let mut counters = BTreeMap::new();
        for ((collection, _), content) in &self.primary.documents {
            for (metric, n) in content.counters.iter().filter(|(_, n)| **n != 0) {
                counters.insert((collection.clone(), metric.clone()), *n);
            }
        }
        counters
    }
}

impl Data {
    fn has(&self, batch: &Batch) -> bool {
        let BatchId { writer, seq, .. } = batch.id();
        documents_of(batch).iter().all(|document| {
            let content = self.documents.get(document);
            content
                .and_then(|content| content.watermarks.get(writer))
                .is_some_and(|watermark| watermark >= seq)
        })
    }
}
