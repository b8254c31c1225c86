//! Names that mean something to MongoDB are counters like any other.
//!
//! Shows G18.

use anyhow::Result;
use countem::{Bucket, Collector, store::Counters};
use countem_testkit::require_server;

use super::database::{DAY, Database};

fn unusual_names() -> Vec<String> {
    let short =
        ["a", "a.b", "a..b", ".", "a.", "$inc", "$", "_id", "%2E", "%252E", "%", "c", "w", "🦀", "0", " "];
    let long = ["x".repeat(512), "🦀".repeat(128), ".".repeat(512), "%$".repeat(256)];
    short.iter().map(|name| (*name).to_owned()).chain(long).collect()
}

/// Counts every name by another amount, through every door.
fn count_all(collector: &Collector, names: &[String]) -> Counters {
    for (n, name) in (1..).zip(names) {
        collector.try_increment("names", name, n).unwrap();
        collector.counter("names", name).unwrap().try_increment(1000 * n).unwrap();
    }
    names.iter().cloned().zip((1..).map(|n| 1001 * n)).collect()
}

#[tokio::test]
async fn unusual_names_survive_new_and_existing_documents() -> Result<()> {
    if !require_server() {
        return Ok(());
    }
    let (_server, database) = Database::shared().await?;
    let names = unusual_names();
    let day: Bucket = DAY.parse()?;

    let collector = database.builder().require_store().start().await?;
    let once = count_all(&collector, &names);
    assert_eq!(once.len(), names.len(), "the test's own names differ");
    assert_eq!(
        collector.get_counters("names", None).await?,
        once,
        "from memory and a document that is missing"
    );
    let report = collector.shutdown().await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(database.counters("names").await?, once, "in new documents");

    // Every name now meets a document that knows all of them.
    let collector = database.builder().require_store().start().await?;
    assert_eq!(collector.get_counters("names", None).await?, once, "from the database");
    count_all(&collector, &names);
    let twice: Counters = once.readable().map(|(name, n)| (name, 2 * n)).collect();
    assert_eq!(collector.get_counters("names", None).await?, twice, "from both");
    collector.flush().await.unwrap();
    for (name, n) in twice.readable() {
        assert_eq!(collector.get("names", name, day).await?, Some(n), "{name:?} alone");
    }
    let report = collector.shutdown().await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(database.counters("names").await?, twice, "in documents that were there");
    Ok(())
}
