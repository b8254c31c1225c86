//! Benchmarks of countem beside its peers.
