//! One collection in trouble does not hold up those of the other lane.

use std::time::Duration;

use anyhow::Result;
use countem::{Collector, MongodbSettings, Settings};
use countem_testkit::{Mongod, Options, require_mongod};
use mongodb::bson::doc;

use super::database::{Database, eager, eventually, lanes};
use crate::support::counters;

/// More requests than a client has connections.
const STUCK: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collections_of_another_lane_are_stored_while_one_is_blocked() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mongod = Mongod::start(Options::default()).await?;
    let database = Database::at(mongod.uri()).await?;
    let deadline = Duration::from_millis(300);
    let mongodb = MongodbSettings { deadline, ..MongodbSettings::default() };
    let settings = Settings { retry_longest: Duration::from_millis(50), ..eager() };
    let collector = database.builder().settings(settings).mongodb(mongodb).require_store().start().await?;
    let [blocked, clear] = [lane_of(&collector, "blocked").await, lane_of(&collector, "clear").await];
    assert_ne!(blocked, clear, "the names were chosen for that");

    // The server keeps every update for much longer than this side waits, and then may or may not carry it out.
    let block = doc! {
        "failCommands": ["update"],
        "namespace": "countem.blocked",
        "blockConnection": true,
        "blockTimeMS": 2_000,
    };
    mongod.fail_command(doc! { "mode": "alwaysOn", "data": block }).await?;
    let mut rounds = 1;
    while lanes(&collector)[blocked].failures < STUCK {
        collector.increment("blocked", "m", 1);
        collector.increment("clear", "m", 1);
        rounds += 1;
        eventually("the other lane's count in the database", async || {
            Ok(database.counters("clear").await?["m"] == rounds)
        })
        .await?;
    }
    let stats = collector.stats();
    println!("{rounds} rounds: {stats:?}");
    assert!(stats.is_balanced(), "{stats:?}");
    let said = stats.lanes[blocked].last_error.as_deref().unwrap_or_default();
    assert!(said.contains("cannot update `blocked`") && said.contains("no answer within 300ms"), "{said}");
    assert!(stats.lanes[blocked].doubts > 0);
    assert_eq!((stats.lanes[clear].failures, &stats.lanes[clear].last_error), (0, &None));

    mongod.fail_command_off().await?;
    let report = collector.shutdown().await;
    assert!(report.is_complete() && report.is_balanced(), "{report:?}");
    for name in ["blocked", "clear"] {
        assert_eq!(database.counters(name).await?, counters(&[("m", rounds)]), "{name}");
    }
    Ok(())
}

/// Counts in `collection` once, and returns the lane that stored it.
async fn lane_of(collector: &Collector, collection: &str) -> usize {
    let batches = || -> Vec<u64> { lanes(collector).iter().map(|lane| lane.batches).collect() };
    let before = batches();
    collector.increment(collection, "m", 1);
    collector.flush().await;
    let after = batches();
    (0..before.len()).find(|lane| after[*lane] > before[*lane]).expect("one lane has stored it")
}
