//! The contract of a store, with every configuration that changes how calls are carried out.

use std::num::NonZeroUsize;

use countem_store::conformance;
use countem_store_sqlite::{SqliteConfig, SqliteStore, Synchronous};

use crate::support::{file, open};

#[tokio::test]
async fn sqlite_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let laws = conformance::run(async || open(folder.path())).await;
    assert_eq!(laws, conformance::LAWS);
}

#[tokio::test]
async fn contract_holds_unsynced_with_one_reader() {
    let folder = tempfile::tempdir().unwrap();
    let config = SqliteConfig {
        synchronous: Synchronous::Normal,
        readers: NonZeroUsize::MIN,
        ..SqliteConfig::new(file(folder.path()))
    };
    let laws = conformance::run(async || SqliteStore::open(config.clone()).unwrap()).await;
    assert_eq!(laws, conformance::LAWS);
}
