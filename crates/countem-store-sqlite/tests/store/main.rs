//! The SQLite store from outside: the contract, the file, and several processes on it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod conformance;
mod crash;
mod expiry;
mod files;
mod process;
mod several_processes;
mod support;
mod writers;
