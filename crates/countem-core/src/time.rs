//! Periods, buckets, ranges of buckets, and the stored periods of a collection.

mod bucket;
mod period;
mod range;
mod schedule;

pub use bucket::{AtomicBucket, Bucket, BucketError};
pub use period::{Period, PeriodError};
pub use range::BucketRange;
pub use schedule::{Schedule, ScheduleError, Schedules};
