//! Content that an earlier process left in the journal.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use countem_core::{Batch, BatchId, Deltas, Totals};

use crate::{keyed::KeyedEntry, quarantine::QuarantineEntry};

/// Content that an earlier process left in the journal. It stays there until it is resolved or frozen.
#[derive(Debug)]
#[must_use = "recovered batches and deltas have to be sent to the store"]
pub struct Recovered {
    /// Relation to the journal that was last used.
    pub origin: Origin,
    /// Number of lanes to work with: recovered counts keep the number with which they were recorded, because a collection
    /// must not change its lane while a batch of it may be on its way.
    pub lanes: u16,
    /// Batches not known to be in the store, in the order of (epoch, lane, seq). To be sent again unchanged, before
    /// anything newer of their lane.
    pub frozen: Vec<Batch>,
    /// Deltas that were accepted and never frozen, by lane.
    pub pending: Vec<(u16, Deltas)>,
    /// Identities under which the pending deltas of a lane are to be frozen, each as one batch: the next number of the writer
    /// that recorded them. Where the store has that batch, or a later one, they were sent without the journal knowing, or
    /// after it was copied, and the store recognises them.
    pub next: BTreeMap<u16, BatchId>,
    /// Deltas that could not be added to their counter and wait for a person.
    pub quarantined: Vec<QuarantineEntry>,
    /// Requests with idempotency keys that are not decided: to be claimed again, each for the same entry. Of those that win, the deltas
    /// belong to the pending ones, if they are recorded before these are frozen.
    pub keyed: Vec<KeyedEntry>,
    /// Number of the quarantined deltas that this opening has moved there, because the journal is a copy.
    pub quarantined_now: usize,
    /// The damaged journal that was renamed to make way for this one.
    pub set_aside: Option<SetAside>,
}

/// Relation of an opened journal to the one that was last used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// It was created by this opening.
    Created,
    /// It was last used at the same place, as far as file system and host tell.
    Same,
    /// It is a copy of a file, such as a cloned directory or a restored backup. Its node has a fresh identity.
    Copied,
    /// The same file was last used on another machine: a disk that was moved, or copied as a whole. Its node has a fresh
    /// identity.
    OtherHost,
}

/// A damaged journal that was renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The damaged file now. Its write-ahead log and its witness lie beside it with the suffixes `-wal` and `-witness`.
    pub moved_to: PathBuf,
    /// Description of the damage.
    pub why: String,
}

impl Recovered {
    /// Takes the pending deltas as batches, which are not frozen in the journal yet.
    pub fn take_pending(&mut self) -> Vec<Batch> {
        let pending = std::mem::take(&mut self.pending).into_iter();
        pending
            .filter_map(|(lane, deltas)| Some(Batch::new(self.next.remove(&lane)?, deltas).journaled()))
            .collect()
    }

    /// Returns the sums over the frozen batches.
    pub fn frozen_totals(&self) -> Totals {
        sum(self.frozen.iter().map(Batch::totals))
    }

    /// Returns the sums over the pending deltas.
    pub fn pending_totals(&self) -> Totals {
        sum(self.pending.iter().map(|(_, deltas)| deltas.totals()))
    }

    /// Returns the sums over the quarantined deltas.
    pub fn quarantined_totals(&self) -> Totals {
        sum(self.quarantined.iter().map(|entry| Totals {
            counters: 1,
            increments: entry.quarantined.increments,
            n: entry.quarantined.n.into(),
        }))
    }

    /// Returns true when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.frozen.is_empty() && self.pending.is_empty() && self.keyed.is_empty()
    }
}

fn sum(totals: impl Iterator<Item = Totals>) -> Totals {
    totals.fold(Totals::default(), |sum, one| Totals {
        counters: sum.counters + one.counters,
        increments: sum.increments + one.increments,
        n: sum.n + one.n,
    })
}

/// One line for a log or a terminal.
impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (frozen, pending) = (self.frozen_totals(), self.pending_totals());
        let quarantined = self.quarantined_totals();
        write!(
            f,
            "recovered {} increments in {} unresolved batches, {} pending increments in {} counters, {} quarantined increments in {} counters",
            frozen.increments,
            self.frozen.len(),
            pending.increments,
            pending.counters,
            quarantined.increments,
            quarantined.counters,
        )?;
        match self.keyed.len() {
            0 => Ok(()),
            keyed => write!(f, ", {keyed} undecided requests with idempotency keys"),
        }
    }
}
