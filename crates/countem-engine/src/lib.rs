//! Router, collectors, storage actors, shutdown and stats.
//!
//! Increments are folded in place by the calling thread ([`Engine::increment`]); actors only move what was folded on to the
//! store. Everything that decides is a plain type without a runtime: `node` (what is counted), `lane` (what is pending and
//! unresolved), `router` (which thread uses which table), `calendar` (which slot is current). `actors` is the shell around them and the
//! only module that knows actix.

mod actors;
mod calendar;
mod cardinality;
mod claim;
mod clock;
mod counter;
mod deliver;
mod engine;
mod lane;
mod node;
mod recorder;
mod refusal;
mod router;
mod settings;
mod shutdown;
mod stats;
mod sync;
mod ticker;

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod interleavings;
#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;

pub use calendar::Calendar;
pub use clock::{Clock, ManualClock};
pub use counter::Counter;
pub use deliver::{Outbox, Resolved, Retry, deliver};
pub use engine::{Engine, StartError};
pub use lane::lane_of;
pub use recorder::NotDurable;
pub use refusal::Refusal;
pub use settings::{Durability, EngineConfig};
pub use shutdown::ShutdownReport;
pub use stats::{LaneStats, Stats};
