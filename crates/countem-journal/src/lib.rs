//! The local durable journal of countem.
