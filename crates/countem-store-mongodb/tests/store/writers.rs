//! Bookkeeping of writers: the watermarks that they leave, and copied identities.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use countem_core::Writer;
use countem_store::{ErrorKind, Registration, Store};
use countem_testkit::{Server, in_own_database, require_server};
use mongodb::bson::Document;
use tokio::task::JoinSet;

use crate::support::{DAY, Lane, database, day, deliver, documents, open, watermarks};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_writers_leave_no_watermark() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let mut writers = JoinSet::new();
    for worker in 0..8_u64 {
        let uri = uri.clone();
        writers.spawn(async move {
            let mut store = Arc::new(open(&uri));
            for i in 0..250 {
                // Making a client takes time, so each serves fifty writers.
                if i % 50 == 0 {
                    store = Arc::new(open(&uri));
                }
                let mut lane = Lane::new(worker * 1000 + i);
                deliver(&store, &lane.batch([("web", DAY, "m", 1), ("other", DAY, "m", 1)])).await;
                store.forget(&lane.writer).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let (store, database) = (open(&uri), database(&uri).await?);
    for name in ["web", "other"] {
        assert_eq!(day(&store, name).await["m"], 2000);
        assert_eq!(watermarks(&database, name).await?, 0);
    }
    assert!(documents(&database, "_countem_writers").await?.is_empty(), "no entry either");
    Ok(())
}

#[tokio::test]
async fn writer_in_doubt_keeps_its_watermarks() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let (_server, proxy) = Server::behind_proxy().await?;
    let uri = in_own_database(&proxy.uri());
    let store = open(&uri);
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch([("web", DAY, "m", 1)])).await;
    let held = proxy.hold(|request| request.is("update") && request.contains("late"));
    let batch = lane.batch([("web", DAY, "late", 1)]);
    let (error, cut) = tokio::join!(store.apply(&batch), async {
        held.arrived().await?;
        held.cut_client().await
    });
    cut?;
    assert!(error.is_err());
    deliver(&store, &batch).await;
    let error = store.forget(&lane.writer).await.expect_err("a copy may be late");
    assert_eq!(error.kind(), ErrorKind::NotApplied);
    let reply = held.deliver().await?;
    assert!(reply.contains("\x10n\0\0\0\0\0"), "the late copy met the watermark");
    assert_eq!(day(&store, "web").await["late"], 1);
    Ok(())
}

#[tokio::test]
async fn forgetting_a_writer_leaves_others_alone() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (store, database) = (open(&uri), database(&uri).await?);
    let many: Vec<String> = (0..2000).map(|i| format!("metric {i}")).collect();
    let mut lanes = [Lane::new(1), Lane::new(2)];
    for lane in &mut lanes {
        deliver(&store, &lane.batch(many.iter().map(|metric| ("web", DAY, metric.as_str(), 1)))).await;
    }
    let before = watermarks(&database, "web").await?;
    store.forget(&lanes[0].writer).await?;
    assert_eq!(watermarks(&database, "web").await?, before / 2);
    let second = lanes[1].batch_at(1, many.iter().map(|metric| ("web", DAY, metric.as_str(), 1)));
    store.apply(&second).await?;
    assert!(day(&store, "web").await.values().all(|value| value == Ok(2)));
    Ok(())
}

#[tokio::test]
async fn copied_data_directory_is_noticed() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (original, copy) = (open(&uri), open(&uri));
    let (here, there) =
        (|epoch| Writer::incarnation(0xabc, epoch, 1), |epoch| Writer::incarnation(0xabc, epoch, 2));
    assert_eq!(original.register(&here(7)).await?, Registration::Fresh);
    assert_eq!(original.register(&here(7)).await?, Registration::Fresh, "registering again is harmless");
    assert_eq!(copy.register(&there(7)).await?, Registration::Cloned, "both start with the same epoch");
    assert_eq!(original.register(&here(9)).await?, Registration::Fresh);
    assert_eq!(copy.register(&there(8)).await?, Registration::Cloned, "the other is ahead");
    assert_eq!(copy.register(&there(10)).await?, Registration::Fresh);
    assert_eq!(original.register(&here(9)).await?, Registration::Cloned, "the copy has taken over");
    assert_eq!(copy.register(&Writer::new(0xdef, 1)).await?, Registration::Fresh, "another node");
    Ok(())
}

#[tokio::test]
async fn one_of_many_concurrent_registrations_is_fresh() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    for epoch in 1..=5 {
        let mut registrations = JoinSet::new();
        for start in 0..6 {
            let store = open(&uri);
            let writer = Writer::incarnation(1, epoch, start);
            registrations.spawn(async move { store.register(&writer).await });
        }
        let mut fresh = 0;
        while let Some(registration) = registrations.join_next().await {
            fresh += usize::from(registration?? == Registration::Fresh);
        }
        assert_eq!(fresh, 1, "epoch {epoch}");
    }
    Ok(())
}

#[tokio::test]
async fn watermarks_of_retired_writers_are_pruned() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (store, database) = (open(&uri), database(&uri).await?);
    let buckets = ["all", "2026", "2026-11", "2026-W47", DAY, "2026-11-20T14"];
    let mut lanes = [Lane::new(1), Lane::new(2)];
    for lane in &mut lanes {
        deliver(&store, &lane.batch(buckets.map(|bucket| ("web", bucket, "m", 1)))).await;
        store.register(&lane.writer).await?;
    }
    store.retire(&lanes[0].writer).await?;
    assert_eq!(store.prune(Duration::from_secs(48 * 3600)).await?, 0, "it was retired a moment ago");
    assert_eq!(watermarks(&database, "web").await?, 12);
    assert_eq!(store.prune(Duration::ZERO).await?, 4);
    for document in documents(&database, "web").await? {
        let left = document.get_document("w")?.len();
        let is_long_lived = document.get_str("_id")?.len() < "2026-11-20/1".len();
        assert_eq!(left, if is_long_lived { 1 } else { 2 }, "{document}");
    }
    assert_eq!(store.prune(Duration::ZERO).await?, 0, "there is nothing more to do");
    let remembered = [store.remembers(&lanes[0].writer).await?, store.remembers(&lanes[1].writer).await?];
    assert_eq!(remembered, [false, true], "a batch of the pruned writer would be added again");
    let registered = documents(&database, "_countem_writers").await?;
    let retired = registered.first().context("the node is registered")?.get_document("retired")?;
    assert!(retired.is_empty());
    // The other writer is as safe as before.
    let again = lanes[1].batch_at(1, buckets.map(|bucket| ("web", bucket, "m", 1)));
    store.apply(&again).await?;
    assert_eq!(day(&store, "web").await["m"], 2);
    Ok(())
}

#[tokio::test]
async fn killed_writers_are_retired_by_their_successor() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (store, database) = (open(&uri), database(&uri).await?);
    let killed: Vec<_> = (1..=20).map(|epoch| Writer::incarnation(7, epoch.into(), epoch)).collect();
    for writer in &killed {
        assert_eq!(store.register(writer).await?, Registration::Fresh);
        let mut lane = Lane { writer: writer.clone(), number: 0, seq: 0 };
        deliver(&store, &lane.batch([("web", "all", "m", 1), ("web", "2026", "m", 1)])).await;
    }
    let other = Writer::incarnation(8, 1, 1);
    store.register(&other).await?;
    let (last, earlier) = killed.split_last().context("some were killed")?;
    store.retire_predecessors(&other).await?;
    assert_eq!(store.prune(Duration::ZERO).await?, 0, "no successor has told");
    store.retire_predecessors(last).await?;
    let late = Lane { writer: earlier[0].clone(), number: 0, seq: 0 };
    store.apply(&late.batch_at(1, [("web", "all", "m", 1), ("web", "2026", "m", 1)])).await?;
    assert_eq!(watermarks(&database, "web").await?, 40, "late copies are recognised for two days");
    store.prune(Duration::ZERO).await?;
    assert_eq!(watermarks(&database, "web").await?, 2);
    for document in documents(&database, "web").await? {
        assert_eq!(document.get_document("c")?.get_i64("m")?, 20);
    }
    assert!(!store.remembers(&earlier[18]).await? && store.remembers(last).await?);
    for node in documents(&database, "_countem_writers").await? {
        for list in ["replaced", "retired"] {
            assert!(node.get_document(list).map_or(true, Document::is_empty), "{node}");
        }
    }
    Ok(())
}
