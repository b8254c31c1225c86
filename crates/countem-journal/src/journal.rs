//! The handle.

mod blocking;

use std::{path::PathBuf, sync::Arc};

use countem_core::{Batch, BatchId, Writer};

use crate::{
    config::JournalConfig,
    error::{Failure, JournalError},
    keyed::KeyedEntry,
    quarantine::{QuarantineEntry, Quarantined, Selection},
    reader::JournalReader,
    record::{Record, Recorded, Refused},
    recovered::Recovered,
    shared::Shared,
    status::Status,
    tables::batches::Encoded,
    thread::{
        JournalThread, open,
        record::RecordRequest,
        request::{Call, Urgency},
        transaction::{Retried, Transaction},
    },
};

/// A journal that is open for writing. Its directory belongs to this process until it is dropped.
///
/// Requests are executed in the order in which they are made, and no call waits: each takes a callback `done`, which is
/// called exactly once, on the journal's own thread, and has to return soon. Requests that are made during a commit share
/// the next one.
///
/// Dropping the journal executes what was requested, which may wait for the disk, and closes the file.
#[derive(Debug)]
pub struct Journal {
    thread: JournalThread,
    shared: Arc<Shared>,
    dir: PathBuf,
}

impl Journal {
    /// Opens the journal in `config.dir`, or creates it, and raises its epoch.
    ///
    /// When this returns, the epoch is durable: no earlier and no later process freezes under the same
    /// [`writer`](Self::writer), whatever the clock says. Blocks on the disk.
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked), [`Corrupt`](crate::ErrorKind::Corrupt) and [`Refused`](crate::ErrorKind::Refused) need a
    /// person; [`Full`](crate::ErrorKind::Full) and [`Unavailable`](crate::ErrorKind::Unavailable) may pass. In no case is a count lost.
    pub fn open(config: JournalConfig) -> Result<(Self, Recovered), JournalError> {
        let dir = config.dir.clone();
        let (transactions, recovered) = open::open(config)?;
        let shared = Arc::clone(&transactions.shared);
        Ok((Self { thread: JournalThread::start(transactions)?, shared, dir }, recovered))
    }

    /// Returns the identity under which batches are to be frozen.
    pub fn writer(&self) -> Writer {
        self.shared.writer()
    }

    /// Returns health and counters.
    pub fn status(&self) -> Status {
        self.shared.status().clone()
    }

    /// Opens a reader of this journal.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn reader(&self) -> Result<JournalReader, JournalError> {
        JournalReader::open(&self.dir)
    }

    /// Adds accepted deltas to the pending ones, durably and as a whole.
    ///
    /// After a failure `done` gets the record back. While it is unknown whether a commit took effect, `done` is not
    /// called; the journal finds out by itself as soon as the disk works.
    pub fn record(&self, record: Record, done: impl FnOnce(Result<Recorded, Refused>) + Send + 'static) {
        self.thread.send(Box::new(RecordRequest { record, done: Box::new(done) }));
    }

    /// Adds requests with idempotency keys, durably and all or none. They are not counted; a [record](Self::record) decides them.
    ///
    /// After a failure nothing has changed.
    pub fn accept(
        &self,
        entries: Vec<Arc<KeyedEntry>>,
        done: impl FnOnce(Result<(), JournalError>) + Send + 'static,
    ) {
        let accept = move |transaction: &mut Transaction<'_>| transaction.accept(&entries);
        self.thread.send(Call::boxed("accept", Urgency::Now, accept, done));
    }

    /// Replaces all pending deltas of `lane` by `batches`, durably and as a whole.
    ///
    /// The batches have to contain everything that was recorded for the lane, and may contain deltas that were accepted
    /// since and never recorded. They may be sent after success, and not before. After a failure nothing has changed, and
    /// the same batches may be frozen again or given up. May exceed the journal's bound for a moment.
    pub fn freeze<'a>(
        &self,
        lane: u16,
        batches: impl IntoIterator<Item = &'a Batch>,
        done: impl FnOnce(Result<(), JournalError>) + Send + 'static,
    ) {
        let batches: Vec<_> = batches.into_iter().map(Encoded::new).collect();
        let freeze = move |transaction: &mut Transaction<'_>| transaction.freeze(lane, &batches);
        self.thread.send(Call::boxed("freeze", Urgency::Now, freeze, done));
    }

    /// Forgets all pending deltas of the lane of `last`, durably: the store has them, in batches of this
    /// [`writer`](Self::writer) up to `last` that could not be frozen here.
    pub fn forget_pending(
        &self,
        last: &BatchId,
        done: impl FnOnce(Result<(), JournalError>) + Send + 'static,
    ) {
        let last = last.clone();
        let forget = move |transaction: &mut Transaction<'_>| transaction.forget_pending(last.lane, &last);
        self.thread.send(Call::boxed("freeze", Urgency::Now, forget, done));
    }

    /// Records that the store has the batch `id`, except for `quarantined`.
    ///
    /// Without anything quarantined this is lazy: it goes along with the next commit, at most a second later, and after a
    /// crash the batch is sent once more. With something quarantined it is executed at once; the next batch of the
    /// lane must not be sent before `done`, because the store reports quarantined deltas of the newest batch only. Either
    /// way it is repeated until it succeeds, however many requests wait, and an unknown or resolved batch is no error.
    pub fn resolve(
        &self,
        id: &BatchId,
        quarantined: Vec<Quarantined>,
        done: impl FnOnce(Result<(), JournalError>) + Send + 'static,
    ) {
        let id = id.clone();
        let urgency = if quarantined.is_empty() { Urgency::Lazy } else { Urgency::Insistent };
        let resolve = move |transaction: &mut Transaction<'_>| transaction.resolve(&id, &quarantined);
        self.thread.send(Call::boxed("resolve", urgency, resolve, done));
    }

    /// Makes quarantined deltas pending again, each in the lane that `lane_of` returns for its collection.
    ///
    /// They are in the journal when `done` is called, so the caller counts them as pending without recording them, and
    /// before it freezes any of these lanes. A delta that would overflow its pending counter stays in quarantine.
    pub fn retry_quarantined(
        &self,
        selection: Selection,
        lane_of: impl Fn(&str) -> u16 + Send + 'static,
        done: impl FnOnce(Result<Vec<Retried>, JournalError>) + Send + 'static,
    ) {
        self.send(move |transaction| transaction.retry_quarantined(&selection, &lane_of), done);
    }

    /// Deletes quarantined deltas, and returns them.
    pub fn drop_quarantined(
        &self,
        selection: Selection,
        done: impl FnOnce(Result<Vec<QuarantineEntry>, JournalError>) + Send + 'static,
    ) {
        self.send(move |transaction| transaction.drop_quarantined(&selection), done);
    }

    /// Quarantines all pending deltas and those of undecided requests for `reason`, and returns their number.
    ///
    /// For a node whose identity turns out to be in use by another one: both have recovered the same pending deltas. The
    /// caller forgets its own pending deltas, so it has to call this before it accepts anything.
    pub fn quarantine_pending(
        &self,
        reason: impl Into<String>,
        done: impl FnOnce(Result<usize, JournalError>) + Send + 'static,
    ) {
        let reason = reason.into();
        self.send(move |transaction| transaction.quarantine_pending(&reason), done);
    }

    /// Gives this journal a new node identity, durably, and returns the new [`writer`](Self::writer).
    ///
    /// Batches that are frozen already keep the old one.
    pub fn fresh_identity(&self, done: impl FnOnce(Result<Writer, JournalError>) + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.send(
            |transaction| Ok(transaction.renew_identity()),
            move |outcome| {
                if let Ok(writer) = &outcome {
                    shared.set_writer(writer.clone());
                }
                done(outcome);
            },
        );
    }

    /// Calls `done` when all earlier requests are durable, including lazy ones.
    pub fn sync(&self, done: impl FnOnce(Result<(), JournalError>) + Send + 'static) {
        self.send(|_| Ok(()), done);
    }

    fn send<T: Send + 'static>(
        &self,
        execute: impl FnMut(&mut Transaction<'_>) -> Result<T, Failure> + Send + 'static,
        done: impl FnOnce(Result<T, JournalError>) + Send + 'static,
    ) {
        self.thread.send(Call::boxed("other", Urgency::Now, execute, done));
    }
}
