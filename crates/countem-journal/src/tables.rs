//! The tables of a journal, and the digests that tell a damaged one from a sound one.

pub(crate) mod schema;
pub(crate) mod state;

pub(crate) mod batches;
pub(crate) mod keyed;
pub(crate) mod pending;
pub(crate) mod quarantine;

pub(crate) mod contents;
pub(crate) mod digest;
