//! Requests and replies that are lost, late or answered with an error: every batch is counted once.
//!
//! Shows G1.

use std::time::Duration;

use anyhow::Result;
use countem_store::{ErrorKind, Store};
use countem_store_mongodb::{MongoConfig, MongoStore};
use countem_testkit::{Message, Mongod, Options, Proxy, ReplicaSet, Server, in_own_database, require_mongod};
use mongodb::bson::{Document, doc};

use crate::support::{DAY, Lane, bucket, day, deliver, open, open_with};

/// A server behind a proxy, and a store that knows only the proxy.
struct Scene {
    proxy: Proxy,
    store: MongoStore,
    uri: String,
}

impl Scene {
    fn new(proxy: Proxy) -> Self {
        let uri = in_own_database(&proxy.uri());
        Self { proxy, store: open(&uri), uri }
    }

    async fn deliver(&self, lane: &mut Lane, metric: &str) -> Vec<String> {
        deliver(&self.store, &lane.batch([("web", DAY, metric, 1)])).await
    }

    async fn count(&self, metric: &str) -> i64 {
        day(&self.store, "web").await.get(metric).expect("the counter is readable").unwrap_or_default()
    }
}

/// Matches an update that counts `metric`, and none that creates its document.
fn counts(metric: &'static str) -> impl Fn(&Message) -> bool + Send + Sync + 'static {
    move |request| request.is("update") && request.contains("$inc") && request.contains(metric)
}

/// Runs a scene on a standalone and on the primary of a replica set.
async fn on_both(scene: impl AsyncFn(Scene) -> Result<()>) -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let (standalone, proxy) = Server::behind_proxy().await?;
    scene(Scene::new(proxy)).await?;
    drop(standalone);
    let set = ReplicaSet::start(3).await?;
    let primary = set.wait_for_primary().await?;
    scene(Scene::new(Proxy::start(set.member(primary).port())?)).await
}

#[tokio::test]
async fn batch_with_a_lost_reply_is_counted_once() -> Result<()> {
    on_both(async |scene| {
        let mut lane = Lane::new(1);
        // On a missing document first, then on one that exists.
        for (metric, times) in [("first", 1), ("second", 1), ("third", 2)] {
            let lost = scene.proxy.drop_reply(times, counts(metric));
            let errors = scene.deliver(&mut lane, metric).await;
            lost.happened(times).await?;
            assert_eq!(errors.len(), times as usize, "{errors:?}");
            assert!(errors.iter().all(|error| error.starts_with("in_doubt")), "{errors:?}");
            assert_eq!(scene.count(metric).await, 1, "{metric}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn batch_with_a_lost_request_is_counted_once() -> Result<()> {
    on_both(async |scene| {
        let mut lane = Lane::new(1);
        for (metric, times) in [("first", 1), ("second", 1), ("third", 2)] {
            let lost = scene.proxy.drop_request(times, counts(metric));
            let errors = scene.deliver(&mut lane, metric).await;
            lost.happened(times).await?;
            assert_eq!(errors.len(), times as usize, "{errors:?}");
            assert_eq!(scene.count(metric).await, 1, "{metric}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_step_survives_a_lost_reply() -> Result<()> {
    on_both(async |scene| {
        let mut lane = Lane::new(1);
        // `$setOnInsert` marks a creation, `size` a probe, `$inc` the update.
        for (step, marker) in [("update", "$setOnInsert"), ("find", "size"), ("update", "$inc")] {
            let lost = scene.proxy.drop_reply(1, move |request| request.is(step) && request.contains(marker));
            let bucket = format!("2026-12-{:02}", lane.seq + 1);
            let batch = lane.batch([("web", bucket.as_str(), "m", 1)]);
            let errors = deliver(&scene.store, &batch).await;
            lost.happened(1).await?;
            assert_eq!(errors.len(), 1, "{step} {marker}: {errors:?}");
        }
        let rows = read_december(&scene.store).await?;
        assert_eq!(rows, [1, 1, 1]);
        Ok(())
    })
    .await
}

async fn read_december(store: &MongoStore) -> Result<Vec<i64>> {
    use countem_core::BucketRange;
    use countem_store::{RowQuery, Select};
    let range = BucketRange::new(bucket("2026-12-01"), bucket("2026-12-31")).expect("the days are in order");
    let query = RowQuery { collection: crate::support::collection("web"), range, select: Select::All };
    Ok(store.read(&query, None).await?.into_values().map(|day| day["m"]).collect())
}

#[tokio::test]
async fn late_request_after_newer_batches_has_no_effect() -> Result<()> {
    on_both(async |scene| {
        let mut lane = Lane::new(1);
        scene.deliver(&mut lane, "m").await;
        let held = scene.proxy.hold(counts("late"));
        let late = lane.batch([("web", DAY, "late", 1), ("web", DAY, "m", 1)]);
        let (error, cut) = tokio::join!(scene.store.apply(&late), async {
            held.arrived().await?;
            held.cut_client().await
        });
        cut?;
        assert_eq!(error.expect_err("the connection was cut").kind(), ErrorKind::InDoubt);
        deliver(&scene.store, &late).await;
        scene.deliver(&mut lane, "m").await;
        scene.deliver(&mut lane, "m").await;
        let reply = held.deliver().await?;
        assert!(reply.contains("\x10n\0\0\0\0\0"), "no document met the condition of the late request");
        assert_eq!((scene.count("m").await, scene.count("late").await), (4, 1));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn late_request_to_split_document_has_no_effect() -> Result<()> {
    on_both(async |scene| {
        let store = {
            let mut config = MongoConfig::new(&scene.uri);
            config.metrics_per_document = std::num::NonZeroUsize::new(4).expect("4 is not zero");
            open_with(config)
        };
        let mut lane = Lane::new(1);
        deliver(&store, &lane.batch([("web", DAY, "m", 1)])).await;
        let held = scene.proxy.hold(counts("late"));
        let late = lane.batch([("web", DAY, "late", 1)]);
        let (error, cut) = tokio::join!(store.apply(&late), async {
            held.arrived().await?;
            held.cut_client().await
        });
        cut?;
        assert!(error.is_err());
        // Another writer fills the document, so that the same batch finds it split.
        let mut other = Lane::new(2);
        for i in 0..40 {
            deliver(&store, &other.batch([("web", DAY, format!("filling {i:040}").as_str(), 1)])).await;
        }
        let root = format!("{DAY}/1");
        let database = crate::support::database(&scene.uri).await?;
        let root = database.collection::<Document>("web").find_one(doc! { "_id": &root }).await?;
        assert!(root.expect("the root is there").contains_key("split"), "it is split by now");
        // It is sent again by a process that remembers nothing.
        deliver(&open(&scene.uri), &late).await;
        held.deliver().await?;
        assert_eq!((scene.count("m").await, scene.count("late").await), (1, 1));
        assert_eq!(day(&store, "web").await.len(), 42);
        Ok(())
    })
    .await
}

/// Lets the next `times` updates of the collection `web` fail as `data` says, and counts all the same.
async fn survives(mongod: &Mongod, uri: &str, times: i32, data: Document, expected: &str) -> Result<()> {
    let uri = in_own_database(uri);
    let mut config = MongoConfig::new(&uri);
    config.deadline = Duration::from_millis(1500);
    let store = open_with(config);
    let mut lane = Lane::new(1);
    deliver(&store, &lane.batch([("web", DAY, "m", 1)])).await;

    let name = uri.rsplit('/').next().and_then(|rest| rest.split('?').next()).unwrap_or_default();
    let mut fault = doc! { "failCommands": ["update"], "namespace": format!("{name}.web") };
    fault.extend(data);
    mongod.fail_command(doc! { "mode": { "times": times }, "data": fault.clone() }).await?;
    let web = lane.batch([("web", DAY, "m", 1)]);
    let mut other = Lane { number: 1, ..Lane::new(1) };
    let lanes = async {
        // The other lane is not held up by the faults of the first.
        let mut errors = Vec::new();
        for _ in 0..5 {
            errors.extend(deliver(&store, &other.batch([("other", DAY, "m", 1)])).await);
        }
        errors
    };
    let (errors, others) = tokio::join!(deliver(&store, &web), lanes);
    mongod.fail_command_off().await?;
    assert!(errors.iter().any(|error| error.contains(expected)), "{fault}: {errors:?}");
    assert_eq!(others, [] as [String; 0], "{fault}");
    deliver(&store, &lane.batch([("web", DAY, "m", 1)])).await;
    assert_eq!(day(&store, "web").await["m"], 3, "{fault}");
    assert_eq!(day(&store, "other").await["m"], 5, "{fault}");
    Ok(())
}

#[tokio::test]
async fn any_answer_of_a_replica_set_counts_once() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(3).await?;
    let primary = set.wait_for_primary().await?;
    let mongod = set.member(primary);
    let unconfirmed =
        doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
    for (times, data, expected) in [
        (1, doc! { "closeConnection": true }, "in_doubt: cannot update `web`"),
        (3, doc! { "closeConnection": true }, "in_doubt"),
        (1, doc! { "writeConcernError": unconfirmed.clone() }, "majority of the replica set did not confirm"),
        (2, doc! { "writeConcernError": unconfirmed }, "majority of the replica set did not confirm"),
        (1, doc! { "errorCode": 10107 }, "in_doubt"),
        (1, doc! { "errorCode": 11602 }, "in_doubt"),
        (1, doc! { "errorCode": 13 }, "refused: cannot update `web`"),
        (1, doc! { "blockConnection": true, "blockTimeMS": 4000 }, "no answer within 1.5s"),
    ] {
        survives(mongod, &set.uri(), times, data, expected).await?;
    }
    Ok(())
}

#[tokio::test]
async fn any_answer_of_a_standalone_counts_once() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let standalone = Mongod::start(Options::default()).await?;
    for (times, data, expected) in [
        (1, doc! { "closeConnection": true }, "in_doubt"),
        (1, doc! { "blockConnection": true, "blockTimeMS": 4000 }, "no answer within 1.5s"),
        (1, doc! { "errorCode": 50 }, "in_doubt"),
    ] {
        survives(&standalone, &standalone.uri(), times, data, expected).await?;
    }
    Ok(())
}
