//! Single timed steps, for what cannot be repeated without preparation.

use std::time::Duration;

/// Something done to many counters at once.
pub trait Step {
    /// Says in words what is done.
    fn label(&self) -> String;

    /// Prepares, does it once, tidies up, and returns how long the doing took.
    fn time(&mut self) -> Duration;
}
