//! Whether this process alone has its identity.

use std::sync::atomic::{AtomicBool, Ordering};

use countem_core::Writer;
use countem_store::{ErrorKind, Registration, Store, StoreError};

/// The claim of a writer's identity to a store, which has to be granted before the first batch is sent: two processes under one
/// identity would take each other's batches for late copies of their own.
#[derive(Debug)]
pub(crate) struct Claim {
    writer: Writer,
    is_granted: AtomicBool,
}

impl Claim {
    pub(crate) fn new(writer: Writer, is_granted: bool) -> Self {
        Self { writer, is_granted: AtomicBool::new(is_granted) }
    }

    /// Returns at once when the claim is granted; else asks the store.
    ///
    /// # Errors
    /// It is not known to be granted. Nothing may be sent.
    pub(crate) async fn settle(&self, store: &dyn Store) -> Result<(), StoreError> {
        if self.is_granted.load(Ordering::Acquire) {
            return Ok(());
        }
        match store.register(&self.writer).await? {
            Registration::Fresh => {
                self.is_granted.store(true, Ordering::Release);
                Ok(())
            }
            Registration::Cloned => Err(StoreError::new(
                ErrorKind::NotApplied,
                "another process counts under the identity of this journal: start this process again, it will take a new one",
            )),
        }
    }
}
