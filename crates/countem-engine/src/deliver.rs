//! From deltas to the store: lanes with what is pending, batches in order, the journal's record, and trying again.
//!
//! Everything that decides is a plain type without a runtime. The shells that wait are [`deliver`], [`Recorder`] and
//! [`Register`].

mod cardinality;
mod journal_backlog;
mod kept_schedules;
mod lane;
mod lanes;
mod notes;
mod outbox;
mod pending;
mod progress;
mod recorder;
mod register;
mod retry;

pub use lanes::lane_of;
pub use outbox::{Outbox, Resolved};
pub use recorder::NotDurable;
pub use retry::{Retry, deliver};

pub(crate) use kept_schedules::KeptSchedules;
pub(crate) use lane::{Lane, LaneState};
pub(crate) use lanes::{LaneLimits, Lanes};
pub(crate) use progress::Stored;
pub(crate) use recorder::{Recorder, Upstream};
pub(crate) use register::{Register, quarantine_forgotten};
