//! Processes that are killed while they compact, and servers that are killed meanwhile.

use std::{process::Stdio, time::Instant};

use countem_testkit::{Child, command};
use rand::Rng;

use super::*;

/// Names the database to a process that compacts, and the first day on which it does.
const URI: &str = "COUNTEM_TEST_COMPACT_URI";
const FROM: &str = "COUNTEM_TEST_COMPACT_FROM";
const DAYS: i64 = 12;

/// The process that is killed: compacts as often as it can.
async fn compact_until_killed(uri: &str, from: i64) {
    let store = open(uri);
    for n in from.. {
        compact(&store, n).await.ok();
    }
}

fn spawn(uri: &str, from: i64) -> Result<Child> {
    let mut compacting = command(std::env::current_exe()?);
    compacting
        .args(["compaction::kill::killed_compactions_keep_the_sums", "--exact"])
        .env(URI, uri)
        .env(FROM, from.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Child::spawn(compacting)
}

fn a_day(n: i64) -> String {
    format!("2026-11-{:02}", n + 1)
}

/// Checks that each metric of each day was counted `count` times.
async fn check(uri: &str, all: &[String], count: i64, when: &str) -> Result<()> {
    let range = BucketRange::new(bucket(&a_day(0)), bucket(&a_day(DAYS - 1))).context("in order")?;
    let query = RowQuery { collection: collection("web"), range, select: Select::All };
    let rows = open(uri).read(&query, None).await?;
    assert_eq!(rows.len(), usize::try_from(DAYS)?, "{when}");
    for (bucket, counters) in rows {
        assert_eq!(counters.len(), all.len(), "{when}: {bucket}");
        assert!(counters.values().all(|value| value == Ok(count)), "{when}: {bucket}: {count} {counters:?}");
    }
    Ok(())
}

async fn kill(rounds: i64, kills_server: bool) -> Result<()> {
    let mut set = ReplicaSet::start(1).await?;
    let uri = in_own_database(&set.uri());
    let all = metrics(60);
    let mut lanes: Vec<_> = (1..4).map(Lane::new).collect();
    let days: Vec<_> = (0..DAYS).map(a_day).collect();
    let mut count = 0;
    for round in 0..rounds {
        end_transactions_soon(&set).await?;
        for (i, lane) in lanes.iter_mut().enumerate() {
            let counts = days
                .iter()
                .flat_map(|day| all.iter().map(|metric| ("web", day.as_str(), metric.as_str(), 1)));
            let batch = lane.batch(counts);
            deliver(&with(&uri, [4, 16, 8][i], [1, 4, 2][i]), &batch).await;
            count += 1;
            // A copy by a process that knows nothing.
            open(&uri).apply(&batch).await?;
        }
        let mut compacting = spawn(&uri, round * 10_000 + 1)?;
        let at_random = Duration::from_millis(rand::rng().random_range(20..500));
        tokio::time::sleep(at_random).await;
        if kills_server {
            set.kill(0)?;
            set.restart(0).await?;
            set.wait_for_primary().await?;
        }
        compacting.kill()?;
        check(&uri, &all, count, &format!("round {round}, killed after {at_random:?}")).await?;
    }
    let store = open(&uri);
    let until = Instant::now() + Duration::from_secs(60);
    let database = database(&uri).await?;
    for n in rounds * 10_000.. {
        compact(&store, n).await?;
        let children = documents(&database, "web").await?.into_iter().filter(|document| {
            let is_root = document.get_str("_id").is_ok_and(|id| id.ends_with("/1"));
            !is_root && document.get_document("c").is_ok_and(|counters| !counters.is_empty())
        });
        if children.count() == 0 {
            break;
        }
        assert!(Instant::now() < until, "the compaction does not end");
    }
    check(&uri, &all, count, "at the end").await
}

#[tokio::test]
async fn killed_compactions_keep_the_sums() -> Result<()> {
    if let (Ok(uri), Ok(from)) = (std::env::var(URI), std::env::var(FROM)) {
        compact_until_killed(&uri, from.parse()?).await;
        return Ok(());
    }
    if !require_mongod() {
        return Ok(());
    }
    kill(20, false).await
}

#[tokio::test]
async fn servers_killed_at_compactions_keep_the_sums() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    kill(5, true).await
}

#[tokio::test]
async fn compaction_with_a_lost_reply_is_done_once() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let scene = Scene::start().await?;
    end_transactions_soon(&scene.set).await?;
    let mut lanes = [Lane::new(1)];
    spread(&scene, &mut lanes).await?;
    let (store, before) = (scene.store(256, 1), read_all(&scene.store(256, 1)).await?);
    let mut n = 0;
    for name in ["commitTransaction", "update", "find"] {
        for is_request in [true, false] {
            let of_a_transaction =
                move |request: &countem_testkit::Message| request.is(name) && request.contains("txnNumber");
            let fault = match is_request {
                true => scene.proxy.drop_request(2, of_a_transaction),
                false => scene.proxy.drop_reply(2, of_a_transaction),
            };
            while fault.count() < 2 {
                n += 1;
                compact(&store, n).await.ok();
                assert!(n < 200, "{name} is not sent");
                assert_eq!(read_all(&store).await?, before, "{name}");
                // There is something to compact again.
                let batch = lanes[0].batch([("other", DAY, "m", 1)]);
                deliver(&store, &batch).await;
                disperse(&scene).await?;
            }
        }
    }
    compact(&store, n + 1).await?;
    assert_eq!(read_all(&store).await?, before);
    Ok(())
}

/// Moves a counter from each root to a child, as if a late writer had counted there.
async fn disperse(scene: &Scene) -> Result<()> {
    let web = scene.database.collection::<Document>("web");
    for day in [DAY, NEXT_DAY] {
        let children = doc! { "_id": { "$gt": format!("{day}/1"), "$lt": format!("{day}0") }, "split": { "$exists": false } };
        let child = web.find_one(children).await?.context("the day has a child")?;
        let root = doc! { "_id": format!("{day}/1") };
        let field = "c.GET /things/0005";
        web.update_one(doc! { "_id": child.get_str("_id")? }, doc! { "$inc": { field: 1_i64 } }).await?;
        web.update_one(root, doc! { "$inc": { field: -1_i64 } }).await?;
    }
    Ok(())
}
