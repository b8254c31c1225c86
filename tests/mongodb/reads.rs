//! Reads are exact while counts move from memory to a replica set whose primary changes.
//!
//! Shows G6.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use countem::{Bucket, Collector, Error, store::Counters};
use countem_testkit::{ReplicaSet, require_mongod};

use super::database::{Database, begin, eventually, lanes, with_option};

/// Number of changes of the primary: every third time it is killed, else it steps down.
const CHANGES: usize = 4;
/// Minimum number of reads of each reader between two changes.
const READS: u64 = 10;
const METRICS: [&str; 4] = ["a", "a.b", "c", "d"];

/// Progress of a counting task.
#[derive(Default)]
struct Tally {
    /// Raised before an increment.
    begun: AtomicI64,
    /// Raised after it, or after it was acknowledged as stored.
    done: AtomicI64,
}

impl Tally {
    fn begin(&self, n: i64) {
        self.begun.fetch_add(n, Ordering::SeqCst);
    }

    fn end(&self, n: i64) {
        self.done.fetch_add(n, Ordering::SeqCst);
    }
}

/// Two counting nodes and the readers.
struct Scene {
    /// Counts in `own`, and in `shared` with the other one.
    one: Collector,
    /// Counts in `shared`.
    other: Collector,
    /// Counts nothing.
    third: Collector,
    own: Tally,
    shared_by_one: Tally,
    /// Done is what is known to be stored.
    shared_by_other: Tally,
    stop: AtomicBool,
    readers: [Reader; 5],
}

/// Number of reads of a task, answered and failed.
#[derive(Default)]
struct Reader {
    reads: AtomicU64,
    failures: AtomicU64,
}

/// Order of the values that a reader sees. A batch of another node that is not acknowledged yet may vanish with a killed
/// primary, until that node sends it again: such a value may fall.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Rising,
    Any,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_bounded_by_counts_while_primaries_change() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut set = ReplicaSet::start(3).await?;
    let database = Database::at(set.uri()).await?;
    let uri = with_option(database.uri(), "serverSelectionTimeoutMS=1000");
    let start = || begin(&uri).require_store().start();
    let scene = Scene {
        one: start().await?,
        other: start().await?,
        third: start().await?,
        own: Tally::default(),
        shared_by_one: Tally::default(),
        shared_by_other: Tally::default(),
        stop: AtomicBool::new(false),
        readers: Default::default(),
    };
    tokio::try_join!(
        scene.change_primaries(&mut set),
        scene.count_by_one(),
        scene.count_by_other(),
        scene.read_own(),
        scene.read_one_metric(),
        scene.read_shared(),
        scene.read_all(),
        scene.read_as_third(),
    )?;
    for (number, reader) in scene.readers.iter().enumerate() {
        println!("reader {number}: {:?} reads, {:?} failed", reader.reads, reader.failures);
    }
    for collector in [&scene.one, &scene.other] {
        let report = collector.shutdown().await;
        println!("{report}; {:?}", lanes(collector));
        assert!(report.is_complete() && report.is_balanced(), "{report:?}");
    }
    let sum = |counters: Counters| counters.values().map(Result::unwrap).sum::<i64>();
    let shared =
        scene.shared_by_one.begun.load(Ordering::SeqCst) + scene.shared_by_other.begun.load(Ordering::SeqCst);
    assert_eq!(sum(database.counters("own").await?), scene.own.begun.load(Ordering::SeqCst));
    assert_eq!(sum(database.counters("shared").await?), shared);
    assert_eq!(sum(scene.third.get_counters("shared", None).await?), shared);
    Ok(())
}

impl Scene {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    async fn change_primaries(&self, set: &mut ReplicaSet) -> Result<()> {
        for change in 0..CHANGES {
            self.wait_for_reads().await?;
            let primary = set.wait_for_primary().await?;
            if change % 3 == 2 {
                set.kill(primary)?;
                set.wait_for_primary().await?;
                self.wait_for_reads().await?;
                set.restart(primary).await?;
                set.wait_for_secondaries().await?;
            } else {
                set.step_down(2).await?;
                set.wait_for_primary().await?;
            }
        }
        self.wait_for_reads().await?;
        self.stop.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Waits until all readers have read, and both nodes have stored, some more times.
    async fn wait_for_reads(&self) -> Result<()> {
        let reads = || -> Vec<u64> {
            let reads = self.readers.iter().map(|reader| reader.reads.load(Ordering::SeqCst));
            let batches =
                [&self.one, &self.other].map(|node| lanes(node).iter().map(|lane| lane.batches).sum());
            reads.chain(batches).collect()
        };
        let goal: Vec<_> = reads().iter().map(|reads| reads + READS).collect();
        let reached = || reads().iter().zip(&goal).all(|(reads, goal)| reads >= goal);
        eventually("a number of reads and batches", async || Ok(reached())).await
    }

    async fn count_by_one(&self) -> Result<()> {
        let mut beat = tokio::time::interval(Duration::from_millis(1));
        while self.goes_on() {
            beat.tick().await;
            for metric in METRICS.iter().cycle().take(40) {
                self.own.begin(1);
                self.one.try_increment("own", metric, 1)?;
                self.own.end(1);
                self.shared_by_one.begin(2);
                self.one.try_increment("shared", metric, 2)?;
                self.shared_by_one.end(2);
            }
        }
        Ok(())
    }

    async fn count_by_other(&self) -> Result<()> {
        while self.goes_on() {
            self.shared_by_other.begin(4 * 3);
            for metric in METRICS {
                self.other.try_increment("shared", metric, 3)?;
            }
            self.other.flush().await.unwrap();
            self.shared_by_other.end(4 * 3);
        }
        Ok(())
    }

    async fn read_own(&self) -> Result<()> {
        let ask = async || Ok(self.one.get_counters("own", None).await?.values().map(Result::unwrap).sum());
        self.read(0, Order::Rising, &[&self.own], &[&self.own], ask).await
    }

    async fn read_one_metric(&self) -> Result<()> {
        // Not stored, so it is the sum of days. One quarter of all increments is of this metric.
        let ask = async || Ok(4 * self.one.get("own", "a.b", Bucket::ALL).await?.unwrap_or(0));
        let reader = &self.readers[1];
        let mut last = 0;
        while self.goes_on() {
            let least = self.own.done.load(Ordering::SeqCst);
            let Some(value) = reader.note(ask().await)? else { continue };
            let most = self.own.begun.load(Ordering::SeqCst);
            // The four metrics are counted in turn.
            ensure!((least - 4..=most + 4).contains(&value), "4 x a.b is {value}, not {least} to {most}");
            ensure!(value >= last, "4 x a.b is {value} after {last}");
            last = value;
        }
        Ok(())
    }

    async fn read_shared(&self) -> Result<()> {
        let ask =
            async || Ok(self.one.get_counters("shared", None).await?.values().map(Result::unwrap).sum());
        let both = [&self.shared_by_one, &self.shared_by_other];
        self.read(2, Order::Any, &both, &both, ask).await
    }

    async fn read_all(&self) -> Result<()> {
        let ask = async || {
            let all = self.one.get_all_counters(None).await?;
            Ok(all.values().flat_map(|counters| counters.values()).map(Result::unwrap).sum())
        };
        let all = [&self.own, &self.shared_by_one, &self.shared_by_other];
        self.read(3, Order::Any, &all, &all, ask).await
    }

    async fn read_as_third(&self) -> Result<()> {
        let ask =
            async || Ok(self.third.get_counters("shared", None).await?.values().map(Result::unwrap).sum());
        let both = [&self.shared_by_one, &self.shared_by_other];
        self.read(4, Order::Any, &[&self.shared_by_other], &both, ask).await
    }

    /// Reads over and over. Each number is at least what those of `least` had done before, and at most what those of `most` have
    /// begun after.
    async fn read(
        &self,
        reader: usize,
        order: Order,
        least: &[&Tally],
        most: &[&Tally],
        ask: impl AsyncFn() -> Result<i64, Error>,
    ) -> Result<()> {
        let reader = &self.readers[reader];
        let mut last = 0;
        while self.goes_on() {
            let least: i64 = least.iter().map(|tally| tally.done.load(Ordering::SeqCst)).sum();
            let Some(value) = reader.note(ask().await)? else { continue };
            let most: i64 = most.iter().map(|tally| tally.begun.load(Ordering::SeqCst)).sum();
            ensure!((least..=most).contains(&value), "read {value}, not between {least} and {most}");
            ensure!(order == Order::Any || value >= last, "read {value} after {last}");
            last = value;
        }
        Ok(())
    }
}

impl Reader {
    /// Counts a read. One that the store could not answer says so in one line.
    fn note(&self, read: Result<i64, Error>) -> Result<Option<i64>> {
        match read {
            Ok(value) => {
                self.reads.fetch_add(1, Ordering::SeqCst);
                Ok(Some(value))
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::SeqCst);
                let line = error.to_string();
                let is_clear = line.starts_with("cannot ") && !line.contains('\n');
                ensure!(matches!(error, Error::Read(_)) && is_clear, "{error:?}: {line}");
                Ok(None)
            }
        }
    }
}
