//! Writing: one connection, on a thread of its own.

mod connection;
mod thread;

pub(crate) use thread::WriteThread;

#[cfg(test)]
mod tests;
