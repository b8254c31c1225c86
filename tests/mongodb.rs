//! countem on MongoDB, as a service and a user at a terminal see it: through the facade and the command line, on real servers.

mod command_line;
mod database;
mod failover;
mod lanes;
mod load;
mod names;
mod oracle;
pub(crate) mod program;
mod reads;
mod restarts;
mod start;
