//! Keeps counters in another countem, over HTTP.
