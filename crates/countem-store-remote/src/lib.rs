#![doc = include_str!("../README.md")]

mod client;
mod config;
mod error;
mod store;
pub mod wire;

pub use config::{RemoteConfig, TlsConfig};
pub use store::RemoteStore;
