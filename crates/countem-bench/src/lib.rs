//! What the benchmarks of countem measure, and the peers it is measured against.
//!
//! Two programs share this: the criterion benches in `benches/`, for the details of one case, and the binary `ratios`,
//! which measures every case and its baseline in turns and prints one table. `cargo xtask bench` runs them.
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
pub mod sqlite;
pub mod step;
