//! Counts the lines of files.
//!
//! ```text
//! reading thread ──blocks of lines──► counting thread ──deltas──► courier (main thread) ──batches──► store
//!  feed, follow                        count                       crate::courier
//! ```
//!
//! Every step holds a bounded amount, so memory follows the number of distinct counters and not the length of the input.

pub(crate) mod count;
pub(crate) mod feed;
pub(crate) mod follow;
pub(crate) mod format;
pub(crate) mod identity;
pub(crate) mod input;
pub(crate) mod lines;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod reject;
pub(crate) mod report;
pub(crate) mod slots;
pub(crate) mod template;
pub(crate) mod time;
