#![doc = include_str!("../README.md")]

mod actors;
mod agreement;
mod collect;
mod corrections;
mod deliver;
mod engine;
mod keyed;
#[cfg(feature = "journal")]
pub mod maintenance;
mod read;
mod sync;

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod interleavings;
#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;

pub use agreement::{AgreementError, agree_on_schedules};
pub use collect::{Calendar, Clock, Counter, KeyedIncrement, ManualClock, Refusal, warn_on_stderr};
pub use corrections::{
    Corrected, Correction, CorrectionEntry, CorrectionError, CorrectionKind, CorrectionPreview, Corrections,
    PreviewRow,
};
pub use deliver::{NotDurable, Outbox, Resolved, Retry, deliver, lane_of};
pub use engine::{Durability, Engine, EngineConfig, LaneStats, ShutdownReport, StartError, Stats};
pub use keyed::{Guarantee, Keyed, KeyedError};
