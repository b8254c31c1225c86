//! Corrections of stored counts, and their audit log.
//!
//! A correction is an ingest whose source is the store itself: batches of deltas, each of which moves a [`Mark`] in the same step.
//! So it takes effect exactly once, and counts that are added meanwhile stay.
//!
//! | mark | meaning |
//! |---|---|
//! | `correcting` | the correction that goes on, and the position behind the counters that were corrected; at most one in a store |
//! | `correction/<id>` | a finished correction; all of them are the audit log |
//!
//! To rename, merge or delete takes these steps, each of which any process can do, because the first mark says all that is needed:
//!
//! 1. `correcting` appears with the deltas of the first counters, and moves with those of the next ones, to the end;
//! 2. the counters that are zero now are [removed](Store::remove_zeros);
//! 3. `correction/<id>` appears;
//! 4. `correcting` is removed.
//!
//! A process that is killed in between leaves `correcting`: the next one that reads or writes [finishes](Corrections::finish_open) it
//! first. To add or set is one batch, with `correction/<id>`.

mod entry;
mod error;
mod levels;
mod survey;
mod walk;

use std::{sync::Arc, time::Duration};

use countem_core::{CollectionName, Deltas, Mark, Schedules, Table, Writer, jiff::Timestamp};
use countem_store::{ErrorKind, Quarantined, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::{
    entry::{Correction, CorrectionEntry, CorrectionKind},
    error::CorrectionError,
    survey::{CorrectionPreview, PreviewRow},
};
use self::{
    levels::Levels,
    walk::{Buckets, Cursor, Scope, Walk},
};
use crate::{Outbox, Retry, deliver};

/// Key of the mark of the correction that goes on.
const CORRECTING: &str = "correcting";
/// Beginning of the keys of finished corrections.
const LOG: &str = "correction/";
/// Time for which a store may be away.
const OUTAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Waits between two attempts to store a batch.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Number of zeros that are removed at once, so that no batch waits long for it.
const ZEROS: usize = 1000;
/// Maximum number of attempts to begin a correction beside those of other processes.
const MAX_ATTEMPTS: usize = 20;

/// Corrects the counts of a store, and reads the log of corrections.
#[derive(Debug, Clone)]
pub struct Corrections {
    store: Arc<dyn Store>,
    unrecorded: Arc<Schedules>,
}

/// Result of a correction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Corrected {
    /// The entry in the log.
    pub entry: CorrectionEntry,
    /// Amounts that could not be added, because a sum left the range of 64 bits meanwhile.
    pub quarantined: Vec<Quarantined>,
}

/// Value of the mark of the correction that goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Open {
    #[serde(flatten)]
    entry: CorrectionEntry,
    /// Position behind the counters that were corrected; `None` behind the last one.
    cursor: Option<Cursor>,
}

impl Corrections {
    /// Tells whether a mark with this key is one of corrections: the log, or the correction that goes on.
    pub fn owns_mark(key: &str) -> bool {
        key == CORRECTING || key.starts_with(LOG)
    }

    /// Returns the corrections of `store`. `unrecorded` are the schedules of a store that has none recorded.
    pub fn new(store: Arc<dyn Store>, unrecorded: Arc<Schedules>) -> Self {
        Self { store, unrecorded }
    }

    /// Corrects counts, once: the correction and its entry in the log are stored, or neither is. `now` defines relative times.
    ///
    /// Counts that are added meanwhile come on top, except that those which come before their turn in a large rename, merge or delete go
    /// with the others.
    ///
    /// # Errors
    /// [`CorrectionError`]: nothing was changed, or for [`Unfinished`](CorrectionError::Unfinished) a part, which the next correction or
    /// [`finish_open`](Self::finish_open) finishes.
    pub async fn correct(
        &self,
        correction: &Correction,
        author: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Corrected, CorrectionError> {
        for (what, text) in [("author", author), ("reason", reason)] {
            if text.trim().is_empty() {
                return Err(CorrectionError::refused(format!(
                    "a correction needs a{} {what}",
                    if what == "author" { "n" } else { "" }
                )));
            }
        }
        let mut sender = Sender::new(Arc::clone(&self.store));
        let id = new_id(now);
        for _ in 0..MAX_ATTEMPTS {
            self.finish_open().await?;
            let (mut entry, deltas) = self.prepare(correction, now).await?;
            (entry.id, entry.author, entry.reason) = (id.clone(), author.to_owned(), reason.to_owned());
            let (key, value, deltas) = match deltas {
                Some(deltas) => (format!("{LOG}{id}"), text(&entry)?, deltas),
                None => {
                    let (deltas, cursor) = self.chunk(&entry, None).await?;
                    (CORRECTING.to_owned(), text(&Open { entry: entry.clone(), cursor })?, deltas)
                }
            };
            let is_whole = key != CORRECTING;
            match sender.send(deltas, Mark { key, expected: None, value: Some(value) }).await {
                Ok(()) if is_whole => {}
                Ok(()) => self.finish(&mut sender).await?,
                Err(error) if error.kind() == ErrorKind::Conflict => continue,
                Err(error) if error.kind() == ErrorKind::InDoubt => {
                    return Err(CorrectionError::Unfinished { id, what: entry.to_string(), source: error });
                }
                Err(error) => return Err(error.into()),
            }
            sender.end().await;
            return Ok(Corrected { entry, quarantined: sender.quarantined });
        }
        Err(CorrectionError::refused("other processes correct the store all the time: try again later"))
    }

    /// Returns what a correction would change, and changes nothing.
    ///
    /// # Errors
    /// As [`correct`](Self::correct).
    pub async fn preview(
        &self,
        correction: &Correction,
        now: Timestamp,
    ) -> Result<CorrectionPreview, CorrectionError> {
        if let Some(open) = self.open().await? {
            let source = StoreError::new(ErrorKind::NotApplied, "a preview changes nothing");
            let (id, what) = (open.1.entry.id.clone(), open.1.entry.to_string());
            return Err(CorrectionError::Unfinished { id, what, source });
        }
        self.preview_of(correction, now).await
    }

    /// Returns the corrections of a collection, or of all, the oldest first; the last one may go on yet.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn history(
        &self,
        collection: Option<&CollectionName>,
    ) -> Result<Vec<CorrectionEntry>, CorrectionError> {
        // The one that goes on first: if it ends meanwhile, it is in both.
        let open = self.unfinished().await?;
        let mut entries = Vec::new();
        for (key, value) in self.store.marks(LOG).await? {
            entries.push(
                serde_json::from_str::<CorrectionEntry>(&value).map_err(|error| damaged(&key, &error))?,
            );
        }
        entries.extend(open.filter(|open| !entries.iter().any(|entry| entry.id == open.id)));
        entries.retain(|entry| collection.is_none_or(|collection| entry.collection == collection.as_str()));
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(entries)
    }

    /// Notes in the log that the counts of an ingested file were taken back, which the caller does. The same `id`, of
    /// [`new_id`](Self::new_id), is noted once.
    ///
    /// # Errors
    /// It is not known to be noted. Noting it again is harmless.
    pub async fn log_undo(
        &self,
        id: &str,
        collection: &CollectionName,
        file: &str,
        counters: u64,
        author: &str,
    ) -> Result<(), CorrectionError> {
        let entry = CorrectionEntry {
            id: id.to_owned(),
            at: Timestamp::now(),
            author: author.to_owned(),
            reason: "ingest --undo".to_owned(),
            kind: CorrectionKind::Undo,
            collection: collection.to_string(),
            metrics: Vec::new(),
            file: Some(file.to_owned()),
            target: None,
            range: None,
            span: None,
            counters,
            amount: None,
            before: None,
            after: None,
            is_finished: true,
        };
        let mut sender = Sender::new(Arc::clone(&self.store));
        let logged = Mark { key: format!("{LOG}{id}"), expected: None, value: Some(text(&entry)?) };
        match sender.send(Deltas::default(), logged).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            result => result?,
        }
        sender.end().await;
        Ok(())
    }

    /// Returns a new identity for the log.
    pub fn new_id() -> String {
        new_id(Timestamp::now())
    }

    /// Returns the correction that has begun and is not finished.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn unfinished(&self) -> Result<Option<CorrectionEntry>, CorrectionError> {
        Ok(self.open().await?.map(|(_, open)| CorrectionEntry { is_finished: false, ..open.entry }))
    }

    /// Finishes the correction that another process has begun, and returns true if there was one. Before, counters may be neither those
    /// of before nor those of after it.
    ///
    /// Costs one look-up where there is none. Several processes may do it at once.
    ///
    /// # Errors
    /// [`CorrectionError::Unfinished`] if it could not be finished, or the store could not be read.
    pub async fn finish_open(&self) -> Result<bool, CorrectionError> {
        if self.open().await?.is_none() {
            return Ok(false);
        }
        let mut sender = Sender::new(Arc::clone(&self.store));
        self.finish(&mut sender).await?;
        sender.end().await;
        Ok(true)
    }

    /// Goes on with the correction that was begun, to its end.
    async fn finish(&self, sender: &mut Sender) -> Result<(), CorrectionError> {
        while let Some((value, open)) = self.open().await? {
            let unfinished = |source| CorrectionError::Unfinished {
                id: open.entry.id.clone(),
                what: open.entry.to_string(),
                source,
            };
            match self.step(&value, &open, sender).await {
                Err(CorrectionError::Store(error)) if error.kind() == ErrorKind::Conflict => {}
                Err(CorrectionError::Store(error)) => return Err(unfinished(error)),
                Err(error) => {
                    return Err(unfinished(StoreError::new(ErrorKind::Refused, error.to_string())));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Takes the next step. A conflict means that another process has taken it.
    async fn step(&self, value: &str, open: &Open, sender: &mut Sender) -> Result<(), CorrectionError> {
        let (entry, expected) = (&open.entry, Some(value.to_owned()));
        if let Some(cursor) = &open.cursor {
            let (deltas, cursor) = self.chunk(entry, Some(cursor.clone())).await?;
            let value = Some(text(&Open { entry: entry.clone(), cursor })?);
            return Ok(sender.send(deltas, Mark { key: CORRECTING.to_owned(), expected, value }).await?);
        }
        self.remove_zeros(entry).await?;
        let logged = Mark { key: format!("{LOG}{}", entry.id), expected: None, value: Some(text(entry)?) };
        match sender.send(Deltas::default(), logged).await {
            // Another process has logged it.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            result => result?,
        }
        let end = Mark { key: CORRECTING.to_owned(), expected, value: None };
        Ok(sender.send(Deltas::default(), end).await?)
    }

    /// Returns the correction that goes on, and its mark.
    async fn open(&self) -> Result<Option<(String, Open)>, CorrectionError> {
        let Some(value) = self.store.marks(CORRECTING).await?.remove(CORRECTING) else { return Ok(None) };
        let open = serde_json::from_str(&value).map_err(|error| damaged(CORRECTING, &error))?;
        Ok(Some((value, open)))
    }

    async fn schedules(&self) -> Result<Arc<Schedules>, StoreError> {
        Ok(self.store.schedules().await?.map_or_else(|| Arc::clone(&self.unrecorded), Arc::new))
    }

    /// Returns the deltas of the counters behind `cursor`, and the position behind them.
    async fn chunk(
        &self,
        entry: &CorrectionEntry,
        cursor: Option<Cursor>,
    ) -> Result<(Deltas, Option<Cursor>), CorrectionError> {
        let (scope, levels) = self.plan(entry, Timestamp::now()).await?;
        let walk = Walk { store: &*self.store, scope: &scope, levels: &levels };
        let mut table = Table::new();
        let page = walk.next(cursor, Buckets::Own).await?;
        for row in page.rows.iter().filter(|(bucket, ..)| levels.is_own(*bucket)) {
            walk.fold(&mut table, row)?;
        }
        Ok((table.drain(), page.cursor))
    }

    async fn plan(
        &self,
        entry: &CorrectionEntry,
        now: Timestamp,
    ) -> Result<(Scope, Levels), CorrectionError> {
        let schedules = self.schedules().await?;
        Ok((Scope::of(entry)?, Levels::new(schedules.of(&entry.collection), entry.span, now)))
    }

    /// Removes the corrected counters that are zero.
    async fn remove_zeros(&self, entry: &CorrectionEntry) -> Result<(), CorrectionError> {
        let (scope, levels) = self.plan(entry, Timestamp::now()).await?;
        let walk = Walk { store: &*self.store, scope: &scope, levels: &levels };
        let (mut cursor, mut zeros) = (None, Vec::new());
        loop {
            let page = walk.next(cursor, Buckets::Touched).await?;
            for (bucket, metric, _) in page.rows.iter().filter(|(.., value)| *value == 0) {
                // What the store has is valid.
                zeros.extend(countem_core::MetricName::new(metric).map(|metric| (*bucket, metric)));
            }
            for zeros in zeros.chunks(ZEROS) {
                self.store.remove_zeros(&scope.collection, zeros).await?;
            }
            zeros.clear();
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

/// Returns a new identity, which sorts by time.
fn new_id(now: Timestamp) -> String {
    format!("{}-{:08x}", now.strftime("%Y%m%dT%H%M%S%.6fZ"), rand::random::<u32>())
}

fn text(value: &impl Serialize) -> Result<String, StoreError> {
    let refused = |error: serde_json::Error| StoreError::new(ErrorKind::Refused, error.to_string());
    serde_json::to_string(value).map_err(refused)
}

fn damaged(key: &str, error: &serde_json::Error) -> StoreError {
    let why = format!("the mark `{key}` cannot be read: it is damaged, or a newer countem has written it");
    StoreError::new(ErrorKind::Refused, format!("{why} ({error})"))
}

/// Sends batches under an identity of their own.
#[derive(Debug)]
struct Sender {
    store: Arc<dyn Store>,
    writer: Writer,
    outbox: Outbox,
    was_in_doubt: bool,
    quarantined: Vec<Quarantined>,
}

impl Sender {
    fn new(store: Arc<dyn Store>) -> Self {
        let writer = Writer::new(rand::random(), 1);
        let outbox = Outbox::new(writer.clone(), 0, usize::MAX);
        Self { store, writer, outbox, was_in_doubt: false, quarantined: Vec::new() }
    }

    /// Stores `deltas` and moves a mark, in one step.
    async fn send(&mut self, deltas: Deltas, mark: Mark) -> Result<(), StoreError> {
        self.outbox.freeze_whole(deltas, Some(mark));
        while let Some(batch) = self.outbox.advance() {
            let retry = Retry::new(RETRY.0, RETRY.1);
            match deliver(&*self.store, &batch, retry, Instant::now() + OUTAGE_TIMEOUT).await {
                Ok((applied, was_in_doubt)) => {
                    self.was_in_doubt |= was_in_doubt;
                    self.outbox.resolve(&applied);
                    self.quarantined.extend(applied.quarantined);
                }
                Err(error) => {
                    if error.kind() == ErrorKind::Conflict {
                        // Nothing of it is stored, and never will be.
                        self.outbox.drop_in_flight();
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Removes the bookkeeping of the sender where nothing can be sent again.
    async fn end(&self) {
        // Bookkeeping that stays is harmless.
        if self.outbox.has_frozen()
            && !self.was_in_doubt
            && let Err(error) = self.store.forget(&self.writer).await
        {
            tracing::debug!(%error, "the bookkeeping of a correction stays in the store");
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;
