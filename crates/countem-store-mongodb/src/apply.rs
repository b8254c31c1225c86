//! Adds the part of a batch that belongs to one collection, exactly once.
//!
//! In the normal case this is one command with one update for each document (up to four side by side where there are many):
//!
//! ```text
//! {_id: D, "w.<writer>": {$not: {$gte: seq}}, split: {$exists: false}}  →  {$inc: {…}, $set: {"w.<writer>": seq}}
//! ```
//!
//! with `upsert: false`. If as many updates applied as were sent, a majority has them all, and the batch is resolved. If not, the
//! documents are read (majority) to find the reason, and only then the run takes another step:
//!
//! | the document | next |
//! |---|---|
//! | has the watermark | the batch was in it already |
//! | is split | its children are responsible, see [`partition`](crate::partition) |
//! | is missing | create it, with a filter that is equality on `_id` only, then send again |
//! | is full | split it, then its children are responsible |
//! | has expired | quarantine the deltas, see [`expiry`](crate::expiry) |
//! | is none of these | another writer was in the way, send again |
//!
//! A duplicate key at a creation means that another writer created the document, and says nothing about this batch.
//!
//! An ambiguous failure (a broken connection, no answer, no majority, no longer primary) ends the run in doubt: the caller sends
//! the same batch again.
//!
//! **A read is believed only after a write that met the same state was answered.** A watermark that was read ends the
//! document's part of the batch only after an update of the document was answered with "did not apply"; a split that was read
//! sends deltas to the children only after a write that asked for this very split was answered. The answer waits until the
//! majority has the state that the write met, or on a standalone its journal; a read never waits.

use std::collections::{BTreeSet, HashMap};

use countem_core::{Batch, BatchId, Bucket, Delta};
use countem_store::{ErrorKind, Quarantined, StoreError};
use futures_util::future;
use mongodb::bson::{DateTime, RawDocumentBuf};

use crate::{
    command::{self, Reply, action},
    connection::Connection,
    error::WriteError,
    expiry::Indexes,
    known_splits::KnownSplits,
    names::mongo_collection,
    partition::hash,
};

mod create;
mod probe;
mod quarantine;
mod target;

pub(crate) use quarantine::Omitted;
pub(crate) use target::Limits;
use target::{Hashed, Step, Target};

/// State of a store that all its runs share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) splits: &'a KnownSplits,
    pub(crate) indexes: &'a Indexes,
    pub(crate) limits: Limits,
}

/// Outcome of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The run has added deltas.
    pub(crate) stored: bool,
    pub(crate) result: Result<Vec<Quarantined>, StoreError>,
}

/// Adds `deltas`, which are all those of `batch` for their collection. `is_new` promises that the batch was never sent before.
pub(crate) async fn apply(
    context: Context<'_>,
    batch: &Batch,
    collection: &str,
    deltas: &[Delta<'_>],
    is_new: bool,
) -> Outcome {
    let id = batch.id();
    let mut run = Run {
        context,
        id,
        is_journaled: batch.is_journaled(),
        collection,
        stored_in: mongo_collection(collection).into_owned(),
        writer: hash(id.writer.as_str()),
        targets: Vec::new(),
        expiries: HashMap::new(),
        removed: BTreeSet::new(),
        stored: false,
        quarantined: Vec::new(),
    };
    run.plan(deltas, is_new);
    let result = run.resolve().await;
    Outcome { stored: run.stored, result: result.map(|()| run.quarantined) }
}

/// The part of a batch that belongs to one collection, on its way into the documents.
struct Run<'a> {
    context: Context<'a>,
    id: &'a BatchId,
    /// A journal keeps what is quarantined.
    is_journaled: bool,
    collection: &'a str,
    /// The MongoDB collection.
    stored_in: String,
    /// Hash of the writer.
    writer: u64,
    /// The documents that may not have the batch yet.
    targets: Vec<Target<'a>>,
    /// When the documents of a bucket are removed, as its root says.
    expiries: HashMap<Bucket, Option<DateTime>>,
    /// Buckets of which a child is missing, and no root tells of it.
    removed: BTreeSet<Bucket>,
    stored: bool,
    quarantined: Vec<Quarantined>,
}

/// Maximum number of rounds. After so many the documents change too often, and the caller may back off.
const MAX_ROUNDS: usize = 64;
/// Maximum number of bytes of updates in one command. A command is one BSON document, which ends at 16 MB.
const MAX_COMMAND_BYTES: usize = 8 * 1024 * 1024;
/// Maximum number of commands side by side: each keeps one core of the server busy …
const MAX_COMMANDS: usize = 4;
/// … as long as each has at least this number of updates.
const MIN_UPDATES: usize = 32;
/// Maximum number of updates in one command; the server takes 100,000.
const MAX_UPDATES: usize = 20_000;

impl<'a> Run<'a> {
    fn plan(&mut self, deltas: &[Delta<'a>], is_new: bool) {
        let Context { splits, limits, .. } = self.context;
        for bucket in deltas.chunk_by(|a, b| a.bucket == b.bucket) {
            let hashed =
                bucket.iter().map(|delta| Hashed { hash: hash(delta.metric), delta: *delta }).collect();
            // Known splits are skipped. That is safe only for a batch that cannot have been added to these documents before
            // they were split.
            let splits = if is_new { splits.of(self.collection, bucket[0].bucket) } else { None };
            Target::of_bucket(hashed, splits.as_deref(), self.writer, limits, &mut self.targets);
        }
    }

    async fn resolve(&mut self) -> Result<(), StoreError> {
        for _ in 0..MAX_ROUNDS {
            if self.targets.is_empty() {
                return Ok(());
            }
            self.probe().await?;
            self.confirm_splits().await?;
            self.find_offenders().await?;
            self.create_and_split().await?;
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

    /// Sends the updates, in as few commands as they fit into, and waits for all answers.
    async fn send(&mut self) -> Result<(), StoreError> {
        let (sending, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.targets).into_iter().partition(|target| target.step == Step::Send);
        self.targets = waiting;
        let at_most = sending.len().div_ceil(MAX_COMMANDS).max(MIN_UPDATES);
        let mut commands = Vec::new();
        let mut rest = sending;
        while !rest.is_empty() {
            let later = rest.split_off(fitting(&rest).min(at_most));
            commands.push(std::mem::replace(&mut rest, later));
        }
        let (id, is_journaled, limits) = (self.id, self.is_journaled, self.context.limits);
        let run = &*self;
        // Updates are built when their command is polled, so that the server works on one command while the next is built.
        let replies = commands.iter().map(|targets| async move {
            run.write(targets.iter().map(|target| target.update(id, is_journaled, limits)).collect()).await
        });
        let replies = future::join_all(replies).await;
        let mut result = Ok(());
        for (targets, reply) in commands.into_iter().zip(replies) {
            let taken = match reply {
                Ok(reply) => self.take_reply(targets, reply),
                Err(error) => Err(error),
            };
            result = more_doubtful(result, taken);
        }
        result
    }

    /// Decides on the next step of each of `targets` from the reply to their updates.
    fn take_reply(&mut self, targets: Vec<Target<'a>>, reply: Reply) -> Result<(), StoreError> {
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
                    target.step = Step::Probe;
                }
                Some(WriteError::Data(words)) => target.step = Step::FindOffenders(words),
                Some(WriteError::Exists) => target.step = Step::Probe,
                Some(WriteError::Other(kind, words)) => {
                    result = more_doubtful(result, Err(self.failed(kind, &words)));
                }
            }
            self.targets.push(target);
        }
        result
    }

    /// Notes the deltas that a document with the batch omits.
    fn report(&mut self, target: &Target<'_>, omitted: &Omitted) {
        if omitted.is_empty() {
            return;
        }
        let quarantined = target.deltas.iter().filter_map(|hashed| {
            let reason = omitted.get(hashed.delta.metric)?;
            Some(Quarantined::new(hashed.delta, reason))
        });
        self.quarantined.extend(quarantined);
    }

    async fn write(&self, updates: Vec<RawDocumentBuf>) -> Result<Reply, StoreError> {
        command::write(self.context.connection, "update", &self.stored_in, updates).await
    }

    fn at_step(&self, is_at: impl Fn(&Step) -> bool) -> impl Iterator<Item = &Target<'a>> {
        self.targets.iter().filter(move |target| is_at(&target.step))
    }

    fn failed(&self, kind: ErrorKind, words: &str) -> StoreError {
        self.context.connection.failed(kind, &action("update", &self.stored_in), words)
    }
}

/// Returns the result that leaves more doubt.
pub(crate) fn more_doubtful<T>(a: Result<T, StoreError>, b: Result<T, StoreError>) -> Result<T, StoreError> {
    let doubt = |result: &Result<T, StoreError>| {
        result.as_ref().err().map(|error| error.kind() == ErrorKind::InDoubt)
    };
    if doubt(&b) > doubt(&a) { b } else { a }
}

/// Returns the number of leading `targets` that fit into one command, at least one.
fn fitting(targets: &[Target<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |target: &&Target<'_>| {
        bytes += target.update_bytes();
        bytes <= MAX_COMMAND_BYTES
    };
    targets.iter().take(MAX_UPDATES).take_while(fits).count().max(1)
}
