//! The MongoDB store of countem: atomic increments, exactly once.
