#![doc = include_str!("../README.md")]

mod batch;
mod claim;
mod delta;
pub mod hash;
mod name;
mod quarantined;
mod table;
mod time;

pub use batch::{Batch, BatchId, BatchIdError, DecodeError, Group, Mark, Writer, WriterError};
pub use claim::{Claim, IdempotencyKey, KeyError};
pub use delta::{Delta, Deltas, Totals};
pub use name::{CollectionName, Fitted, LabelError, Labelled, MetricName, NameError, OVERFLOW_METRIC};
pub use quarantined::Quarantined;
pub use table::{CounterHasher, FoldError, Table};
pub use time::{
    AtomicBucket, Bucket, BucketError, BucketRange, NotExact, Part, Period, PeriodError, Retention, Schedule,
    ScheduleConfig, ScheduleConflict, ScheduleError, ScheduleTextError, Schedules,
};

/// The time library whose dates, timestamps and zones appear in the public interface.
pub use jiff;
