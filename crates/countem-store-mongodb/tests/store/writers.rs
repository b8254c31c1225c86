//! Bookkeeping of writers: what they leave behind, and how a copied identity is noticed.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use countem_core::Writer;
use countem_store::Registration;
use countem_store::{ErrorKind, Store};
use countem_testkit::{Mongod, Options, Proxy, Server, require_mongod, require_server};
use tokio::task::JoinSet;

use crate::support::{DAY, Lane, database, day, deliver, documents, in_own_database, open, watermarks};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_one_shot_writers_leave_no_watermark() -> Result<()> {
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
                // Most share a client, which is what takes time; some are processes of their own in this too.
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
async fn a_writer_that_was_in_doubt_keeps_its_watermarks_beside_a_late_copy() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mongod = Mongod::start(Options::default()).await?;
    let proxy = Proxy::start(mongod.port())?;
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
async fn retiring_removes_the_watermarks_of_one_writer_only() -> Result<()> {
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
    assert!(day(&store, "web").await.values().all(|value| value == 2));
    Ok(())
}

#[tokio::test]
async fn a_copied_data_directory_is_noticed() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    let (original, copy) = (open(&uri), open(&uri));
    let epoch = |epoch| Writer::new(0xabc, epoch);
    assert_eq!(original.register(&epoch(7)).await?, Registration::Fresh);
    assert_eq!(original.register(&epoch(7)).await?, Registration::Fresh, "asking again is no harm");
    assert_eq!(copy.register(&epoch(7)).await?, Registration::Cloned, "both start with the same epoch");
    assert_eq!(original.register(&epoch(9)).await?, Registration::Fresh);
    assert_eq!(copy.register(&epoch(8)).await?, Registration::Cloned, "the other is ahead");
    assert_eq!(copy.register(&Writer::new(0xdef, 1)).await?, Registration::Fresh, "another node");
    Ok(())
}

#[tokio::test]
async fn of_many_that_claim_a_writer_at_once_one_gets_it() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let server = Server::any().await?;
    let uri = in_own_database(&server.uri());
    for epoch in 1..=5 {
        let mut claims = JoinSet::new();
        for _ in 0..6 {
            let store = open(&uri);
            claims.spawn(async move { store.register(&Writer::new(1, epoch)).await });
        }
        let mut fresh = 0;
        while let Some(claim) = claims.join_next().await {
            fresh += usize::from(claim?? == Registration::Fresh);
        }
        assert_eq!(fresh, 1, "epoch {epoch}");
    }
    Ok(())
}

#[tokio::test]
async fn watermarks_of_released_writers_leave_long_lived_documents_in_time() -> Result<()> {
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
    assert_eq!(store.prune(Duration::from_secs(48 * 3600)).await?, 0, "it was released a moment ago");
    assert_eq!(watermarks(&database, "web").await?, 12);
    assert_eq!(store.prune(Duration::ZERO).await?, 4);
    for document in documents(&database, "web").await? {
        let left = document.get_document("w")?.len();
        let is_long_lived = document.get_str("_id")?.len() < "2026-11-20/1".len();
        assert_eq!(left, if is_long_lived { 1 } else { 2 }, "{document}");
    }
    assert_eq!(store.prune(Duration::ZERO).await?, 0, "there is nothing more to do");
    let registered = documents(&database, "_countem_writers").await?;
    let released = registered.first().context("the node is registered")?.get_document("retired")?;
    assert!(released.is_empty());
    // The other writer is as safe as before.
    let again = lanes[1].batch_at(1, buckets.map(|bucket| ("web", bucket, "m", 1)));
    store.apply(&again).await?;
    assert_eq!(day(&store, "web").await["m"], 2);
    Ok(())
}
