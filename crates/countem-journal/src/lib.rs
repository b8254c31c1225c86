#![doc = include_str!("../README.md")]

mod config;
mod error;
mod journal;
mod recovered;
mod schema;

mod blocking;
mod freeze;
mod quarantine;
mod reader;
mod record;
mod request;
mod status;

mod batch;
mod digest;
mod ledger;
mod pending;

mod aside;
mod connection;
mod fail;
mod lock;
mod open;
mod place;
mod reserve;
mod session;
mod task;
mod witness;
mod writer;

pub use aside::SetAside;
pub use config::{CopiedPending, JournalConfig};
pub use error::{ErrorKind, JournalError};
#[cfg(feature = "failpoints")]
pub use fail::FailPoints;
pub use journal::Journal;
pub use place::Origin;
pub use quarantine::{QuarantineEntry, Quarantined, Selection};
pub use reader::{JournalReader, Part, ResolvedBatch, Summary};
pub use record::{Record, Recorded, Refused};
pub use recovered::Recovered;
pub use request::Retried;
pub use schema::{APPLICATION_ID, SCHEMA_VERSION};
pub use status::{Health, Status};
