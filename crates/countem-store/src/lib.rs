//! Where counters live: the [`Store`] contract, the memory store, decorators and the conformance suite.
//!
//! Implement [`Store`] for a database of your own, run [`conformance::run`] on it, and countem can use it.

mod error;
mod faulty;
mod memory;
mod overlay;
mod store;

pub mod conformance;

pub use countem_core::Quarantined;
pub use error::{ErrorKind, StoreError};
pub use faulty::{Fault, Faults, FaultyStore};
pub use memory::MemoryStore;
pub use overlay::overlay;
pub use store::{Applied, Counters, Query, Registration, Rows, Select, Store};

pub use async_trait::async_trait;
