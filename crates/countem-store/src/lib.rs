#![doc = include_str!("../README.md")]

#[cfg(any(test, feature = "conformance"))]
#[macro_use]
pub mod conformance;

mod counters;
mod error;
mod expiry;
mod faulty;
mod held;
mod memory;
mod overlay;
mod query;
mod store;

pub use countem_core::Quarantined;
pub use counters::{Counters, Iter, Unreadable, Value, plus};
pub use error::{ErrorKind, StoreError};
pub use expiry::{REMOVAL_MARGIN, remove_expired};
pub use faulty::{Fault, Faults, FaultyStore};
pub use held::{Held, Release, Released};
pub use memory::MemoryStore;
pub use overlay::overlay;
pub use query::{RowQuery, Rows, Select, extent};
pub use store::{Applied, Claimed, Registration, Store};

pub use async_trait::async_trait;
