//! countem over HTTP.
