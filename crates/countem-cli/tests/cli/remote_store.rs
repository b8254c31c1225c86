//! The contract of a store, by the store of another countem: each law over HTTP to a server of its own.
//!
//! The removal of expired buckets is the server's own, so the laws of expiry have nothing to check here.
//!
//! Shows G1.

use countem_store_remote::{RemoteConfig, RemoteStore};

use crate::{harness::Sandbox, served::Served};

mod on_sqlite {
    use super::*;

    countem_store::conformance!(async |law| {
        let folder = Sandbox::new();
        let server = Served::start(&folder, &[]);
        let host = format!("127.0.0.1:{}", server.port());
        law.check(&RemoteStore::connect(&RemoteConfig::new(host)).unwrap()).await;
    });
}
