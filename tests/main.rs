//! countem from outside, as a service sees it: through the public facade, on real stores.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is a test, also the functions that are not marked as one"
)]

mod support;

mod crash;
mod doors;
mod guarantees;
mod mongodb;
