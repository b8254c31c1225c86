#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "The journal of countem, built without SQLite: it cannot be opened."
)]

mod config;
mod error;
mod keyed;
mod quarantine;
mod record;
mod recovered;
mod status;

#[cfg(feature = "sqlite")]
mod disk;
#[cfg(feature = "sqlite")]
mod journal;
#[cfg(feature = "sqlite")]
mod reader;
#[cfg(feature = "sqlite")]
mod shared;
#[cfg(feature = "sqlite")]
mod tables;
#[cfg(feature = "sqlite")]
mod thread;
#[cfg(not(feature = "sqlite"))]
mod without_sqlite;

#[cfg(feature = "failpoints")]
pub mod fail_points;

pub use config::{CopiedPending, JournalConfig};
pub use error::{ErrorKind, JournalError};
pub use keyed::KeyedEntry;
pub use quarantine::{QuarantineEntry, Quarantined, Selection};
pub use record::{Record, Recorded, Refused};
pub use recovered::{Origin, Recovered, SetAside};
pub use status::{Health, Status};

#[cfg(feature = "sqlite")]
pub use journal::Journal;
#[cfg(feature = "sqlite")]
pub use reader::{JournalReader, Part, ResolvedBatch, Summary};
#[cfg(feature = "sqlite")]
pub use tables::schema::{APPLICATION_ID, SCHEMA_VERSION};
#[cfg(feature = "sqlite")]
pub use thread::transaction::Retried;
#[cfg(not(feature = "sqlite"))]
pub use without_sqlite::Journal;
