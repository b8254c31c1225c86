//! Count events in memory, store every count exactly once.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use countem::Collector;
//!
//! let collector = Collector::builder().store("sqlite://countem.db").start().await?;
//! collector.increment("app-events", "MyMethod.calls", 1);
//!
//! let today = collector.get_counters("app-events", None).await?;
//! assert_eq!(today["MyMethod.calls"], 1);
//!
//! let report = collector.shutdown().await;
//! assert!(report.is_complete());
//! # Ok(())
//! # }
//! ```
//!
//! An increment is folded in place by the calling thread and costs some ten nanoseconds; every flush interval the
//! merged deltas are added to the store, and each batch is added exactly once however often it has to be sent.
//! Reads include what this node has not stored yet, so they are exact at once.
//!
//! The collector brings its own threads: it runs unchanged under `#[tokio::main]`, in an actix-web service, and in a program
//! without any runtime (use the `_blocking` twins there).

mod builder;
mod collector;
mod error;
mod global;
#[cfg(feature = "metrics")]
mod metrics;

pub use builder::Builder;
pub use collector::Collector;
pub use error::Error;
pub use global::{InstallError, install, installed};
#[cfg(feature = "metrics")]
pub use metrics::METRICS_CONTENT_TYPE;

#[doc(hidden)]
pub use global::CallSite;

#[cfg(feature = "config")]
pub use countem_config as config;
pub use countem_core::{
    Batch, BatchId, Bucket, BucketRange, CollectionName, Delta, Mark, MetricName, NameError, OVERFLOW_METRIC,
    Period, Schedule, Table, Writer,
    jiff::{self, Timestamp, civil::Date},
};
pub use countem_engine::{
    Calendar, Clock, Counter, Durability, EngineConfig, LaneStats, ManualClock, NotDurable, Refusal, Retry,
    ShutdownReport, StartError, Stats, deliver, lane_of,
};
pub use countem_journal::{self as journal, JournalConfig};
pub use countem_query::{ReadError, Reader, When};
pub use countem_store::{self as store, Counters, Quarantined, Store, StoreError};
pub use countem_stores::{MongodbConfig, StoreUri, StoreUriError, open_store, open_store_with};
