#![doc = include_str!("../README.md")]

mod apply;
mod check;
mod command;
mod config;
mod connection;
mod document;
mod encoder;
mod error;
mod expiry;
mod ledger;
mod partition;
mod quarantine;
mod read;
mod registry;
mod store;
mod target;

pub use config::MongoConfig;
pub use store::MongoStore;
