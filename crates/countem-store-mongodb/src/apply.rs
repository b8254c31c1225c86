//! Adds the part of a batch that belongs to one collection, exactly once.
//!
//! In the normal case this is one command with one update for each document (up to four side by side where there are many):
//!
//! ```text
//! {_id: D, "w.<writer>": {$not: {$gte: seq}}, split: {$exists: false}}  →  {$inc: {…}, $set: {"w.<writer>": seq}}
//! ```
//!
//! with `upsert: false`. If as many updates applied as were sent, a majority has them all, and that was it. If not, the
//! documents are read (majority) to see why not, and only then anything else is done:
//!
//! | the document | then |
//! |---|---|
//! | has the watermark | the batch was in it already |
//! | is split | its children are responsible, see [`partition`](crate::partition) |
//! | is not there | create it, with a filter that is equality on `_id` only, then send again |
//! | is full | split it, then its children are responsible |
//! | is none of these | another writer was in the way, send again |
//!
//! A duplicate key when creating says that another writer created the document, and nothing about this batch.
//!
//! An ambiguous failure (a broken connection, no answer, no majority, no longer primary) ends the run in doubt: the caller sends
//! the same batch again.
//!
//! **Nothing that a read shows is believed until a write that met it was answered.** That a document has the watermark ends
//! its part of the batch only after an update of it was answered with "did not apply"; that a document is split sends
//! deltas to its children only after a write that asked for this very split was answered. For the answer waits until the
//! majority has what the write met, and on a standalone until the journal has it, which no read ever does.

use std::collections::HashMap;

use countem_core::{BatchId, Delta};
use countem_store::{ErrorKind, Quarantined, StoreError};
use futures_util::future;
use mongodb::bson::{Document, RawDocumentBuf};

use crate::{
    command::{self, Reply, what},
    connection::Connection,
    document::mongo_collection,
    error::{Failure, WriteError, without_effect},
    expiry::Expiry,
    partition::{Forest, hash},
    quarantine::Omitted,
    target::{Counted, Limits, Step, Target},
};

mod grow;
mod look;

use look::Seen;

/// What all runs of a store share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) forest: &'a Forest,
    pub(crate) expiry: &'a Expiry,
    pub(crate) limits: Limits,
}

/// What became of the part of a batch that belongs to one collection.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Something was added by this run.
    pub(crate) stored: bool,
    pub(crate) result: Result<Vec<Quarantined>, StoreError>,
}

/// Adds `deltas`, which are all those of the batch for their collection. `is_new` says that nobody sent the batch before.
pub(crate) async fn apply(
    context: Context<'_>,
    id: &BatchId,
    collection: &str,
    deltas: &[Delta<'_>],
    is_new: bool,
) -> Outcome {
    let mut run = Run {
        context,
        id,
        collection,
        stored_in: mongo_collection(collection).into_owned(),
        writer: hash(id.writer.as_str()),
        targets: Vec::new(),
        stored: false,
        quarantined: Vec::new(),
    };
    run.plan(deltas, is_new);
    let result = run.settle().await;
    Outcome { stored: run.stored, result: result.map(|()| run.quarantined) }
}

struct Run<'a> {
    context: Context<'a>,
    id: &'a BatchId,
    collection: &'a str,
    /// The MongoDB collection.
    stored_in: String,
    /// Hash of the writer.
    writer: u64,
    /// The documents that may not have the batch yet.
    targets: Vec<Target<'a>>,
    stored: bool,
    quarantined: Vec<Quarantined>,
}

/// After so many looks at documents that other writers keep changing, the caller may back off.
const MOST_ROUNDS: usize = 64;
/// Most bytes of updates in one command. A command is one BSON document, which ends at 16 MB.
const MOST_COMMAND_BYTES: usize = 8 * 1024 * 1024;
/// A command keeps one core of the server busy, so that many documents are worth several commands side by side …
const MOST_COMMANDS: usize = 4;
/// … as long as each has at least so many updates.
const LEAST_UPDATES: usize = 32;
/// Most updates in one command; the server takes 100,000.
const MOST_UPDATES: usize = 20_000;

impl<'a> Run<'a> {
    fn plan(&mut self, deltas: &[Delta<'a>], is_new: bool) {
        let Context { forest, limits, .. } = self.context;
        for bucket in deltas.chunk_by(|a, b| a.bucket == b.bucket) {
            let counted =
                bucket.iter().map(|delta| Counted { hash: hash(delta.metric), delta: *delta }).collect();
            // Whoever knows the tree skips the documents that were split. That is safe only for a batch that cannot have been
            // added to them before they were.
            let tree = if is_new { forest.tree(self.collection, bucket[0].bucket) } else { None };
            Target::of_bucket(counted, tree.as_deref(), self.writer, limits, &mut self.targets);
        }
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        for _ in 0..MOST_ROUNDS {
            if self.targets.is_empty() {
                return Ok(());
            }
            self.navigate().await?;
            self.confirm().await?;
            self.examine().await?;
            self.grow().await?;
            self.send().await?;
        }
        Err(StoreError::new(
            ErrorKind::NotApplied,
            format!(
                "cannot update `{}`: other writers change the same documents all the time",
                self.collection
            ),
        ))
    }

    /// Looks at the documents of which nothing is known yet or whose update did not apply.
    async fn navigate(&mut self) -> Result<(), StoreError> {
        let ids: Vec<_> = self.at_step(|step| *step == Step::Navigate).map(Target::id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let seen = self.look(&ids).await.map_err(without_effect)?;
        for target in std::mem::take(&mut self.targets) {
            if target.step == Step::Navigate {
                let seen = seen.get(&(target.bucket, target.partition));
                self.decide(target, seen);
            } else {
                self.targets.push(target);
            }
        }
        Ok(())
    }

    fn decide(&mut self, mut target: Target<'a>, seen: Option<&Seen>) {
        let limits = self.context.limits;
        let Some(seen) = seen else {
            target.step = Step::Create(target.split_when_missing(limits));
            self.targets.push(target);
            return;
        };
        if seen.watermark.is_some_and(|watermark| watermark >= command::seq(self.id)) {
            // Before it is believed an update has to be refused: see the head of this file.
            if target.refused {
                self.report(&target, &seen.omitted);
            } else {
                target.step = Step::Send;
                self.targets.push(target);
            }
            return;
        }
        target.step = match seen.split {
            Some(split) => Step::Confirm(split),
            None => target.split_when_there(seen.size, limits).map_or(Step::Send, Step::Divide),
        };
        self.targets.push(target);
    }

    /// Sends the updates, in as few commands as they fit into, and waits for all answers.
    async fn send(&mut self) -> Result<(), StoreError> {
        let (sending, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.targets).into_iter().partition(|target| target.step == Step::Send);
        self.targets = waiting;
        let at_most = sending.len().div_ceil(MOST_COMMANDS).max(LEAST_UPDATES);
        let mut commands = Vec::new();
        let mut rest = sending;
        while !rest.is_empty() {
            let later = rest.split_off(fitting(&rest).min(at_most));
            commands.push(std::mem::replace(&mut rest, later));
        }
        let answers = future::join_all(commands.into_iter().map(|targets| self.send_one(targets))).await;
        let taken_in = answers.into_iter().map(|(targets, answer)| self.take_in(targets, answer?));
        taken_in.collect::<Vec<_>>().into_iter().fold(Ok(()), worse)
    }

    async fn send_one(&self, targets: Vec<Target<'a>>) -> (Vec<Target<'a>>, Result<Reply, StoreError>) {
        let bytes = targets.iter().map(Target::update_bytes).sum();
        let (id, limits) = (self.id, self.context.limits);
        let command = command::update(&self.stored_in, self.deadline(), bytes, &targets, |update, target| {
            target.write_update(update, id, limits);
        });
        let answer = match command {
            Ok(command) => self.send_command(command).await,
            Err(error) => Err(error),
        };
        (targets, answer)
    }

    /// Draws the conclusions from the answer to the updates of `targets`.
    fn take_in(&mut self, targets: Vec<Target<'a>>, reply: Reply) -> Result<(), StoreError> {
        self.stored |= reply.matched > 0;
        let is_complete = reply.matched + reply.errors.len() == targets.len();
        let mut errors: HashMap<_, _> = reply.errors.into_iter().collect();
        let mut result = Ok(());
        for (at, mut target) in targets.into_iter().enumerate() {
            match errors.remove(&at) {
                None if is_complete => {
                    let omitted = std::mem::take(&mut target.omitted);
                    self.report(&target, &omitted);
                    continue;
                }
                None => {
                    target.refused = true;
                    target.step = Step::Navigate;
                }
                Some(WriteError::Data(words)) => target.step = Step::Examine(words),
                Some(WriteError::Exists) => target.step = Step::Navigate,
                Some(WriteError::Other(kind, words)) => result = worse(result, Err(self.told(kind, &words))),
            }
            self.targets.push(target);
        }
        result
    }

    /// Notes what the document that has the batch now does not have of it.
    fn report(&mut self, target: &Target<'_>, omitted: &Omitted) {
        if omitted.is_empty() {
            return;
        }
        let left_out = target.deltas.iter().filter_map(|counted| {
            let reason = omitted.get(counted.delta.metric)?;
            Some(Quarantined::new(counted.delta, reason))
        });
        self.quarantined.extend(left_out);
    }

    async fn send_command(&self, command: RawDocumentBuf) -> Result<Reply, StoreError> {
        let reply = command::send(self.context.connection, command).await;
        let reply: Document = reply.map_err(|failure| self.failed("update", failure))?;
        Reply::read(&reply).map_err(|unconfirmed| self.told(ErrorKind::InDoubt, &unconfirmed.0))
    }

    fn at_step(&self, is_at: impl Fn(&Step) -> bool) -> impl Iterator<Item = &Target<'a>> {
        self.targets.iter().filter(move |target| is_at(&target.step))
    }

    fn deadline(&self) -> std::time::Duration {
        self.context.connection.options.deadline
    }

    fn failed(&self, verb: &str, failure: Failure) -> StoreError {
        self.context.connection.explain(&what(verb, &self.stored_in), failure)
    }

    fn told(&self, kind: ErrorKind, words: &str) -> StoreError {
        let at = self.context.connection.at();
        StoreError::new(kind, format!("cannot update `{}` at `{at}`: {words}", self.stored_in))
    }
}

/// Returns the result that leaves more doubt.
pub(crate) fn worse<T>(a: Result<T, StoreError>, b: Result<T, StoreError>) -> Result<T, StoreError> {
    let doubt = |result: &Result<T, StoreError>| {
        result.as_ref().err().map(|error| error.kind() == ErrorKind::InDoubt)
    };
    if doubt(&b) > doubt(&a) { b } else { a }
}

/// Returns how many of `targets` fit into one command, at least one.
fn fitting(targets: &[Target<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |target: &&Target<'_>| {
        bytes += target.update_bytes();
        bytes <= MOST_COMMAND_BYTES
    };
    targets.iter().take(MOST_UPDATES).take_while(fits).count().max(1)
}
