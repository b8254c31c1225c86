//! Deltas that a document cannot add are quarantined alone, and reported again to every later sender of their batch.
//!
//! Shows G15.

use std::sync::Arc;

use anyhow::Result;
use countem_core::Batch;
use countem_store::{Applied, ErrorKind, Store};
use countem_store_mongodb::{MongoConfig, MongoStore};
use countem_testkit::{Server, in_own_database, require_server};
use mongodb::bson::{Document, doc};

use crate::support::{DAY, Lane, database, day, deliver, one, open, open_with};

/// Returns metric, amount and reason of each quarantined delta.
fn quarantined(applied: &Applied) -> Vec<(&str, i64, &str)> {
    let deltas = applied.quarantined.iter();
    let mut deltas: Vec<_> =
        deltas.map(|delta| (delta.metric.as_str(), delta.n, delta.reason.as_str())).collect();
    deltas.sort_unstable();
    deltas
}

async fn damage(uri: &str, set: Document) -> Result<()> {
    let web = database(uri).await?.collection::<Document>("web");
    web.update_one(doc! { "_id": format!("{DAY}/1") }, doc! { "$set": set }).await?;
    Ok(())
}

/// A document with a field that is a string, one at the end of its range, and others that are fine.
async fn damaged(uri: &str) -> Result<(MongoStore, Lane)> {
    let store = open(uri);
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch(["good", "text", "big"].map(|metric| ("web", DAY, metric, 1)))).await;
    damage(uri, doc! { "c.text": "five", "c.big": i64::MAX - 1 }).await?;
    Ok((store, lane))
}

fn thousand(lane: &mut Lane) -> Arc<Batch> {
    let good: Vec<String> = (0..997).map(|i| format!("m{i}")).collect();
    let good = good.iter().map(|metric| ("web", DAY, metric.as_str(), 1));
    lane.batch(good.chain([("web", DAY, "text", 3), ("web", DAY, "big", 2), ("web", DAY, "good", 1)]))
}

const QUARANTINED: [(&str, i64, &str); 2] = [
    ("big", 2, "9223372036854775806 plus 2 exceeds the range of a 64-bit integer"),
    ("text", 3, "the stored value is a string, not a number"),
];

#[tokio::test]
async fn offenders_are_quarantined_and_the_rest_is_stored() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    // In one document, where the server refuses all of it, and divided over several.
    for metrics_per_document in [256, 1000] {
        let uri = in_own_database(&server.uri());
        let (_, mut lane) = damaged(&uri).await?;
        let mut config = MongoConfig::new(&uri);
        config.metrics_per_document = metrics_per_document.try_into()?;
        let store = open_with(config);
        let batch = thousand(&mut lane);
        let applied = store.apply(&batch).await?;
        if metrics_per_document == 1000 {
            assert_eq!(quarantined(&applied), QUARANTINED);
        } else {
            // The damaged document was split, so the sums begin anew in its children.
            assert_eq!(quarantined(&applied), []);
        }
        let counters = day(&store, "web").await;
        assert_eq!(counters.values().filter(|value| *value == Ok(1)).count(), 997);
        assert_eq!(counters["good"], 2);
    }
    Ok(())
}

#[tokio::test]
async fn process_without_memory_gets_the_same_report() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (store, mut lane) = damaged(&uri).await?;
    let batch = lane.batch([("web", DAY, "text", 3), ("web", DAY, "big", 2), ("web", DAY, "good", 1)]);
    assert_eq!(quarantined(&store.apply(&batch).await?), QUARANTINED);
    // The reason is repaired, and another process sends the batch again: its two offenders stay quarantined.
    damage(&uri, doc! { "c.text": 0_i64, "c.big": 0_i64 }).await?;
    for _ in 0..2 {
        assert_eq!(quarantined(&open(&uri).apply(&batch).await?), QUARANTINED);
    }
    assert_eq!(one(&store, "web", "text").await, Some(0));
    assert_eq!(one(&store, "web", "good").await, Some(2));
    // The next batch adds to them.
    deliver(&store, &lane.batch([("web", DAY, "text", 7), ("web", DAY, "big", 7)])).await;
    assert_eq!(one(&store, "web", "text").await, Some(7));
    Ok(())
}

#[tokio::test]
async fn lost_reply_to_a_reduced_update_is_repeated() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let (_server, proxy) = Server::behind_proxy().await?;
    let uri = in_own_database(&proxy.uri());
    let (store, mut lane) = damaged(&uri).await?;
    let lost = proxy.drop_reply(1, |request| request.is("update") && request.contains("reason"));
    let batch = lane.batch([("web", DAY, "text", 3), ("web", DAY, "big", 2), ("web", DAY, "good", 1)]);
    let error = store.apply(&batch).await.expect_err("the reply is lost");
    lost.happened(1).await?;
    assert_eq!(error.kind(), ErrorKind::InDoubt);
    // The offenders could be added now. The first attempt was carried out, so its report counts.
    damage(&uri, doc! { "c.text": 0_i64, "c.big": 0_i64 }).await?;
    assert_eq!(quarantined(&store.apply(&batch).await?), QUARANTINED);
    assert_eq!(one(&store, "web", "text").await, Some(0));
    assert_eq!(one(&store, "web", "good").await, Some(2));
    Ok(())
}

#[tokio::test]
async fn document_without_counters_quarantines_all_its_deltas() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (store, mut lane) = damaged(&uri).await?;
    damage(&uri, doc! { "c": "gone" }).await?;
    let batch = lane.batch([("web", DAY, "a", 3), ("web", "2026-11-21", "a", 4), ("other", DAY, "a", 5)]);
    let applied = store.apply(&batch).await?;
    let left: Vec<_> = quarantined(&applied).into_iter().map(|(metric, n, _)| (metric, n)).collect();
    assert_eq!(left, [("a", 3)]);
    assert_eq!(day(&store, "other").await["a"], 5);
    Ok(())
}

#[tokio::test]
async fn damaged_bookkeeping_is_refused_by_name() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (store, mut lane) = damaged(&uri).await?;
    let batch = lane.batch([("web", DAY, "good", 1)]);
    for (set, named) in [(doc! { "w": "gone" }, "w"), (doc! { "w": {}, "split": 7 }, "`split`")] {
        damage(&uri, set).await?;
        let error = store.apply(&batch).await.expect_err("it cannot be counted exactly once");
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(named) && error.to_string().contains("2026-11-20/1"), "{error}");
    }
    // Repaired, the same batch goes through.
    let web = database(&uri).await?.collection::<Document>("web");
    web.update_one(doc! {}, doc! { "$set": { "w": {} }, "$unset": { "split": 1 } }).await?;
    deliver(&store, &batch).await;
    assert_eq!(one(&store, "web", "good").await, Some(2));
    Ok(())
}
