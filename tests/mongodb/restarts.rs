//! Processes that count a little and end are exact, and leave nothing of themselves behind.

use std::{
    env,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::Result;
use countem::store::Counters;
use countem_testkit::{ReplicaSet, require_mongod};

use super::{
    database::{DAY, Database},
    program::CommandLine,
};

/// Number of processes that run at once.
const PARALLEL: usize = 8;
const METRICS: usize = 7;
const RESTARTS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_processes_count_exactly_and_leave_no_watermark() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let processes = if env::var("CI").as_deref() == Ok("true") { 2000 } else { 400 };
    let set = ReplicaSet::start(3).await?;
    let database = Database::at(set.uri()).await?;
    let line = CommandLine::new(database.uri());
    // Builds the program, and finds an empty database.
    line.run(&["collections"]).expect(0);
    let begun = Instant::now();
    tokio::task::block_in_place(|| {
        let next = AtomicUsize::new(0);
        let run = || {
            let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
            for number in numbers.take_while(|number| *number < processes) {
                let metric = format!("job.{}", number % METRICS);
                let ran = line.run(&["inc", "jobs", &metric, "--date", DAY]).expect(0);
                assert_eq!((&*ran.out, &*ran.err), ("", ""));
            }
        };
        thread::scope(|scope| (0..PARALLEL).for_each(|_| drop(scope.spawn(run))));
    });
    let took = begun.elapsed();
    println!("{processes} processes in {took:.1?}, {:.1?} each", took / u32::try_from(processes)?);

    let mut expected = Counters::new();
    for n in 0..processes {
        expected.add(&format!("job.{}", n % METRICS), 1);
    }
    assert_eq!(database.counters("jobs").await?, expected);
    assert_clean(&database, &["jobs"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_service_counts_exactly_and_leaves_no_watermark() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(3).await?;
    let database = Database::at(set.uri()).await?;
    let begun = Instant::now();
    for run in 0..RESTARTS {
        let collector = database.builder().start().await?;
        for metric in (0..METRICS).map(|n| format!("calls.{n}")) {
            collector.increment("one", &metric, 1);
            collector.increment("other", &metric, 2);
        }
        // Every other run stores more than once before its end.
        if run % 2 == 0 {
            collector.flush().await.unwrap();
            collector.increment("one", "flushed", 1);
        }
        let report = collector.shutdown().await;
        assert!(report.is_complete() && report.is_balanced(), "run {run}: {report:?}");
    }
    println!("{RESTARTS} restarts in {:.1?}", begun.elapsed());
    let runs = i64::try_from(RESTARTS)?;
    let calls = |n: i64| (0..METRICS).map(move |metric| (format!("calls.{metric}"), n * runs));
    let mut one: Counters = calls(1).collect();
    one.insert("flushed".to_owned(), runs / 2);
    assert_eq!(database.counters("one").await?, one);
    assert_eq!(database.counters("other").await?, calls(2).collect::<Counters>());
    assert_clean(&database, &["one", "other"]).await
}

/// Checks that nothing but the counters and the schedule is in the database.
async fn assert_clean(database: &Database, collections: &[&str]) -> Result<()> {
    assert_eq!(database.collections().await?, [&["_countem_schedules"], collections].concat());
    for collection in collections {
        assert_eq!(database.writers(collection).await?, [""; 0], "{collection}");
        for document in database.documents(collection).await? {
            let fields: Vec<_> = document.keys().map(String::as_str).collect();
            assert_eq!(fields, ["_id", "c", "w"], "{document}");
        }
    }
    Ok(())
}
