//! Names, periods, buckets, deltas, batches and the aggregation table.
//!
//! Everything countem is exact about is decided here, in plain values: no I/O, no clock and no async (I4).
//! A caller brings the time; a delta keeps the bucket it was counted in (I3); a [`Batch`] cannot be
//! changed or copied once it exists (I7).
//!
//! ```
//! use countem_core::{Bucket, Period, Table};
//!
//! let day: Bucket = "2026-11-20".parse()?;
//! let mut table = Table::new();
//! table.fold("app-events", "MyMethod.calls", day, 1)?;
//! table.fold("app-events", "MyMethod.calls", day, 2)?;
//!
//! let deltas = table.drain();
//! let delta = deltas.iter().next().expect("one counter was touched");
//! assert_eq!((delta.metric, delta.n, delta.increments), ("MyMethod.calls", 3, 2));
//! assert_eq!(day.rollup(Period::Month, &jiff::tz::TimeZone::UTC).map(|b| b.to_string()).as_deref(), Some("2026-11"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod bucket;
mod delta;
pub mod hash;
mod name;
mod period;
mod quarantined;
mod range;
mod schedule;
mod table;

pub use batch::{Batch, BatchId, DecodeError, Group, Mark, Writer, WriterError};
pub use bucket::{AtomicBucket, Bucket, BucketError};
pub use delta::{Delta, Deltas, Totals};
pub use name::{CollectionName, MetricName, NameError, OVERFLOW_METRIC};
pub use period::{Period, PeriodError};
pub use quarantined::Quarantined;
pub use range::BucketRange;
pub use schedule::{Schedule, ScheduleError, Schedules};
pub use table::{CounterHasher, FoldError, Table};

/// The time library whose dates, timestamps and zones appear in the public interface.
pub use jiff;
