//! The handle.

use std::sync::Arc;

use countem_core::{Batch, BatchId, Writer};

use crate::{
    JournalConfig, JournalReader,
    batch::Encoded,
    error::JournalError,
    freeze::{FreezeTask, ResolveTask},
    open,
    quarantine::{QuarantineEntry, Quarantined, Selection},
    record::{Record, RecordTask, Recorded, Refused},
    recovered::Recovered,
    request::{DropTask, IdentityTask, QuarantinePendingTask, Retried, RetryTask, SyncTask},
    status::{Shared, Status},
    writer::WriteThread,
};

/// A journal that is open for writing. Its directory belongs to this process until it is dropped.
///
/// Requests are carried out in the order in which they are asked. None of them waits: each takes a callback `done`, which
/// is called exactly once, on the journal's own thread, and has to return soon. Requests that are asked while a commit is
/// under way share the next one.
///
/// Dropping the journal carries out what was asked, which may wait for the disk, and closes the file.
#[derive(Debug)]
pub struct Journal {
    thread: WriteThread,
    shared: Arc<Shared>,
    options: JournalConfig,
}

impl Journal {
    /// Opens the journal in `options.dir`, or creates it, and raises its epoch.
    ///
    /// When this returns, the epoch is durable: no earlier and no later process freezes under the same
    /// [`writer`](Self::writer), whatever the clock says. Blocks on the disk.
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked), [`Corrupt`](crate::ErrorKind::Corrupt) and [`Refused`](crate::ErrorKind::Refused) need a
    /// person; [`Full`](crate::ErrorKind::Full) and [`Unavailable`](crate::ErrorKind::Unavailable) may pass. In no case is a count lost.
    pub fn open(options: JournalConfig) -> Result<(Self, Recovered), JournalError> {
        let (session, recovered) = open::open(options.clone())?;
        let shared = Arc::clone(&session.shared);
        Ok((Self { thread: WriteThread::start(session)?, shared, options }, recovered))
    }

    /// Returns the identity under which batches are to be frozen.
    pub fn writer(&self) -> Writer {
        self.shared.writer()
    }

    /// Returns how the journal fares.
    pub fn status(&self) -> Status {
        self.shared.status().clone()
    }

    /// Returns the options with which it was opened.
    pub fn options(&self) -> &JournalConfig {
        &self.options
    }

    /// Opens the journal for reading beside itself.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn reader(&self) -> Result<JournalReader, JournalError> {
        JournalReader::open(&self.options.dir)
    }

    /// Adds accepted deltas to what is pending, durably and as a whole.
    ///
    /// `done` gets the record back when it did not take place. While it is not known whether a commit took place, `done`
    /// is not called; the journal finds out by itself as soon as the disk lets it.
    pub fn record(&self, record: Record, done: impl FnOnce(Result<Recorded, Refused>) + Send + 'static) {
        self.thread.ask(Box::new(RecordTask { record, done: Box::new(done) }));
    }

    /// Puts `batches` in the place of all that is pending in `lane`, durably and as a whole.
    ///
    /// The batches have to contain everything that was recorded for the lane, and what was accepted since and never
    /// recorded. After success they may be sent, and not before. After a failure nothing has changed, and the same
    /// batches may be frozen again or given up. May exceed the journal's bound for a moment.
    pub fn freeze<'a>(
        &self,
        lane: u16,
        batches: impl IntoIterator<Item = &'a Batch>,
        done: impl FnOnce(Result<(), JournalError>) + Send + 'static,
    ) {
        let batches = batches.into_iter().map(Encoded::new).collect();
        self.thread.ask(Box::new(FreezeTask { lane, batches, done: Box::new(done) }));
    }

    /// Notes that the store has the batch `id`, all but what is `quarantined`.
    ///
    /// Without anything quarantined this is lazy: it goes along with the next commit, at most a second later, and after a
    /// crash the batch is sent once more. With something quarantined it is carried out at once; the next batch of the
    /// lane must not be sent before `done`, because the store reports what is quarantined of the newest batch only. Either
    /// way it is repeated until it succeeds, and an unknown or resolved batch is no error.
    pub fn resolve(
        &self,
        id: &BatchId,
        quarantined: Vec<Quarantined>,
        done: impl FnOnce(Result<(), JournalError>) + Send + 'static,
    ) {
        self.thread.ask(Box::new(ResolveTask { id: id.clone(), quarantined, done: Box::new(done) }));
    }

    /// Makes quarantined deltas pending again, each in the lane that `lane_of` gives its collection.
    ///
    /// They are in the journal when `done` is called, so the caller counts them as pending without recording them, and
    /// before it freezes any of these lanes. What even pending deltas cannot take stays in quarantine.
    pub fn retry_quarantined(
        &self,
        selection: Selection,
        lane_of: impl Fn(&str) -> u16 + Send + 'static,
        done: impl FnOnce(Result<Vec<Retried>, JournalError>) + Send + 'static,
    ) {
        let (lane_of, done) = (Box::new(lane_of), Box::new(done));
        self.thread.ask(Box::new(RetryTask { selection, lane_of, retried: Vec::new(), done }));
    }

    /// Gives quarantined deltas up for good, and returns them.
    pub fn drop_quarantined(
        &self,
        selection: Selection,
        done: impl FnOnce(Result<Vec<QuarantineEntry>, JournalError>) + Send + 'static,
    ) {
        self.thread.ask(Box::new(DropTask { selection, dropped: Vec::new(), done: Box::new(done) }));
    }

    /// Quarantines everything that is pending, for `reason`, and returns how many deltas that are.
    ///
    /// For a node whose identity turns out to be in use by another one: what it has recovered as pending, the other one
    /// has recovered, too. The caller forgets what it holds as pending, so it has to ask before it accepts anything.
    pub fn quarantine_pending(
        &self,
        reason: impl Into<String>,
        done: impl FnOnce(Result<usize, JournalError>) + Send + 'static,
    ) {
        let (reason, done) = (reason.into(), Box::new(done));
        self.thread.ask(Box::new(QuarantinePendingTask { reason, moved: 0, done }));
    }

    /// Gives this journal a new node identity, durably, and returns the new [`writer`](Self::writer).
    ///
    /// Batches that are frozen already keep the old one.
    pub fn fresh_identity(&self, done: impl FnOnce(Result<Writer, JournalError>) + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.thread.ask(Box::new(IdentityTask { shared, writer: None, done: Box::new(done) }));
    }

    /// Calls `done` when everything that was asked before is durable, what is lazy included.
    pub fn sync(&self, done: impl FnOnce(Result<(), JournalError>) + Send + 'static) {
        self.thread.ask(Box::new(SyncTask { done: Box::new(done) }));
    }
}
