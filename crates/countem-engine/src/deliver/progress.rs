//! Waiting until everything that was pending in a lane is stored.

use tokio::sync::watch;

/// Progress of a lane. A wait that is given up leaves nothing behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Number of freezes of which everything is stored.
    pub(super) stored: u64,
    /// Nothing more is stored.
    pub(super) is_closed: bool,
}

/// A wait for the moment when everything that was pending in a lane is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(super) goal: u64,
    pub(super) progress: watch::Receiver<Progress>,
}

impl Stored {
    /// Returns once it is stored, or false once it is clear that it will not be.
    pub(crate) async fn wait(mut self) -> bool {
        let is_over = |progress: &Progress| progress.stored >= self.goal || progress.is_closed;
        let stored = self.progress.wait_for(is_over).await;
        stored.is_ok_and(|progress| progress.stored >= self.goal)
    }
}
