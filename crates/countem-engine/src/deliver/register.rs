//! Registering the identity of a writer before its first batch.

use std::sync::atomic::{AtomicBool, Ordering};

use countem_core::Writer;
use countem_store::{ErrorKind, Registration, Store, StoreError};

/// Ensures that no other process uses the identity of this writer: two processes under one identity would take each other's
/// batches for late copies of their own.
#[derive(Debug)]
pub(crate) struct Register {
    writer: Writer,
    is_registered: AtomicBool,
}

impl Register {
    pub(crate) fn new(writer: Writer, is_registered: bool) -> Self {
        Self { writer, is_registered: AtomicBool::new(is_registered) }
    }

    /// Registers the writer unless it is registered already.
    ///
    /// # Errors
    /// The writer is not known to be registered. Nothing may be sent.
    pub(crate) async fn ensure(&self, store: &dyn Store) -> Result<(), StoreError> {
        if self.is_registered.load(Ordering::Acquire) {
            return Ok(());
        }
        match store.register(&self.writer).await? {
            Registration::Fresh => {
                self.is_registered.store(true, Ordering::Release);
                Ok(())
            }
            Registration::Cloned => Err(StoreError::new(
                ErrorKind::NotApplied,
                "another process counts under the identity of this journal: start this process again, it will take a new one",
            )),
        }
    }
}
