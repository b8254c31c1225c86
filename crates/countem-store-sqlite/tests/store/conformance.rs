//! The contract of a store, with every configuration that changes how calls are carried out.
//!
//! Shows G1.

use std::num::NonZeroUsize;

use countem_store_sqlite::{SqliteConfig, SqliteStore, Synchronous};

use crate::support::{file, open};

mod default_config {
    use super::*;

    countem_store::conformance!(async |law| {
        let folder = tempfile::tempdir().unwrap();
        law.check(&open(folder.path())).await;
    });
}

mod unsynced_with_one_reader {
    use super::*;

    countem_store::conformance!(async |law| {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig {
            synchronous: Synchronous::Normal,
            readers: NonZeroUsize::MIN,
            ..SqliteConfig::new(file(folder.path()))
        };
        law.check(&SqliteStore::open(config).unwrap()).await;
    });
}
