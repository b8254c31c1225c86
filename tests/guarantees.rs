//! The guarantees of the README, on one SQLite file.

mod conservation;
mod durable;
mod load;
mod midnight;
mod names;
pub(crate) mod oracle;
mod periods;
mod processes;
mod reads;
mod regressions;
