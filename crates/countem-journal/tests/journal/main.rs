//! The public interface of the journal: opened, used, killed, damaged and opened again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod copy;
mod crash;
mod damage;
mod disk;
mod failure;
mod group;
mod keyed;
mod lock;
mod model;
mod quarantine;
mod reader;
mod reopen;
mod size;
