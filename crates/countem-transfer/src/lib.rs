#![doc = include_str!("../README.md")]

mod counter;
pub mod csv;
mod digest;
pub mod ndjson;
pub mod openmetrics;

pub use counter::{Counter, Record, RowError};
pub use digest::{Digest, Identity};
