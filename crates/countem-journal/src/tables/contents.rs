//! Everything in a journal, checked against its digests.

use countem_core::Deltas;
use rusqlite::Connection;

use crate::{
    error::ReadError,
    keyed::KeyedEntry,
    quarantine::QuarantineEntry,
    tables::{
        batches::{self, Frozen},
        keyed, pending, quarantine,
        state::{JournalState, StateRow, Sum},
    },
};

/// Everything in a journal, checked against its digests.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) state: JournalState,
    pub(crate) pending: Vec<(u16, Deltas)>,
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) quarantined: Vec<QuarantineEntry>,
    pub(crate) keyed: Vec<KeyedEntry>,
}

impl Contents {
    /// Reads and checks everything but resolved batches.
    ///
    /// # Errors
    /// The content differs from what was written, if only in a bit.
    pub(crate) fn read(connection: &Connection) -> Result<Self, ReadError> {
        let row = StateRow::read(connection)?;
        let mut state = row.state;
        let mut pending = Vec::new();
        for (lane, deltas, sum) in pending::read(connection)? {
            state.pending.insert(lane, sum);
            pending.push((lane, deltas));
        }
        if state.pending_digest() != row.pending {
            return Err(ReadError::damaged("its pending counts do not add up to what was written"));
        }
        let frozen = batches::read_frozen(connection)?;
        frozen.iter().for_each(|frozen| state.frozen.add(frozen.sum()));
        if state.frozen.digest != row.frozen {
            return Err(ReadError::damaged("its frozen batches are not all that were written"));
        }
        let quarantined = quarantine::read(connection)?;
        quarantined.iter().for_each(|entry| state.quarantined.add(quarantine::sum(entry)));
        if state.quarantined.digest != row.quarantined {
            return Err(ReadError::damaged("its quarantined counts are not all that were written"));
        }
        let mut sum = Sum::default();
        let keyed = keyed::read(connection)?.into_iter();
        let keyed: Vec<_> = keyed.map(|(entry, of_entry)| (sum.add(of_entry), entry).1).collect();
        if sum.digest != row.keyed.unwrap_or_default() {
            return Err(ReadError::damaged(
                "its requests with idempotency keys are not all that were written",
            ));
        }
        state.keyed = row.keyed.map(|_| sum);
        if state.digest() != row.digest {
            return Err(ReadError::damaged("its state is not the one that was written"));
        }
        state.resolved = batches::read_resolved_size(connection)?;
        Ok(Self { state, pending, frozen, quarantined, keyed })
    }
}
