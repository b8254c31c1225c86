#![doc = include_str!("../README.md")]

mod cause;
mod file;
mod header;
mod wait;

pub use cause::{Cause, is_clean};
pub use file::{OpenFile, bytes_of, log_of};
pub use header::Header;
