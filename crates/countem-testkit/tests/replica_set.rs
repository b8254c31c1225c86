//! The kit's replica set elects, fails over and recovers.

use anyhow::Result;
use countem_testkit::{ReplicaSet, require_mongod};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{ReadConcern, SelectionCriteria, WriteConcern};

async fn insert(client: &Client, id: &str) -> Result<()> {
    let things = client.database("kit").collection::<Document>("things");
    things.insert_one(doc! { "_id": id }).write_concern(WriteConcern::majority()).await?;
    Ok(())
}

#[tokio::test]
async fn set_elects_after_step_down_and_kill() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut set = ReplicaSet::start(3).await?;
    let client = Client::with_uri_str(set.uri()).await?;
    insert(&client, "first").await?;

    let first = set.wait_for_primary().await?;
    set.step_down(60).await?;
    let second = set.wait_for_primary().await?;
    assert_ne!(second, first, "it refuses to be primary for a minute");
    insert(&client, "second").await?;

    set.kill(second)?;
    let third = set.wait_for_primary().await?;
    assert_ne!(third, second);
    insert(&client, "third").await?;

    set.restart(second).await?;
    set.wait_for_secondaries().await?;
    let things = client.database("kit").collection::<Document>("things");
    let count = things
        .count_documents(doc! {})
        .selection_criteria(SelectionCriteria::ReadPreference(mongodb::options::ReadPreference::Primary))
        .read_concern(ReadConcern::majority())
        .await?;
    assert_eq!(count, 3);
    Ok(())
}

#[tokio::test]
async fn frozen_primary_is_replaced_and_follows_when_thawed() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut set = ReplicaSet::start(3).await?;
    let first = set.wait_for_primary().await?;
    set.freeze(first)?;
    let second = set.wait_for_primary().await?;
    assert_ne!(second, first);
    set.thaw(first)?;
    set.wait_for_secondaries().await?;
    assert!(set.wait_for_primary().await.is_ok());
    Ok(())
}

#[tokio::test]
async fn write_of_a_killed_primary_is_rolled_back() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut set = ReplicaSet::start(3).await?;
    let client = Client::with_uri_str(set.uri()).await?;
    insert(&client, "everywhere").await?;
    let first = set.wait_for_primary().await?;
    let others: Vec<_> = set.members().filter(|i| *i != first).collect();
    for i in &others {
        set.member(*i).fail_point("stopReplProducer", doc! { "mode": "alwaysOn" }).await?;
    }
    let journaled =
        WriteConcern::builder().w(mongodb::options::Acknowledgment::Nodes(1)).journal(true).build();
    let things = client.database("kit").collection::<Document>("things");
    things.insert_one(doc! { "_id": "here only" }).write_concern(journaled).await?;

    set.kill(first)?;
    for i in &others {
        set.member(*i).fail_point("stopReplProducer", doc! { "mode": "off" }).await?;
    }
    set.wait_for_primary().await?;
    insert(&client, "elsewhere").await?;
    set.restart(first).await?;
    set.wait_for_secondaries().await?;

    let ids = things.distinct("_id", doc! {}).await?;
    assert_eq!(ids, ["elsewhere".into(), "everywhere".into()]);
    Ok(())
}
