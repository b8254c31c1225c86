//! The store against servers that misbehave. The contract is checked against a real one, by the tests of the command line.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod server;
