//! Reading: queries, and the threads that run them.

mod connection;
mod query;
mod threads;

pub(crate) use query::{buckets_before, collections, integrity, marks, snapshot};
pub(crate) use threads::ReadThreads;
