#![doc = include_str!("../README.md")]

mod find;
mod link;
mod mongod;
mod port;
mod process;
mod proxy;
mod replica_set;
mod server;

pub use find::{cached_mongod, mongod};
pub use link::{Link, Trouble};
pub use mongod::{Mongod, Options};
pub use port::Port;
pub use process::{Child, command};
pub use proxy::{Fault, Held, Message, Mode, Proxy};
pub use replica_set::ReplicaSet;
pub use server::{Server, in_own_database, require_mongod, require_server, require_tool, shared_uri};
