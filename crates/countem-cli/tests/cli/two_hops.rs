//! Counting through another countem: each count is stored once, whatever happens to the connections and to the node between.
//!
//! Shows G1, G9.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use countem::{Collector, engine::EngineConfig};
use countem_core::{Batch, BatchId, Table, Writer};
use countem_store::Store;
use countem_store_remote::{RemoteConfig, RemoteStore};
use countem_testkit::{Link, Server, Trouble, in_own_database, require_server};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    harness::{Counters, Sandbox},
    served::Served,
};

/// Troubles that requests had.
#[derive(Default)]
struct Happened {
    cuts: AtomicUsize,
    drops: AtomicUsize,
    delays: AtomicUsize,
}

fn random() -> StdRng {
    let seed = std::env::var("COUNTEM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("COUNTEM_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Puts a link before the server at `port` that troubles every third request.
fn troubled(port: u16, random: &mut StdRng, happened: &Arc<Happened>) -> Link {
    let (happened, mut random) = (Arc::clone(happened), StdRng::seed_from_u64(random.random()));
    let choose = move || {
        let (trouble, count) = match random.random_range(0..9) {
            0 => (Trouble::CutRequest, &happened.cuts),
            1 => (Trouble::DropReply, &happened.drops),
            2 => (Trouble::Delay(Duration::from_millis(random.random_range(1..400))), &happened.delays),
            _ => return Trouble::None,
        };
        count.fetch_add(1, Ordering::Relaxed);
        trouble
    };
    Link::start(port, choose).unwrap()
}

impl Happened {
    fn has_every_trouble(&self) -> bool {
        [&self.cuts, &self.drops, &self.delays].iter().all(|count| count.load(Ordering::Relaxed) > 0)
    }
}

/// Returns a collector that flushes to the server at `port` all the time, and soon gives up an answer.
async fn collector(port: u16, journal: &Sandbox) -> Collector {
    let config = EngineConfig {
        flush_interval: Duration::from_millis(10),
        retry_first: Duration::from_millis(2),
        retry_longest: Duration::from_millis(20),
        shutdown_deadline: Duration::from_secs(120),
        ..EngineConfig::default()
    };
    let uri = format!("countem://127.0.0.1:{port}?timeout=300ms");
    Collector::builder()
        .store(uri)
        .engine_config(config)
        .journal(journal.path("journal"))
        .start()
        .await
        .unwrap()
}

/// Counts in rounds until every trouble has happened, does `meanwhile` in each, and returns what was counted once all of it is stored.
async fn count(
    collector: Collector,
    random: &mut StdRng,
    happened: &Happened,
    mut meanwhile: impl FnMut(),
) -> Counters {
    let (mut counted, began, mut rounds) = (Counters::new(), Instant::now(), 0);
    while rounds < ROUNDS || !happened.has_every_trouble() {
        assert!(began.elapsed() < TROUBLE_TIMEOUT, "every trouble has to happen");
        rounds += 1;
        for _ in 0..40 {
            let (metric, n) = (format!("m{}", random.random_range(0..30)), random.random_range(-3..10));
            collector.try_increment("web", &metric, n).unwrap();
            *counted.entry(metric).or_default() += n;
        }
        meanwhile();
        // Not to wait for anything: the moment is what is random.
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
    }
    let report = collector.shutdown().await;
    assert!(report.is_complete(), "{report}");
    counted
}

/// Minimum number of rounds.
const ROUNDS: usize = 120;
/// Maximum time until every trouble has happened.
const TROUBLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the sums over all days.
fn stored(far: &Sandbox, uri: &str) -> Counters {
    let ran = far.run(&["get", "web", "--bucket", "all", "-o", "json", "--store", uri]).expect(0);
    serde_json::from_value(ran.json()["counters"].clone()).unwrap()
}

const FILE: &str = "sqlite://countem.db";

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_count_nothing_twice() {
    let (far, here, mut random, happened) =
        (Sandbox::new(), Sandbox::new(), random(), Arc::<Happened>::default());
    let server = Served::start(&far, &[]);
    let link = troubled(server.port(), &mut random, &happened);
    let counted = count(collector(link.port(), &here).await, &mut random, &happened, || {}).await;
    assert_eq!(stored(&far, FILE), counted);
    assert_eq!(server.stop(), 0);
    assert_eq!(stored(&far, FILE), counted);
}

/// Kills the server at random moments, and starts it again.
async fn with_a_killed_node(store: Option<&str>) {
    let (far, here, mut random, happened) =
        (Sandbox::new(), Sandbox::new(), random(), Arc::<Happened>::default());
    let uri = store.unwrap_or(FILE);
    let mut server = Served::start(&far, &["--store", uri]);
    let link = troubled(server.port(), &mut random, &happened);
    let collector = collector(link.port(), &here).await;
    let mut kills = StdRng::seed_from_u64(random.random());
    let counted = count(collector, &mut random, &happened, || {
        if kills.random_bool(0.1) {
            server.restart();
        }
    })
    .await;
    assert_eq!(stored(&far, uri), counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_node_between_loses_and_doubles_nothing() {
    with_a_killed_node(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_node_before_mongodb_loses_and_doubles_nothing() {
    if !require_server() {
        return;
    }
    let server = Server::any().await.unwrap();
    with_a_killed_node(Some(&in_own_database(&server.uri()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_pass_two_nodes_exactly_once() {
    let (far, mid, here) = (Sandbox::new(), Sandbox::new(), Sandbox::new());
    let (mut random, happened) = (random(), Arc::<Happened>::default());
    let mut last = Served::start(&far, &[]);
    let to_last = troubled(last.port(), &mut random, &happened);
    let uri = format!("countem://127.0.0.1:{}?timeout=200ms", to_last.port());
    let mut between = Served::start(&mid, &["--store", &uri]);
    let to_between = troubled(between.port(), &mut random, &happened);
    let collector = collector(to_between.port(), &here).await;
    let mut kills = StdRng::seed_from_u64(random.random());
    let counted = count(collector, &mut random, &happened, || match kills.random_range(0..20) {
        0 => between.restart(),
        1 => last.restart(),
        _ => {}
    })
    .await;
    assert_eq!(stored(&far, FILE), counted);
    assert!(!mid.path("countem.db").exists(), "the node between keeps nothing");
}

fn batch(seq: u64) -> Arc<Batch> {
    let mut table = Table::new();
    table.fold("web", "visits", "2026-11-20".parse().unwrap(), 5).unwrap();
    Arc::new(Batch::new(BatchId { writer: Writer::new(1, 1), lane: 0, seq }, table.drain()))
}

fn store(server: &Served<'_>) -> RemoteStore {
    RemoteStore::connect(&RemoteConfig::new(format!("127.0.0.1:{}", server.port()))).unwrap()
}

#[tokio::test]
async fn any_node_of_a_store_takes_the_retry() {
    let far = Sandbox::new();
    let (one, other) = (Served::start(&far, &[]), Served::start(&far, &["--set", "durability.dir=other"]));
    for seq in 1..4 {
        for server in [&one, &other, &one] {
            store(server).apply(&batch(seq)).await.unwrap();
        }
    }
    // A copy that comes late.
    store(&other).apply(&batch(1)).await.unwrap();
    assert_eq!(far.counters("web", "2026-11-20"), BTreeMap::from([("visits".to_owned(), 15)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_of_the_sender_keeps_its_quarantine() {
    let (far, here) = (Sandbox::new(), Sandbox::new());
    let server = Served::start(&far, &[]);
    let collector = collector(server.port(), &here).await;
    for n in [i64::MAX, 1] {
        collector.try_increment("web", "big", n).unwrap();
        collector.flush().await.unwrap();
    }
    let stats = collector.stats();
    assert_eq!((stats.quarantined, stats.applied), (1, 1), "{stats:?}");
    assert!(collector.shutdown().await.is_balanced());
    let held = server.run(&here, &["quarantine", "list", "-o", "ndjson"]).expect(0);
    assert!(!held.out.contains("big"), "each of the two could be retried: {}", held.out);
    let own = here.run(&["quarantine", "list", "--journal", "journal", "-o", "ndjson"]).expect(0);
    assert_eq!(own.out.matches("big").count(), 1, "{}", own.out);
}
