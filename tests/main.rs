//! countem from outside, as a service sees it: through the public facade, on real SQLite files.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is a test, also the functions that are not marked as one"
)]

mod support;

mod books;
mod config;
mod crash;
mod durable;
mod examples;
mod global;
mod hosts;
mod load;
mod midnight;
mod mongodb;
mod names;
mod periods;
mod processes;
mod reads;
mod regressions;
mod start;
