#![doc = include_str!("../README.md")]

mod config;
mod error;

mod journal;
mod reader;
mod recovered;
mod status;

mod disk;
mod tables;
mod thread;

#[cfg(feature = "failpoints")]
pub mod fail_points;

pub use config::{CopiedPending, JournalConfig};
pub use disk::{provenance::Origin, set_aside::SetAside};
pub use error::{ErrorKind, JournalError};
pub use journal::Journal;
pub use reader::{JournalReader, Part, ResolvedBatch, Summary};
pub use recovered::Recovered;
pub use status::{Health, Status};
pub use tables::{
    quarantine::{QuarantineEntry, Quarantined, Selection},
    schema::{APPLICATION_ID, SCHEMA_VERSION},
};
pub use thread::{
    record::{Record, Recorded, Refused},
    transaction::Retried,
};
