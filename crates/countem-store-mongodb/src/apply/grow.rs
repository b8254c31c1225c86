//! Creates documents, and splits those that are full.

use countem_store::StoreError;

use super::Run;
use crate::{
    command,
    document::{COUNTERS, EXPIRES_AT, SPLIT, WATERMARKS},
    encoder::Encoder,
    error::{WriteError, without_effect},
    expiry::Expiry,
    partition::{By, Split},
    target::{Step, Target},
};

impl Run<'_> {
    /// Hands the deltas of split documents on to the children, once it is certain that the splits will stay.
    pub(super) async fn confirm(&mut self) -> Result<(), StoreError> {
        let is_split = |step: &Step| matches!(step, Step::Confirm(_));
        let count = self.at_step(is_split).count();
        if count == 0 {
            return Ok(());
        }
        let updates = self.at_step(is_split);
        let command = command::update(&self.stored_in, self.deadline(), 0, updates, write_confirmation)?;
        let reply = self.send_command(command).await.map_err(without_effect)?;
        let is_certain = reply.matched == count;
        for mut target in std::mem::take(&mut self.targets) {
            match target.step {
                Step::Confirm(split) if is_certain => {
                    self.context.forest.learn(self.collection, target.bucket, target.partition, split);
                    target.into_children(split, self.writer, self.context.limits, &mut self.targets);
                    continue;
                }
                // The server went down and came back without one of them.
                Step::Confirm(_) => target.step = Step::Navigate,
                _ => {}
            }
            self.targets.push(target);
        }
        Ok(())
    }

    /// Creates what is missing and splits what is full.
    pub(super) async fn grow(&mut self) -> Result<(), StoreError> {
        let growing = |step: &Step| matches!(step, Step::Create(_) | Step::Divide(_));
        if self.at_step(growing).next().is_none() {
            return Ok(());
        }
        self.context.expiry.prepare(self.context.connection, &self.stored_in).await;
        let expiry = self.context.expiry;
        let command =
            command::update(&self.stored_in, self.deadline(), 0, self.at_step(growing), |update, target| {
                write_growth(update, target, expiry)
            })?;
        let reply = self.send_command(command).await.map_err(without_effect)?;
        if let Some((_, WriteError::Other(kind, words))) =
            reply.errors.into_iter().find(|(_, error)| matches!(error, WriteError::Other(..)))
        {
            return Err(self.told(kind, &words));
        }
        for target in &mut self.targets {
            target.step = match &target.step {
                // There now, whoever created it.
                Step::Create(None) => Step::Send,
                Step::Create(Some(_)) | Step::Divide(_) => {
                    target.divided = true;
                    Step::Navigate
                }
                other => other.clone(),
            };
        }
        Ok(())
    }
}

/// Asks for a split as it was read, and changes nothing.
fn write_confirmation(update: &mut Encoder, target: &Target<'_>) {
    let Step::Confirm(split) = target.step else { return };
    update.document("q", |query| {
        query.string("_id", &target.id());
        write_split(query, split);
    });
    update.document("u", |change| change.document("$set", |set| write_split(set, split)));
}

fn write_split(fields: &mut Encoder, split: Split) {
    let by = match split.by {
        By::Metrics => "metrics",
        By::Writers => "writers",
    };
    let parts = i32::try_from(split.parts()).expect("a split has at most 2^24 parts");
    fields.document(SPLIT, |field| field.int32(by, parts));
}

fn write_growth(update: &mut Encoder, target: &Target<'_>, expiry: &Expiry) {
    if let Step::Divide(split) = target.step {
        update.document("q", |query| {
            query.string("_id", &target.id());
            query.document(SPLIT, |split| split.boolean("$exists", false));
        });
        update.document("u", |change| change.document("$set", |set| write_split(set, split)));
        return;
    }
    update.document("q", |query| query.string("_id", &target.id()));
    update.document("u", |change| {
        change.document("$setOnInsert", |fields| {
            fields.document(COUNTERS, |_| {});
            fields.document(WATERMARKS, |_| {});
            if let Step::Create(Some(split)) = target.step {
                write_split(fields, split);
            }
            if let Some(at) = expiry.of(target.bucket) {
                fields.date(EXPIRES_AT, at);
            }
        });
    });
    update.boolean("upsert", true);
}
