//! A journal that keeps batches for longer than MongoDB remembers them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use countem::Collector;
use countem_core::Period;
use countem_store::{Counters, RowQuery, Store};
use countem_store_mongodb::{MongoConfig, MongoStore};
use countem_testkit::{Server, require_server};

use crate::{
    harness::Sandbox,
    recorded::{JOURNAL, number},
};

const HOUR: u64 = 3600;

/// Counts `a` once for every one of `batches` into days and months, and ends.
async fn count(sandbox: &Sandbox, uri: &str, batches: usize) -> RowQuery {
    let builder = Collector::builder().store(uri).journal(sandbox.path(JOURNAL));
    let collector = builder.periods([Period::Day, Period::Month]).start().await.unwrap();
    for _ in 0..batches {
        collector.try_increment("c", "a", 1).unwrap();
        collector.flush().await.unwrap();
    }
    let month = RowQuery::bucket("c".parse().unwrap(), collector.current(Period::Month).unwrap());
    assert!(collector.shutdown().await.is_balanced());
    month
}

/// Moves the time at which the first batches were stored `hours` into the past.
fn age(sandbox: &Sandbox, batches: usize, hours: u64) {
    let at = SystemTime::now() - Duration::from_secs(hours * HOUR);
    let at = i64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let database = rusqlite::Connection::open(sandbox.path(JOURNAL).join("journal.db")).unwrap();
    let update =
        "UPDATE resolved SET at = ?1 WHERE batch IN (SELECT batch FROM resolved ORDER BY batch LIMIT ?2)";
    assert_eq!(database.execute(update, (at, i64::try_from(batches).unwrap())).unwrap(), batches);
}

#[tokio::test(flavor = "multi_thread")]
async fn possibly_forgotten_batch_is_left_out_and_reported() {
    if !require_server() {
        return;
    }
    let (server, sandbox) = (Server::any().await.unwrap(), Sandbox::new());
    let given = server.uri();
    let (base, options) = given.split_once("/?").unwrap_or((&given, ""));
    let uri = format!("{base}/cli_{}?{options}", std::process::id());
    let store = MongoStore::connect(MongoConfig::new(&uri)).unwrap();
    let replay = |code| {
        let ran = sandbox.run(&["replay", "--store", &uri, "-o", "json"]).expect(code);
        (["sent", "already_there", "too_old"].map(|key| number(&ran.json(), key)), ran.err)
    };
    let audit =
        |code| sandbox.run(&["doctor", "--audit", "--store", &uri, "--journal", JOURNAL]).expect(code).out;
    let in_month = async |month: &RowQuery| -> Counters {
        store.read(month, None).await.unwrap().into_values().next().unwrap()
    };

    // A process was stopped for weeks, and its watermarks have left the month.
    let month = count(&sandbox, &uri, 2).await;
    age(&sandbox, 2, 46);
    assert_eq!(replay(0), ([0, 2, 0], String::new()));
    assert_eq!(store.prune(Duration::ZERO).await.unwrap(), 1);
    age(&sandbox, 2, 500);
    let (report, words) = replay(6);
    assert_eq!(report, [0, 0, 2]);
    assert!(words.contains("2 batches were stored more than 47 hours ago"), "{words}");
    assert_eq!(in_month(&month).await["a"], 2, "nothing is counted twice");
    let findings = audit(0);
    assert!(findings.contains("2 stored batches were not compared"), "{findings}");

    // The next process drops the old batches. Newer ones of its own prove that the older one of their lane is stored.
    count(&sandbox, &uri, 3).await;
    age(&sandbox, 1, 500);
    assert_eq!(replay(0).0, [0, 2, 1]);
    assert_eq!(in_month(&month).await["a"], 5);
}
