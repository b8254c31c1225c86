//! Marks: a batch that moves one is counted once, wherever its process ends between the steps.
//!
//! Shows G1.

use std::sync::Arc;

use anyhow::Result;
use countem_core::{Batch, Mark};
use countem_store::{ErrorKind, Store};
use countem_store_mongodb::MongoStore;
use countem_testkit::{Message, Proxy, ReplicaSet, Server, in_own_database, require_mongod};

use crate::support::{DAY, Lane, database, day, deliver, documents, open, watermarks};

const KEY: &str = "file/x/0";

/// Runs a scene on a standalone and on the primary of a replica set, behind a proxy.
async fn on_both(scene: impl AsyncFn(&Proxy, &str) -> Result<()>) -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let (standalone, proxy) = Server::behind_proxy().await?;
    scene(&proxy, &in_own_database(&proxy.uri())).await?;
    drop(standalone);
    let set = ReplicaSet::start(3).await?;
    let primary = set.wait_for_primary().await?;
    let proxy = Proxy::start(set.member(primary).port())?;
    scene(&proxy, &in_own_database(&proxy.uri())).await
}

/// Returns a batch that adds 1 to two collections and moves the mark.
fn moving(lane: &mut Lane, expected: Option<&str>, value: &str) -> Arc<Batch> {
    let batch = lane.batch([("web", DAY, "m", 1), ("mail", DAY, "m", 1)]);
    let batch = Arc::into_inner(batch).expect("nothing else has the batch");
    let (expected, value) = (expected.map(str::to_owned), Some(value.to_owned()));
    let mark = Mark { key: KEY.to_owned(), expected, value };
    Arc::new(Batch::with_mark(batch.id().clone(), batch.into_deltas(), mark))
}

async fn counted(store: &MongoStore) -> [i64; 2] {
    let one = async |name| day(store, name).await.readable().next().map_or(0, |(_, n)| n);
    [one("web").await, one("mail").await]
}

async fn mark(store: &MongoStore) -> Result<Option<String>> {
    Ok(store.marks("file/").await?.remove(KEY))
}

/// Matches the request of one step: creation of the mark, its begin, the counts, its end.
fn step(number: usize) -> impl Fn(&Message) -> bool + Send + Sync + Copy + 'static {
    move |request| {
        let is_mark = request.contains("_countem_marks");
        request.is("update")
            && match number {
                0 => is_mark && request.contains("$setOnInsert"),
                1 => is_mark && request.contains("$set\0") && request.contains("batch\0"),
                2 => !is_mark && request.contains("$inc"),
                _ => is_mark && request.contains("$unset"),
            }
    }
}

#[tokio::test]
async fn every_step_survives_lost_messages() -> Result<()> {
    on_both(async |proxy, uri| {
        let store = open(uri);
        let mut lane = Lane::new(1);
        let mut expected: Option<String> = None;
        let mut moved = 0;
        for (number, loses_reply) in (0..4).flat_map(|number| [(number, false), (number, true)]) {
            let lost = match loses_reply {
                true => proxy.drop_reply(1, step(number)),
                false => proxy.drop_request(1, step(number)),
            };
            let value = format!("step {number}, {loses_reply}");
            let batch = moving(&mut lane, expected.as_deref(), &value);
            let errors = deliver(&store, &batch).await;
            // The mark is created only once.
            if (number, loses_reply) != (0, true) {
                lost.happened(1).await?;
                assert_eq!(errors.len(), 1, "{value}: {errors:?}");
            }
            moved += 1;
            assert_eq!(counted(&store).await, [moved; 2], "{value}");
            assert_eq!(mark(&store).await?.as_ref(), Some(&value));
            expected = Some(value);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn batch_of_an_ended_process_is_completed() -> Result<()> {
    on_both(async |proxy, uri| {
        let mut expected: Option<String> = None;
        let mut moved = 0;
        for (writer, number) in [(1, 2), (2, 3)] {
            for reads in [true, false] {
                let ended = open(uri);
                let mut lane = Lane::new(10 * writer + u64::from(reads));
                let lost = proxy.drop_request(1, step(number));
                let value = format!("ended before step {number}, {reads}");
                let batch = moving(&mut lane, expected.as_deref(), &value);
                let error = ended.apply(&batch).await.expect_err("the request is lost");
                assert_eq!(error.kind(), ErrorKind::InDoubt, "{error}");
                lost.happened(1).await?;
                moved += 1;

                // Another process reads the mark, or moves it on from there.
                let next = open(uri);
                if reads {
                    assert_eq!(mark(&next).await?.as_ref(), Some(&value));
                    assert_eq!(counted(&next).await, [moved; 2]);
                }
                let after = format!("{value}, and on");
                let on = moving(&mut Lane::new(100 * writer + u64::from(reads)), Some(&value), &after);
                assert_eq!(deliver(&next, &on).await, [""; 0]);
                moved += 1;
                // The first process was only slow.
                assert_eq!(deliver(&ended, &batch).await, [""; 0]);
                assert_eq!(counted(&next).await, [moved; 2]);
                assert_eq!(mark(&next).await?.as_ref(), Some(&after));
                let late = next.apply(&moving(&mut Lane::new(99), Some(&value), "late")).await;
                assert_eq!(late.expect_err("the mark has moved").kind(), ErrorKind::Conflict);
                expected = Some(after);
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn forgotten_writer_leaves_watermarks_to_completers() -> Result<()> {
    on_both(async |_, uri| {
        let (store, mut lane) = (open(uri), Lane::new(1));
        let batch = moving(&mut lane, None, "1");
        deliver(&store, &batch).await;
        store.forget(&lane.writer).await?;
        let database = database(uri).await?;
        assert_eq!(watermarks(&database, "_countem_marks").await?, 0, "the mark stays small");
        // Another process found the batch pending, and adds it only now.
        assert_eq!(watermarks(&database, "web").await?, 1);
        assert_eq!(documents(&database, "_countem_writers").await?.len(), 1, "it is pruned later");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn batch_too_large_for_a_mark_is_refused() -> Result<()> {
    on_both(async |_, uri| {
        let (store, mut lane) = (open(uri), Lane::new(1));
        let names: Vec<String> = (0..30_000).map(|n| format!("{n:0500}")).collect();
        let batch = lane.batch(names.iter().map(|name| ("web", DAY, name.as_str(), 1)));
        let batch = Arc::into_inner(batch).expect("nothing else has the batch");
        let mark = Mark { key: KEY.to_owned(), expected: None, value: Some("1".to_owned()) };
        let batch = Arc::new(Batch::with_mark(batch.id().clone(), batch.into_deltas(), mark));
        let error = store.apply(&batch).await.expect_err("no document can hold it");
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("flush.batch_counters"), "{error}");
        assert!(day(&store, "web").await.is_empty());
        Ok(())
    })
    .await
}
