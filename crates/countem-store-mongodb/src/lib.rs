#![doc = include_str!("../README.md")]

mod config;
mod store;

mod apply;
mod check;
mod claims;
mod compaction;
mod marks;
mod read;
mod registry;
mod schedule;

mod command;
mod connection;
mod error;

mod document;
mod expiry;
mod held;
mod known_splits;
mod names;
mod partition;
mod sent_batches;
mod zeros;

pub use config::MongoConfig;
pub use store::MongoStore;
