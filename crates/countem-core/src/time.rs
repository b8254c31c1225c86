//! Periods, buckets, ranges of buckets, and the stored periods of a collection.

mod bucket;
mod nesting;
mod parts;
mod period;
mod range;
mod retention;
mod schedule;
mod schedules;
mod spans;

pub use bucket::{AtomicBucket, Bucket, BucketError};
pub use parts::{NotExact, Part};
pub use period::{Period, PeriodError};
pub use range::BucketRange;
pub use retention::Retention;
pub use schedule::{Schedule, ScheduleError};
pub use schedules::{ScheduleConfig, ScheduleConflict, ScheduleTextError, Schedules};
