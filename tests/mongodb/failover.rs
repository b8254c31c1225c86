//! Four nodes count into a replica set whose primary changes all the time.
//!
//! Shows G11.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use countem::{
    Collector, Counter,
    store::{Counters, MongodbConfig},
};
use countem_testkit::{ReplicaSet, require_mongod};
use tokio::task::JoinHandle;

use super::database::{Database, begin, duration, eventually, lanes, with_option};

const NODES: usize = 4;
/// Number of times that the primary is killed. Otherwise it steps down.
const KILLS: usize = 2;
/// Collections that all nodes count in, and their metrics: so many that their documents are split meanwhile.
const SHARED: [&str; 3] = ["shared-0", "shared-1", "shared-2"];
const METRICS: usize = 60;
/// Writer shards of the nodes: half of them spread a counter over two documents.
const SHARDS: [NonZeroU16; 2] = [NonZeroU16::MIN, NonZeroU16::new(2).unwrap()];
/// Amounts, one after the other.
const AMOUNTS: [i64; 4] = [1, 2, -1, 5];

/// A collector and what is counted with it.
struct Node {
    collector: Collector,
    counting: JoinHandle<Tally>,
}

/// Increments that one node accepted.
#[derive(Default)]
struct Tally {
    increments: u64,
    sums: BTreeMap<(String, String), i64>,
}

/// Changes of the primary.
#[derive(Debug, Default)]
struct Changes {
    stepped_down: usize,
    killed: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_are_exact_while_the_primary_changes() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let mut set = ReplicaSet::start(3).await?;
    let database = Database::at(set.uri()).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut nodes = Vec::new();
    for number in 0..NODES {
        nodes.push(start(&database, number, &stop).await?);
    }
    let changes = change_primaries(&mut set, &nodes, duration(60, 20)?).await?;
    stop.store(true, Ordering::SeqCst);

    let (mut expected, mut failures) = (BTreeMap::<_, Counters>::new(), 0);
    for (number, Node { collector, counting }) in nodes.into_iter().enumerate() {
        let tally = counting.await?;
        let report = collector.shutdown().await;
        let lanes = lanes(&collector);
        let [batches, failed, doubts] = [
            lanes.iter().map(|lane| lane.batches).sum::<u64>(),
            lanes.iter().map(|lane| lane.failures).sum(),
            lanes.iter().map(|lane| lane.doubts).sum(),
        ];
        println!("node {number}: {report}; {batches} batches, {failed} failures, {doubts} doubts");
        failures += failed;
        assert!(report.is_balanced() && report.is_complete(), "node {number}: {report:?}");
        assert_eq!(report.accepted, tally.increments, "node {number}");
        for ((collection, metric), sum) in tally.sums {
            expected.entry(collection).or_default().add(&metric, sum);
        }
    }
    println!("{changes:?}");
    assert!(failures > 0, "no node noticed anything");
    for (collection, counters) in &expected {
        assert_eq!(&database.counters(collection).await?, counters, "{collection}");
    }
    let reader = database.builder().start().await?;
    let all = reader.get_all_counters(None).await?;
    let all: BTreeMap<_, _> = all.into_iter().map(|(name, counters)| (name.to_string(), counters)).collect();
    assert_eq!(all, expected, "read by another node");
    Ok(())
}

/// Starts a node. Documents are small, so that they are split under way.
async fn start(database: &Database, number: usize, stop: &Arc<AtomicBool>) -> Result<Node> {
    let config = MongodbConfig {
        metrics_per_document: const { NonZeroUsize::new(16).expect("16 is not zero") },
        writer_shards: SHARDS[number % SHARDS.len()],
        deadline: Duration::from_secs(5),
    };
    let uri = with_option(database.uri(), "serverSelectionTimeoutMS=2000");
    let collector = begin(&uri).mongodb(config).require_store().start().await?;
    let counting = tokio::spawn(count(collector.clone(), number, Arc::clone(stop)));
    Ok(Node { collector, counting })
}

/// Counts each counter once in a millisecond until it is stopped: every other one by its handle.
async fn count(collector: Collector, number: usize, stop: Arc<AtomicBool>) -> Tally {
    let own = format!("node-{number}");
    let shared = SHARED.iter().flat_map(|name| (0..METRICS).map(move |n| (*name, format!("metric.{n:02}"))));
    let all = shared.chain((0..20).map(|n| (&*own, format!("own.{n:02}"))));
    let mut counters: Vec<_> = all.map(|counter| Counted::new(&collector, counter)).collect();
    let mut increments = 0;
    let mut beat = tokio::time::interval(Duration::from_millis(1));
    while !stop.load(Ordering::SeqCst) {
        beat.tick().await;
        for (counter, n) in counters.iter_mut().zip(AMOUNTS.iter().cycle()) {
            counter.increment(&collector, *n, increments);
            increments += 1;
        }
    }
    let sums = counters.into_iter().map(|counter| ((counter.collection, counter.metric), counter.sum));
    Tally { increments, sums: sums.collect() }
}

/// A counter and the sum of what was accepted for it.
struct Counted {
    collection: String,
    metric: String,
    handle: Counter,
    sum: i64,
}

impl Counted {
    fn new(collector: &Collector, (collection, metric): (&str, String)) -> Self {
        let handle = collector.counter(collection, &metric).expect("constant names are valid");
        Self { collection: collection.to_owned(), metric, handle, sum: 0 }
    }

    fn increment(&mut self, collector: &Collector, n: i64, turn: u64) {
        let accepted = match turn % 2 {
            0 => self.handle.try_increment(n),
            _ => collector.try_increment(&self.collection, &self.metric, n),
        };
        accepted.expect("there is room, and the collector is open");
        self.sum += n;
    }
}

/// Takes the primary away as often as the time allows, each time after all lanes of all nodes have stored something through
/// the one before.
async fn change_primaries(set: &mut ReplicaSet, nodes: &[Node], length: Duration) -> Result<Changes> {
    let begun = Instant::now();
    let mut changes = Changes::default();
    wait_for_batches(nodes).await?;
    while begun.elapsed() < length || changes.killed < KILLS {
        if changes.killed < KILLS && changes.stepped_down > changes.killed {
            let primary = set.wait_for_primary().await?;
            set.kill(primary)?;
            set.wait_for_primary().await?;
            wait_for_batches(nodes).await?;
            set.restart(primary).await?;
            set.wait_for_secondaries().await?;
            changes.killed += 1;
        } else {
            set.wait_for_primary().await?;
            set.step_down(2).await?;
            set.wait_for_primary().await?;
            changes.stepped_down += 1;
        }
        wait_for_batches(nodes).await?;
        for node in nodes {
            assert!(!node.counting.is_finished(), "a node has stopped counting");
            let stats = node.collector.stats();
            assert!(stats.is_balanced(), "{stats:?}");
        }
    }
    Ok(changes)
}

/// Waits until every lane has stored two more batches: the second one was sent after this began.
async fn wait_for_batches(nodes: &[Node]) -> Result<()> {
    let batches = || -> Vec<u64> {
        nodes.iter().flat_map(|node| lanes(&node.collector)).map(|lane| lane.batches).collect()
    };
    let goal: Vec<_> = batches().iter().map(|batches| batches + 2).collect();
    eventually("a batch of each lane", async || {
        Ok(batches().iter().zip(&goal).all(|(batches, goal)| batches >= goal))
    })
    .await
}
