#![doc = include_str!("../README.md")]

mod error;
mod fields;
mod filter;
mod format;
mod function;
mod number;
mod reject;
mod template;
mod time;

pub use error::DefinitionError;
pub use fields::{Span, Wanted};
pub use filter::Filter;
pub use format::{Format, Kind};
pub use number::amount;
pub use reject::Reject;
pub use template::Template;
pub use time::{TimeFormat, Times};
