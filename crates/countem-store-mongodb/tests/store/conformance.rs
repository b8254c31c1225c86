//! Every law of the contract, on every kind of deployment and with settings that make documents split early.

use std::num::{NonZeroU16, NonZeroUsize};

use anyhow::Result;
use countem_store::conformance;
use countem_store_mongodb::MongoConfig;
use countem_testkit::{ReplicaSet, Server, require_mongod, require_server};

use crate::support::{in_own_database, open_with};

async fn conforms(uri: &str, set: impl Fn(&mut MongoConfig)) {
    let make = async || {
        let mut options = MongoConfig::new(in_own_database(uri));
        set(&mut options);
        open_with(options)
    };
    assert_eq!(conformance::run(make).await, conformance::LAWS);
}

fn split_early(options: &mut MongoConfig) {
    options.metrics_per_document = NonZeroUsize::new(2).expect("2 is not zero");
}

fn shard_writers(options: &mut MongoConfig) {
    options.writer_shards = NonZeroU16::new(4).expect("4 is not zero");
}

#[tokio::test]
async fn a_standalone_server_keeps_the_contract() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    conforms(&server.uri(), |_| {}).await;
    conforms(&server.uri(), split_early).await;
    conforms(&server.uri(), shard_writers).await;
    let everything = |options: &mut MongoConfig| {
        split_early(options);
        shard_writers(options);
        options.retention = Some(std::time::Duration::from_secs(100 * 366 * 24 * 3600));
    };
    conforms(&server.uri(), everything).await;
    Ok(())
}

#[tokio::test]
async fn a_replica_set_keeps_the_contract() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(3).await?;
    conforms(&set.uri(), |_| {}).await;
    conforms(&set.uri(), split_early).await;
    conforms(&set.uri(), shard_writers).await;
    Ok(())
}
