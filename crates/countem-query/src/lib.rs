#![doc = include_str!("../README.md")]

mod day;
mod error;
mod range;
mod reader;
mod source;
mod when;

pub use countem_store::{Counters, Unreadable};
pub use day::{Day, DayError};
pub use error::ReadError;
pub use range::{TimeRange, TimeRangeError};
pub use reader::Reader;
pub use source::{Source, StoreSource};
pub use when::When;
