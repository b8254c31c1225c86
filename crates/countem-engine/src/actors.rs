//! The actors: thin loops around [`Intake`](crate::collect::Intake) and the lanes. The only module that knows actix.
//!
//! - `collector`: collector actors, one for each table that the resizable router spreads threads over.
//! - `storage`: storage actors, one for each lane.
//! - `supervisor`: starts, replaces and addresses both.
//! - `system`: the thread they live on.
//!
//! Messages carry no counts: a message that gets lost with its actor costs time, nothing else.

mod collector;
mod storage;
mod supervisor;
mod system;

pub(crate) use supervisor::{StoreAccess, Supervisor};
pub(crate) use system::{ActorSystem, on_engine_thread};
