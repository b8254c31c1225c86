//! From deltas to the store: freezing batches, sending them in order, and trying again.

mod outbox;
mod retry;

pub use outbox::{Outbox, Resolved};
pub use retry::{Retry, deliver};
