//! Every law of the contract, on every kind of deployment and with a configuration that makes documents split early.
//!
//! Shows G1.

use std::num::{NonZeroU16, NonZeroUsize};

use anyhow::Result;
use countem_store::conformance::{LAWS, Law};
use countem_store_mongodb::MongoConfig;
use countem_testkit::{ReplicaSet, Server, in_own_database, require_mongod, require_server};

use crate::support::open_with;

fn default(_: &mut MongoConfig) {}

fn split_early(config: &mut MongoConfig) {
    config.metrics_per_document = NonZeroUsize::new(2).expect("2 is not zero");
}

fn shard_writers(config: &mut MongoConfig) {
    config.writer_shards = NonZeroU16::new(4).expect("4 is not zero");
}

fn everything(config: &mut MongoConfig) {
    split_early(config);
    shard_writers(config);
}

/// Checks `law` with each of `configs`, in a database of its own.
async fn check(law: Law, uri: &str, configs: &[fn(&mut MongoConfig)]) {
    for set in configs {
        let mut config = MongoConfig::new(in_own_database(uri));
        set(&mut config);
        law.check(&open_with(config)).await;
    }
}

mod standalone_server {
    use super::*;

    countem_store::conformance!(async |law| {
        if require_server() {
            let server = Server::any().await.expect("a server starts");
            check(law, &server.uri(), &[default, split_early, shard_writers, everything]).await;
        }
    });
}

/// One test for all laws, because a set of servers takes long to start.
#[tokio::test]
async fn replica_set_keeps_every_law() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(3).await?;
    for law in LAWS {
        println!("law: {}", law.name());
        check(*law, &set.uri(), &[default, split_early, shard_writers]).await;
    }
    Ok(())
}
