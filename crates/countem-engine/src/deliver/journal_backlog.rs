//! The part of one lane that the journal does not have yet.

use std::mem;

use countem_core::{Delta, Deltas, FoldError, Table};
use countem_store::Quarantined;

use super::{notes::Notes, pending::Pending};

/// The part of a lane that the journal has not recorded; only at level `journal`.
#[derive(Debug, Default)]
pub(super) struct JournalBacklog {
    /// The part of the pending deltas that is not recorded.
    fresh: Table,
    /// Increments that were fresh and are being recorded.
    recording: u64,
    /// Deltas that were quarantined before they were in a batch, and are not recorded.
    quarantine: Vec<Quarantined>,
    /// Number of queued batches, the last ones, that are not in the journal yet, so that none of them may be sent.
    pub(super) unsaved: usize,
    /// Increments in these batches, or in one that was sent unsaved, that the journal does not have as pending ones either.
    unsaved_increments: u64,
    /// The queued batches are being saved.
    pub(super) is_saving: bool,
    /// A batch was sent that the journal could not save: what it has pending of this lane is in that batch, or in one before.
    pub(super) is_stale: bool,
}

impl JournalBacklog {
    /// Checks that `delta` can be added: the fresh part of a sum may leave `i64` although the sum does not.
    pub(super) fn check_sum(&self, delta: &Delta<'_>) -> Result<(), FoldError> {
        Pending::check_sum(&self.fresh, delta)
    }

    pub(super) fn add(&mut self, delta: Delta<'_>) -> Result<(), FoldError> {
        self.fresh.merge(delta)
    }

    /// Forgets what is fresh but not to be kept.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&Delta<'_>) -> bool) {
        for delta in self.fresh.drain().iter().filter(is_kept) {
            // Its sum was there before.
            self.fresh.merge(delta).ok();
        }
    }

    pub(super) fn quarantine(&mut self, quarantined: Quarantined) {
        self.quarantine.push(quarantined);
    }

    /// Notes that everything fresh is in the last `unsaved` queued batches, which are saved as a whole.
    pub(super) fn frozen(&mut self, unsaved: usize) {
        self.unsaved_increments += self.fresh.drain().totals().increments;
        self.unsaved = unsaved;
    }

    /// Notes that the journal has the queued batches.
    pub(super) fn saved(&mut self) {
        (self.unsaved, self.unsaved_increments, self.is_stale) = (0, 0, false);
    }

    /// Notes that the queued batches, which are one, are sent although the journal does not have them.
    pub(super) fn give_up_saving(&mut self) {
        (self.unsaved, self.is_stale) = (0, true);
    }

    /// Notes that the store has the batch that was sent.
    pub(super) fn resolved(&mut self) {
        if self.is_stale {
            self.unsaved_increments = 0;
        }
    }

    /// Returns the number of increments of unsaved batches that the journal does not have as pending ones either.
    pub(super) fn unsaved_increments(&self) -> u64 {
        self.unsaved_increments
    }

    pub(super) fn take_fresh(&mut self) -> Deltas {
        debug_assert_eq!(self.unsaved, 0, "saving the batches makes the journal forget what is recorded");
        let fresh = self.fresh.drain();
        self.recording = fresh.totals().increments;
        fresh
    }

    pub(super) fn put_back_fresh(&mut self, deltas: &Deltas, notes: &mut Notes) {
        self.recording = 0;
        for delta in deltas.iter() {
            if let Err(error) = self.fresh.merge(delta) {
                notes.not_recorded(error.to_string());
            }
        }
    }

    pub(super) fn take_quarantine(&mut self) -> Vec<Quarantined> {
        mem::take(&mut self.quarantine)
    }

    pub(super) fn recorded(&mut self) {
        self.recording = 0;
    }

    pub(super) fn recording(&self) -> u64 {
        self.recording
    }

    /// Returns the number of increments that the journal has not begun to record.
    pub(super) fn fresh_increments(&self) -> u64 {
        self.fresh.deltas().totals().increments + self.unsaved_increments
    }
}
