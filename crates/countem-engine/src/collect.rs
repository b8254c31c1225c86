//! Counting: increments are folded in place by the calling thread, and drained into the lanes. Nothing here is async.
//!
//! The table of a collector is its mailbox. [`Router`] chooses the table of a thread, [`Intake`] folds into it and drains it.

mod adopt;
mod calendar;
mod clock;
mod collector;
mod counter;
mod drain;
mod intake;
mod process;
mod refusal;
mod request;
mod router;
mod snapshot;

pub use calendar::Calendar;
pub use clock::{Clock, ManualClock};
pub use counter::Counter;
pub use refusal::{Refusal, warn_on_stderr};
pub use request::KeyedIncrement;

pub(crate) use adopt::COUNTED_OTHERWISE;
pub(crate) use intake::{Intake, IntakeLimits};
pub(crate) use request::Prepared;
pub(crate) use router::Router;
pub(crate) use snapshot::Copied;
#[cfg(all(test, feature = "shuttle"))]
pub(crate) use snapshot::Counted;
