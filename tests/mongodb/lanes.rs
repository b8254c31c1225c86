//! One collection in trouble does not hold up those of the other lane.

use std::time::Duration;

use anyhow::Result;
use countem::{Builder, Collector, engine::EngineConfig, store::MongodbConfig};
use countem_testkit::{Mongod, Options, Proxy, require_mongod};
use mongodb::bson::doc;

use super::database::{Database, STEP_TIMEOUT, begin, eager, eventually, lanes};
use crate::support::counters;

/// More requests than a client has connections.
const STUCK: u64 = 20;

/// A collector, and the lanes of two of its collections.
struct Scene {
    collector: Collector,
    database: Database,
    /// The lane of the collection `blocked`.
    blocked: usize,
    /// That of `clear`.
    clear: usize,
    rounds: i64,
}

impl Scene {
    async fn new(builder: Builder, deadline: Duration, database: Database) -> Result<Self> {
        let mongodb = MongodbConfig { deadline, ..MongodbConfig::default() };
        let config = EngineConfig { retry_longest: Duration::from_millis(50), ..eager() };
        let collector = builder.engine_config(config).mongodb(mongodb).require_store().start().await?;
        let [blocked, clear] = [lane_of(&collector, "blocked").await, lane_of(&collector, "clear").await];
        assert_ne!(blocked, clear, "the names were chosen for that");
        Ok(Self { collector, database, blocked, clear, rounds: 1 })
    }

    /// Counts in both collections, and waits until the one that is not blocked is stored.
    async fn count_and_wait(&mut self) -> Result<()> {
        self.collector.increment("blocked", "m", 1);
        self.collector.increment("clear", "m", 1);
        self.rounds += 1;
        let stored = async || Ok(self.database.counters("clear").await?["m"] == self.rounds);
        eventually("the other lane's count in the database", stored).await
    }

    fn assert_clear_lane_is_well(&self) {
        let stats = self.collector.stats();
        println!("{} rounds: {stats:?}", self.rounds);
        assert!(stats.is_balanced(), "{stats:?}");
        assert_eq!((stats.lanes[self.clear].failures, &stats.lanes[self.clear].last_error), (0, &None));
    }

    /// Checks that everything is stored once, now that nothing is blocked any more.
    async fn finish(self) -> Result<()> {
        let report = self.collector.shutdown().await;
        assert!(report.is_complete() && report.is_balanced(), "{report:?}");
        for name in ["blocked", "clear"] {
            assert_eq!(self.database.counters(name).await?, counters(&[("m", self.rounds)]), "{name}");
        }
        Ok(())
    }
}

/// Counts in `collection` once, and returns the lane that stored it.
async fn lane_of(collector: &Collector, collection: &str) -> usize {
    let batches = || -> Vec<u64> { lanes(collector).iter().map(|lane| lane.batches).collect() };
    let before = batches();
    collector.increment(collection, "m", 1);
    collector.flush().await.unwrap();
    let after = batches();
    (0..before.len()).find(|lane| after[*lane] > before[*lane]).expect("one lane has stored it")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_lane_stores_while_a_batch_is_held() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mongod = Mongod::start(Options::default()).await?;
    let proxy = Proxy::start(mongod.port())?;
    let database = Database::at(mongod.uri()).await?;
    // A deadline that no test reaches: only the other lane's own requests can bring its counts to the database.
    let mut scene = Scene::new(begin(&proxy.uri()), 2 * STEP_TIMEOUT, database).await?;
    let held = proxy.hold(|request| request.is("update") && request.contains("blocked"));
    for _ in 0..10 {
        scene.count_and_wait().await?;
    }
    held.arrived().await?;
    scene.assert_clear_lane_is_well();
    let blocked = &lanes(&scene.collector)[scene.blocked];
    assert_eq!((blocked.batches, blocked.failures), (1, 0), "it waits for an answer");
    held.deliver().await?;
    scene.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_lane_stores_while_one_gets_no_answer() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mongod = Mongod::start(Options::default()).await?;
    let database = Database::at(mongod.uri()).await?;
    let mut scene = Scene::new(begin(&mongod.uri()), Duration::from_millis(300), database).await?;
    // The server keeps every update for much longer than this side waits, and then may or may not carry it out.
    let block = doc! {
        "failCommands": ["update"],
        "namespace": "countem.blocked",
        "blockConnection": true,
        "blockTimeMS": 2_000,
    };
    mongod.fail_command(doc! { "mode": "alwaysOn", "data": block }).await?;
    while lanes(&scene.collector)[scene.blocked].failures < STUCK {
        scene.count_and_wait().await?;
    }
    scene.assert_clear_lane_is_well();
    let blocked = &lanes(&scene.collector)[scene.blocked];
    let said = blocked.last_error.as_deref().unwrap_or_default();
    assert!(said.contains("cannot update `blocked`") && said.contains("no answer within 300ms"), "{said}");
    assert!(blocked.doubts > 0);
    mongod.fail_command_off().await?;
    scene.finish().await
}
