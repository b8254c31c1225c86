#![doc = include_str!("../README.md")]

mod error;
mod fields;
mod format;
mod reject;
mod template;
mod time;

pub use error::DefinitionError;
pub use fields::{Span, Wanted};
pub use format::{Format, Kind};
pub use reject::Reject;
pub use template::Template;
pub use time::{TimeFormat, Times};
