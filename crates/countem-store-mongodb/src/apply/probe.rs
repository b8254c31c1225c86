//! The state of documents as far as it concerns a batch.

use std::collections::{BTreeSet, HashMap};

use countem_core::BatchId;
use countem_store::{ErrorKind, StoreError};
use mongodb::bson::{DateTime, RawArrayBuf, RawDocument, rawdoc};

use super::{
    Run,
    quarantine::{Omitted, read_stamp},
    target::{MAX_DOCUMENT, Step, Target},
};
use crate::{
    command::{self, Level},
    document::{
        DocumentId, EXPIRED, EXPIRES_AT, QUARANTINED, SPLIT, WATERMARKS, has_batch, number_in,
        size_of_counters, split_of,
    },
    expiry::has_expired,
    names::path,
    partition::{Partition, Split},
};

/// State of a document, read with read concern `majority`.
#[derive(Debug)]
struct State {
    has_batch: bool,
    split: Option<Split>,
    /// Bytes of the counters.
    size: usize,
    /// The whole document has become large.
    is_large: bool,
    omitted: Omitted,
    has_expired: bool,
    expires_at: Option<DateTime>,
    /// A root in which nothing was ever counted, because its bucket had expired.
    is_marked_expired: bool,
}

impl State {
    fn read(
        document: &RawDocument,
        document_id: DocumentId,
        id: &BatchId,
        collection: &str,
    ) -> Result<Self, StoreError> {
        let split = split_of(document, document_id.partition).map_err(|_| {
            let why =
                format!("the field `{SPLIT}` of the document `{document_id}` of `{collection}` is damaged");
            StoreError::new(ErrorKind::Refused, why)
        })?;
        let size = number_in(document, "size").and_then(|size| usize::try_from(size).ok());
        Ok(Self {
            has_batch: has_batch(document, id),
            split,
            size: size.unwrap_or_default(),
            is_large: number_in(document, "document").is_some_and(|size| size >= MAX_DOCUMENT.into()),
            omitted: read_stamp(document, id),
            has_expired: document.get_bool("has_expired").unwrap_or(false),
            expires_at: document.get_datetime(EXPIRES_AT).ok(),
            is_marked_expired: document.get_bool(EXPIRED).unwrap_or(false),
        })
    }
}

impl<'a> Run<'a> {
    /// Reads the documents whose state is unknown or whose update did not apply, and decides on the next step.
    pub(super) async fn probe(&mut self) -> Result<(), StoreError> {
        let probed: Vec<_> = self.at_step(|step| *step == Step::Probe).map(|target| target.id).collect();
        if probed.is_empty() {
            return Ok(());
        }
        // Whether a child may be created, and when it expires, depends on the root.
        let roots = probed.iter().map(|id| DocumentId::root(id.bucket));
        let ids: BTreeSet<_> = probed.iter().copied().chain(roots).map(|id| id.to_string()).collect();
        let states = self.read_states(ids.into_iter().collect()).await?;
        for target in std::mem::take(&mut self.targets) {
            if target.step == Step::Probe {
                self.decide(target, &states);
            } else {
                self.targets.push(target);
            }
        }
        self.return_to_roots();
        Ok(())
    }

    /// Hands all deltas of a bucket whose root has gone, and the children with it, back to the root.
    fn return_to_roots(&mut self) {
        for bucket in std::mem::take(&mut self.removed) {
            self.context.splits.forget(self.collection, bucket);
            let of_bucket = |target: &mut Target<'_>| target.id.bucket == bucket;
            let deltas = self.targets.extract_if(.., of_bucket).flat_map(|target| target.deltas).collect();
            self.targets.push(Target::probing(DocumentId::root(bucket), deltas, self.context.limits));
        }
    }

    fn decide(&mut self, mut target: Target<'a>, states: &HashMap<DocumentId, State>) {
        let limits = self.context.limits;
        let root = states.get(&DocumentId::root(target.id.bucket));
        if let Some(root) = root {
            self.expiries.insert(target.id.bucket, root.expires_at);
        }
        target.step = match states.get(&target.id) {
            None if target.id.partition != Partition::ROOT
                && root.is_none_or(|root| root.split.is_none()) =>
            {
                self.removed.insert(target.id.bucket);
                Step::Probe
            }
            None => Step::Create(target.split_when_missing(limits)),
            // Before the watermark is believed an update has to be refused: see the head of `apply`.
            Some(state) if state.has_batch && target.refused => {
                if state.is_marked_expired {
                    target.omit_expired();
                    let omitted = std::mem::take(&mut target.omitted);
                    return self.report(&target, &omitted);
                }
                return self.report(&target, &state.omitted);
            }
            Some(state) if state.has_batch => Step::Send,
            Some(State { split: Some(split), .. }) => Step::Confirm(*split),
            Some(State { has_expired: true, .. }) => {
                target.omit_expired();
                Step::Send
            }
            Some(state) => {
                target.split_when_there(state.size, state.is_large, limits).map_or(Step::Send, Step::Split)
            }
        };
        self.targets.push(target);
    }

    async fn read_states(&self, ids: RawArrayBuf) -> Result<HashMap<DocumentId, State>, StoreError> {
        let writer = self.id.writer.as_str();
        let find = command::find(
            self.context.connection,
            &self.stored_in,
            Level::Majority,
            rawdoc! { "_id": { "$in": ids } },
            rawdoc! {
                (path(WATERMARKS, writer)): 1,
                (path(QUARANTINED, writer)): 1,
                SPLIT: 1,
                EXPIRES_AT: 1,
                EXPIRED: 1,
                "has_expired": has_expired(),
                "size": size_of_counters(),
                "document": { "$bsonSize": "$$ROOT" },
            },
        );
        let mut states = HashMap::new();
        command::read(self.context.connection, &self.stored_in, find, |document| {
            if let Some(document_id) = DocumentId::of(document) {
                states.insert(document_id, State::read(document, document_id, self.id, &self.stored_in)?);
            }
            Ok(())
        })
        .await?;
        Ok(states)
    }
}
