//! Counts the lines of files.
//!
//! ```text
//! reading thread ──blocks of lines──► counting thread ──deltas──► delivery (main thread) ──batches──► store
//!  feed, follow                        count                       delivery
//! ```
//!
//! Every step holds a bounded amount, so memory follows the number of distinct counters and not the length of the input.

pub(crate) mod feed;
pub(crate) mod follow;
pub(crate) mod lines;

pub(crate) mod added;
pub(crate) mod bucket_cache;
pub(crate) mod count;
pub(crate) mod plan;

pub(crate) mod delivery;
pub(crate) mod fingerprint;
pub(crate) mod identity;
pub(crate) mod marks;
pub(crate) mod undo;

pub(crate) mod report;
