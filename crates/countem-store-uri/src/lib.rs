//! Stores by URI: [`StoreUri`] checks an address and hides its password, [`open_store`] opens the store behind it.
//!
//! The features `sqlite`, `mongodb`, `srv` (`mongodb+srv://`) and `remote` (`countem://`) decide which stores are compiled in.

mod open;
mod redact;
mod uri;

pub use open::{MongodbConfig, open_store, open_store_for_reading, open_store_with, open_store_with_pending};
pub use redact::{escaped, redact, shown};
pub use uri::{StoreUri, StoreUriError};
