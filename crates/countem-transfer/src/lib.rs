#![doc = include_str!("../README.md")]

mod counter;
pub mod csv;
mod digest;
pub mod goatcounter;
pub mod graphite;
pub mod ndjson;
mod number;
pub mod openmetrics;
pub mod scala;

pub use counter::{Counter, Record, RowError};
pub use digest::{Digest, Identity};
