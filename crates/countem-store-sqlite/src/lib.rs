#![doc = include_str!("../README.md")]

mod config;
mod error;
mod schema;
mod store;

mod apply;
mod batch;
mod connection;
mod read;
mod reader;
mod turn;
mod writer;

pub use config::{SqliteConfig, Synchronous};
pub use schema::{APPLICATION_ID, SCHEMA_VERSION};
pub use store::SqliteStore;
