//! Laws of the facade.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod builder;
mod collector;
mod count;
mod features;
mod livecount;
