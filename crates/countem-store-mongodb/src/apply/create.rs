//! Creation of documents, and the split of full ones.

use countem_store::StoreError;
use mongodb::bson::{RawDocumentBuf, rawdoc};

use super::{
    Context, Run,
    target::{Step, Target},
};
use crate::{
    document::{COUNTERS, DocumentId, EXPIRED, EXPIRES_AT, SPLIT, WATERMARKS},
    error::{WriteError, without_effect},
    expiry::Expiry,
    partition::{By, Partition, Split},
};

impl Run<'_> {
    /// Hands the deltas of split documents on to the children, once it is certain that the splits will stay.
    pub(super) async fn confirm_splits(&mut self) -> Result<(), StoreError> {
        let confirmations: Vec<_> = self.targets.iter().filter_map(confirmation).collect();
        let count = confirmations.len();
        if count == 0 {
            return Ok(());
        }
        let is_certain = self.write(confirmations).await.map_err(without_effect)?.matched == count;
        for mut target in std::mem::take(&mut self.targets) {
            match target.step {
                Step::Confirm(split) if is_certain => {
                    self.context.splits.learn(self.collection, target.id.bucket, target.id.partition, split);
                    target.into_children(split, self.writer, self.context.limits, &mut self.targets);
                    continue;
                }
                // The server went down and came back without one of them.
                Step::Confirm(_) => target.step = Step::Probe,
                _ => {}
            }
            self.targets.push(target);
        }
        Ok(())
    }

    /// Creates missing documents and splits full ones.
    pub(super) async fn create_and_split(&mut self) -> Result<(), StoreError> {
        let Some(_) = self.at_step(|step| matches!(step, Step::Create(_) | Step::Split(_))).next() else {
            return Ok(());
        };
        let Context { connection, indexes, .. } = self.context;
        let new_roots = self.targets.iter().filter(|target| target.creates_root());
        let new_roots: Vec<_> = new_roots.map(|target| target.id.bucket).collect();
        let expiry = Expiry::of_new_roots(connection, &new_roots).await.map_err(without_effect)?;
        if new_roots.iter().any(|bucket| expiry.removal(self.collection, *bucket).is_some()) {
            indexes.prepare(connection, &self.stored_in).await;
        }
        for target in &mut self.targets {
            if target.creates_root() && expiry.may_be_gone(self.collection, target.id.bucket) {
                target.omit_expired();
                target.step = Step::Create(None);
            }
        }
        let updates: Vec<_> =
            self.targets.iter().filter_map(|target| self.creation(target, &expiry)).collect();
        let reply = self.write(updates).await.map_err(without_effect)?;
        for (_, error) in reply.errors {
            if let WriteError::Other(kind, words) = error {
                return Err(self.failed(kind, &words));
            }
        }
        for target in &mut self.targets {
            target.step = match &target.step {
                // It exists now, whichever writer created it.
                Step::Create(None) => Step::Send,
                Step::Create(Some(_)) | Step::Split(_) => {
                    target.split_here = true;
                    Step::Probe
                }
                other => other.clone(),
            };
        }
        Ok(())
    }

    /// Returns the update that creates or splits the document of `target`.
    fn creation(&self, target: &Target<'_>, expiry: &Expiry) -> Option<RawDocumentBuf> {
        let DocumentId { bucket, partition } = target.id;
        let id = target.id.to_string();
        let split = match target.step {
            Step::Create(split) => split,
            Step::Split(split) => {
                return Some(rawdoc! {
                    "q": { "_id": id, SPLIT: { "$exists": false } },
                    "u": { "$set": { SPLIT: stored(split) } },
                });
            }
            _ => return None,
        };
        let mut fields = rawdoc! { COUNTERS: {}, WATERMARKS: {} };
        if let Some(split) = split {
            fields.append(SPLIT, stored(split));
        }
        let is_root = partition == Partition::ROOT;
        let expires_at = match is_root {
            true => expiry.removal(self.collection, bucket),
            false => self.expiries.get(&bucket).copied().flatten(),
        };
        if is_root && expiry.may_be_gone(self.collection, bucket) {
            fields.append(EXPIRED, true);
        } else if let Some(at) = expires_at {
            fields.append(EXPIRES_AT, at);
        }
        Some(rawdoc! { "q": { "_id": id }, "u": { "$setOnInsert": fields }, "upsert": true })
    }
}

/// Returns an update that meets only a split as it was read, and changes nothing.
fn confirmation(target: &Target<'_>) -> Option<RawDocumentBuf> {
    let Step::Confirm(split) = target.step else { return None };
    Some(rawdoc! {
        "q": { "_id": target.id.to_string(), SPLIT: stored(split) },
        "u": { "$set": { SPLIT: stored(split) } },
    })
}

/// Returns the value of the field [`SPLIT`].
fn stored(split: Split) -> RawDocumentBuf {
    let parts = i32::try_from(split.parts()).expect("a split has at most 2^24 parts");
    match split.by {
        By::Metrics => rawdoc! { "metrics": parts },
        By::Writers => rawdoc! { "writers": parts },
    }
}
