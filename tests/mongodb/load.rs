//! Totals are exact at full speed.
//!
//! Shows G7.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use countem_testkit::{ReplicaSet, require_mongod};

use super::database::{Database, duration, lanes};

const METRICS: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn stored_totals_equal_counts_at_full_speed() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(3).await?;
    let database = Database::at(set.uri()).await?;
    let collector = database.builder().flush_interval(Duration::from_secs(1)).require_store().start().await?;
    let metrics: Vec<_> = (0..METRICS).map(|n| format!("metric-{n:04}.calls.ok")).collect();
    let begun = Instant::now();
    let end = begun + duration(20, 20)?;
    let rounds = tokio::task::block_in_place(|| {
        thread::scope(|scope| {
            let produce = || {
                let round = |_| metrics.iter().for_each(|metric| collector.increment("soak", metric, 1));
                (0..).take_while(|_| Instant::now() < end).map(round).count()
            };
            let producers = [scope.spawn(produce), scope.spawn(produce)];
            producers.map(|producer| producer.join().expect("counting never fails")).iter().sum::<usize>()
        })
    });
    let took = begun.elapsed();
    let batches: u64 = lanes(&collector).iter().map(|lane| lane.batches).sum();
    let report = collector.shutdown().await;
    let increments = METRICS * rounds;
    #[allow(clippy::cast_precision_loss, reason = "a rate to look at")]
    let rate = increments as f64 / took.as_secs_f64() / 1e6;
    println!("{rate:.1}M increments/s, {batches} batches until then; {report}");
    assert!(report.is_complete() && report.is_balanced(), "{report:?}");
    assert_eq!(report.accepted, increments as u64);
    let stored = database.counters("soak").await?;
    assert_eq!(stored.len(), METRICS);
    let rounds = i64::try_from(rounds)?;
    let wrong: Vec<_> = stored.iter().filter(|(_, value)| *value != Ok(rounds)).collect();
    assert!(wrong.is_empty(), "{rounds} each: {wrong:?}");
    Ok(())
}
