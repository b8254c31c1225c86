#![doc = include_str!("../README.md")]

mod cause;
mod descriptor;
mod file;
mod header;
mod place;
mod private;
mod unwritable;
mod wait;

pub use cause::{Cause, is_clean};
pub use file::OpenFile;
pub use header::Header;
pub use place::{Displaced, Place, bytes_of, log_of};
pub use private::{bytes_of_disk, create_private_folder, private_file, sync_folder};
pub use unwritable::is_writable;
