//! The store against real servers.

mod compaction;
mod conformance;
mod creation;
mod direct;
mod expiry;
mod faults;
mod marks;
mod partitions;
mod quarantine;
mod rollback;
mod support;
mod trouble;
mod values;
mod writers;
