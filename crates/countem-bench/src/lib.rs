//! Subjects of the benchmarks of countem, and the peers beside them.
//!
//! The binary `ratios` measures every case and its baseline in turns and prints one table. `cargo xtask bench` runs it.
//!
//! No other crate depends on a peer.

pub mod workload;

pub mod counting;
pub mod crew;
pub mod peers;
pub mod subject;

pub mod drain;
pub mod memory;
pub mod new_key;
pub mod query;
pub mod readers;
pub mod sqlite;
pub mod step;
