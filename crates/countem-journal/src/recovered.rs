//! What an earlier process left in the journal.

use std::fmt;

use countem_core::{Batch, Deltas, Totals};

use crate::{aside::SetAside, place::Origin, quarantine::QuarantineEntry};

/// What an earlier process left in the journal. All of it stays there until it is resolved or frozen.
#[derive(Debug)]
#[must_use = "what was recovered has to be sent to the store"]
pub struct Recovered {
    /// How the journal came to be where it is.
    pub origin: Origin,
    /// The number of lanes to work with: what was recovered keeps the number with which it was recorded, because a
    /// collection must not change its lane while a batch of it may be on its way.
    pub lanes: u16,
    /// Batches that are not known to be in the store, in the order of (epoch, lane, seq). To be sent again as they are,
    /// before anything newer of their lane.
    pub frozen: Vec<Batch>,
    /// What was accepted and never frozen, by lane. To be counted as pending without being recorded again.
    pub pending: Vec<(u16, Deltas)>,
    /// What could not be added to its counter and waits for a person.
    pub quarantined: Vec<QuarantineEntry>,
    /// How many of the quarantined deltas this opening has put there, because the journal is a copy.
    pub quarantined_now: usize,
    /// The damaged journal that was renamed to make place for this one.
    pub set_aside: Option<SetAside>,
}

impl Recovered {
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

    /// Tells whether there is anything to send.
    pub fn is_empty(&self) -> bool {
        self.frozen.is_empty() && self.pending.is_empty()
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
        )
    }
}
