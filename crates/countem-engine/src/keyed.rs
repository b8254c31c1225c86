//! Requests with an idempotency key: however often one is sent, and to which node of a store, it counts once.
//!
//! # With a journal: journal, claim, fold
//!
//! 1. *Journal*: the request becomes an entry, durable with its deltas and not counted.
//! 2. *Claim*: the store lets one of all entries under a key win ([`Store::claim`](countem_store::Store::claim)).
//! 3. *Fold*: in one transaction of the journal the entry goes and, if it has won, its deltas are pending; then they are merged into the
//!    lanes, before any lane is frozen.
//!
//! Why a request counts once: its deltas are pending, or in a batch, exactly when its entry has won and is gone. A claim that is in doubt,
//! or whose process was killed, is made again for the same entry, which wins again if it had won. An entry that has not won is dropped: the one that
//! has is in the journal of its node, whose next process goes on with it. An identity never comes back (the writer has a random part),
//! so no other entry can be taken for one that has won.
//!
//! A journal that was put back in place holds entries that the process after it has counted. So a start decides them before what is
//! pending is frozen: their deltas go into the batch with the next number of the writer that accepted them. A store that has a
//! batch with this number recognises it, as it does for all that is pending. Where the store does not answer at the start, they are
//! counted by the new writer instead: of a journal that was put back in place *and* started without its store, a request may then count a
//! second time.
//!
//! # Without a journal
//!
//! The deltas are the batch of the claim, which the store adds with it. A request is in progress until the store has both.
//!
//! # Nothing else is remembered
//!
//! A request that is refused, or whose claim certainly did not reach the store, leaves no trace: the same key may come with another body. As
//! long as an entry is not decided, its key is in progress at its node, and nothing else is accepted under it.

mod desk;
mod direct;
mod journaled;
pub(crate) mod recovered;
mod settle;

use std::sync::Arc;

use crate::Refusal;

pub(crate) use desk::Desk;

/// Outcome of a request with an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyed {
    /// It is counted, now.
    Counted,
    /// It was counted before, by this node or another one.
    Repeat,
    /// The key stands for a request with another body. Nothing of this one is counted.
    Mismatch,
}

/// Durability of a request with an idempotency key before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guarantee {
    /// The journal has it; without a journal the store.
    #[default]
    Journal,
    /// The store has it. A repeat of a request that another node counted is only known to be in the journal of that node.
    Store,
}

/// A request with an idempotency key has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyedError {
    /// An increment is refused, so none is counted. The key is free.
    #[error("increment {index}: {refusal}")]
    Refused {
        /// The index of the first refused increment.
        index: usize,
        /// The reason.
        refusal: Refusal,
    },
    /// Too many requests with keys are in progress. Nothing is counted, and the key is free.
    #[error("not counted: too many requests with idempotency keys are in progress")]
    Busy,
    /// The journal or the store cannot take it now. Nothing is counted, and the key is free.
    #[error("not counted: {reason}")]
    Unavailable {
        /// The reason.
        reason: Arc<str>,
    },
    /// A request with this key is in progress, and its outcome not known yet. Send the request again, with the same key.
    #[error("not known yet whether it is counted, send it again with the same key: {reason}")]
    InProgress {
        /// The reason.
        reason: Arc<str>,
    },
    /// It is counted and in the journal, but the collector was shut down before the store had everything.
    #[error("counted, but not stored: the collector was shut down before the store had everything")]
    NotStored,
}

impl KeyedError {
    fn unavailable(reason: &impl ToString) -> Self {
        Self::Unavailable { reason: reason.to_string().into() }
    }

    fn shut_down() -> Self {
        Self::InProgress { reason: "the collector was shut down".into() }
    }
}
