#![doc = include_str!("../README.md")]

mod and_get;
mod builder;
mod collector;
mod correct;
mod error;
mod global;
mod guard;
#[cfg(feature = "metrics")]
mod metrics;
mod scope;

pub mod blocking;
pub mod keyed;

pub use builder::Builder;
pub use collector::Collector;
pub use error::{Error, ErrorKind};
pub use global::{InstallError, install, installed, shutdown};
pub use guard::Guard;
#[cfg(feature = "metrics")]
pub use metrics::METRICS_CONTENT_TYPE;
pub use scope::Scope;

#[doc(hidden)]
pub use global::CallSite;

pub use countem_core::{
    Bucket, BucketRange, CollectionName, LabelError, MetricName, NameError, Period,
    jiff::{self, Timestamp, civil::Date},
};
pub use countem_engine::{Counter, Durability, Refusal, ShutdownReport, StartError, Stats};
pub use countem_query::{Query, When};
pub use countem_store::{Counters, Unreadable};

/// The configuration of files, environment and flags.
#[cfg(feature = "config")]
pub mod config {
    pub use countem_config::*;
}

/// The engine behind a collector: its whole configuration, and clocks for tests.
pub mod engine {
    pub use countem_core::ScheduleConfig;
    pub use countem_engine::{Clock, Engine, EngineConfig, LaneStats, ManualClock, NotDurable};
    pub use countem_query::{ReadError, Reader, Source};
}

/// Queries and their answers; see [`Collector::query`].
pub mod query {
    pub use countem_query::{
        Answer, Compare, Cursor, CursorError, Day, DayError, Fill, Group, LabelFilter, LabelFilterError,
        Limits, Metrics, Order, Pattern, PatternError, Query, QueryError, Row, TimeRange, TimeRangeError,
        Value,
    };
}

/// Corrections of stored counts; see [`Collector::correct`].
pub mod corrections {
    pub use countem_engine::{
        Corrected, Correction, CorrectionEntry, CorrectionError, CorrectionKind, CorrectionPreview,
        Corrections,
    };
}

/// The journal of level `journal`.
pub mod journal {
    pub use countem_journal::*;
}

/// Stores: their contract, for a store of your own, and those that are built in.
pub mod store {
    pub use countem_core::{Batch, BatchId, Claim, Delta, IdempotencyKey, Mark, Schedule, Schedules, Writer};
    pub use countem_store::*;
    pub use countem_store_uri::{MongodbConfig, StoreUri, StoreUriError, open_store, open_store_with};
}

/// The handles cross threads.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync + 'static>() {}
    is_send_and_sync::<Collector>();
    is_send_and_sync::<Counter>();
    is_send_and_sync::<Scope>();
    is_send_and_sync::<Guard>();
    is_send_and_sync::<Builder>();
    is_send_and_sync::<Error>();
};
