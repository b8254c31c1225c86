//! The command line, by spawning it.
#![allow(clippy::unwrap_used, reason = "everything here is a test, also what is not marked as one")]

mod commands;
mod copies;
mod corrections;
mod corrections_killed;
mod doctor;
mod exact;
mod files;
mod follow;
mod forgotten;
mod formats;
mod generator;
mod harness;
mod histories;
mod imports;
mod ingest;
mod look;
mod manners;
mod once;
mod oracle;
mod quarantine;
mod reading;
mod recorded;
mod remote;
mod remote_store;
mod replay;
mod retention;
mod schedule;
mod series;
mod serve;
mod served;
mod transfer;
mod two_hops;
mod undo;
#[cfg(unix)]
mod unwritable;
