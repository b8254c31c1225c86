//! Stores by URI: [`StoreUri`] checks an address and hides its password, [`open_store`] opens the store behind it.
//!
//! The features `sqlite`, `mongodb` and `srv` (`mongodb+srv://`) decide which stores are compiled in.

mod open;
mod redact;
mod uri;

pub use open::{MongodbConfig, open_store, open_store_for_reading, open_store_with};
pub use redact::{escaped, redact, shown};
pub use uri::{StoreUri, StoreUriError};
