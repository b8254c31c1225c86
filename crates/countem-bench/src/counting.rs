//! Ways to count known names, all called alike.

use crate::workload::Walk;

/// One way to count. It is called from several threads at once.
pub trait Counting: Send + Sync + 'static {
    /// Says in words how an increment is made.
    fn label(&self) -> &'static str;

    /// Counts one for every name of the walk, `times` over.
    ///
    /// Every implementation hides from the compiler what it counts with, once per increment, and nothing else.
    fn count(&self, walk: &Walk, times: u64);

    /// Waits until everything that was sent somewhere is counted there. Part of the time: an increment of countem is counted
    /// when the call returns.
    fn settle(&self) {}

    /// Returns how many increments have arrived, `None` when this way of counting cannot know.
    fn counted(&self) -> Option<u64>;
}
