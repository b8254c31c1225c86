#![doc = include_str!("../README.md")]

mod cause;
mod file;
mod header;
mod private;
mod wait;

pub use cause::{Cause, is_clean};
pub use file::{Displaced, OpenFile, Place, bytes_of, log_of};
pub use header::Header;
pub use private::{bytes_of_disk, create_private_folder, private_file, sync_folder};
