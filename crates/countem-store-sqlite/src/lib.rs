#![doc = include_str!("../README.md")]

pub mod backup;
mod config;
mod error;
mod expiry;
mod schema;
mod store;

mod apply;
mod claims;
mod open;
mod quarantine;
mod read;
mod register;
mod removed;
mod retired;
mod schedule;
mod write;
mod zeros;

pub use config::{SqliteConfig, Synchronous};
pub use schema::{APPLICATION_ID, SCHEMA_VERSION};
pub use store::SqliteStore;
