//! End-to-end tests of countem.
