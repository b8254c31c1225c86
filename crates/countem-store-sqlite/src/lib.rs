//! The embedded store of countem: one SQLite file.
