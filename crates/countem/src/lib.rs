//! Count events in memory, store every count exactly once.
