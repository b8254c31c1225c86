#![doc = include_str!("../README.md")]

mod answer;
mod day;
mod error;
mod evaluate;
mod query;
mod range;
mod reader;
mod source;
mod when;

pub use answer::{Answer, Row};
pub use countem_store::{Counters, Unreadable, Value};
pub use day::{Day, DayError};
pub use error::{QueryError, ReadError};
pub use query::{
    Compare, Cursor, CursorError, Fill, Group, LabelFilter, LabelFilterError, Limits, Metrics, Order,
    Pattern, PatternError, Query,
};
pub use range::{TimeRange, TimeRangeError};
pub use reader::Reader;
pub use source::{Source, StoreSource};
pub use when::When;
