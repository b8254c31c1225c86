//! Whatever happens to nodes, claims, batches and journals: a request counts at most once, and once if it was acknowledged.
//!
//! Real engines with journals on disk, or without, share a store; a node is killed by putting its journal back to what it was at that
//! moment. Requests are sent again to random nodes.

use std::{collections::BTreeMap, sync::Arc};

use countem_store::{Fault, FaultyStore, MemoryStore};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use tempfile::TempDir;

use super::*;
use crate::tests::start_with;

const NODES: usize = 3;
const KEYS: usize = 5;

/// The next event.
#[derive(Debug, Clone)]
enum Event {
    /// A request is sent, or sent again, to a node, whose next claims have these faults.
    Request { node: usize, key: usize, faults: Vec<Fault> },
    /// Requests under all keys are sent at once, and several under one.
    Requests { key: usize },
    /// A node stores what is pending, with these faults.
    Flush { node: usize, faults: Vec<Fault> },
    /// kill -9, and a new process on the same journal; its store is away at first or not.
    Crash { node: usize, is_away: bool },
    /// An orderly end, and a new process.
    Restart { node: usize },
    /// The disk of a node's journal fails once.
    FailDisk { node: usize, place: Index },
}

const PLACES: [&str; 5] = [
    "accept.before=1*return(error)",
    "accept.after=1*return(error)",
    "record.before=1*return(error)",
    "record.before=1*return(full)",
    "record.after=1*return(error)",
];

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        3 => Just(Fault::None),
        1 => Just(Fault::Fail),
        2 => Just(Fault::LoseRequest),
        2 => Just(Fault::LoseReply),
        1 => Just(Fault::ApplyTwice),
    ];
    prop::collection::vec(fault, 0..4)
}

fn event() -> impl Strategy<Value = Event> {
    let (node, key) = (|| 0..NODES, || 0..KEYS);
    prop_oneof![
        8 => (node(), key(), faults()).prop_map(|(node, key, faults)| Event::Request { node, key, faults }),
        1 => key().prop_map(|key| Event::Requests { key }),
        2 => (node(), faults()).prop_map(|(node, faults)| Event::Flush { node, faults }),
        2 => (node(), any::<bool>()).prop_map(|(node, is_away)| Event::Crash { node, is_away }),
        1 => node().prop_map(|node| Event::Restart { node }),
        1 => (node(), any::<Index>()).prop_map(|(node, place)| Event::FailDisk { node, place }),
    ]
}

type Node = Setup<Arc<MemoryStore>>;

struct World {
    store: Arc<MemoryStore>,
    dirs: Vec<TempDir>,
    nodes: Vec<Node>,
    acknowledged: BTreeMap<usize, u32>,
}

impl World {
    async fn begin() -> Self {
        let store = Arc::new(MemoryStore::new());
        let dirs: Vec<_> = (0..NODES).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut world = Self { store, dirs, nodes: Vec::new(), acknowledged: BTreeMap::new() };
        for node in 0..NODES {
            let setup = world.start(node, false).await;
            world.nodes.push(setup);
        }
        world
    }

    /// Starts a node; the last one has no journal.
    async fn start(&self, node: usize, is_away: bool) -> Node {
        let (store, faults) = FaultyStore::new(Arc::clone(&self.store));
        if is_away {
            faults.claims_then([Fault::LoseRequest, Fault::LoseRequest]);
        }
        let memory = EngineConfig { shutdown_deadline: Duration::from_millis(50), ..quiet() };
        let config = if node + 1 < NODES { journaled(self.dirs[node].path()) } else { memory };
        start_with(config, Arc::new(store), faults, "2026-11-20T12:00:00Z").await
    }

    async fn happen(&mut self, event: &Event) {
        match event {
            Event::Request { node, key, faults } => {
                self.nodes[*node].faults.claims_then(faults.iter().cloned());
                let outcome = self.nodes[*node].count(&key.to_string(), &format!("m{key}")).await;
                self.note(*key, &outcome);
            }
            Event::Requests { key } => {
                let keys = (0..KEYS).chain([*key; 4]).zip((0..NODES).cycle());
                let requests = keys.map(|(key, node)| {
                    let node = &self.nodes[node];
                    async move { (key, node.count(&key.to_string(), &format!("m{key}")).await) }
                });
                for (key, outcome) in join_all(requests).await {
                    self.note(key, &outcome);
                }
            }
            Event::Flush { node, faults } => {
                self.nodes[*node].faults.then(faults.iter().cloned());
                self.nodes[*node].engine.flush().await;
            }
            Event::Crash { node, is_away } => {
                let dead = self.nodes.remove(*node);
                // What the dead process does from now on reaches nothing: not the store, and not the journal of the next one.
                dead.faults.cut_off();
                let image = image(self.dirs[*node].path());
                dead.engine.shutdown().await;
                put_back(self.dirs[*node].path(), &image);
                fail_points::disarm(self.dirs[*node].path());
                let next = self.start(*node, *is_away).await;
                self.nodes.insert(*node, next);
            }
            Event::Restart { node } => {
                let before = self.nodes.remove(*node);
                let report = before.engine.shutdown().await;
                assert!(report.is_balanced(), "{report}");
                let next = self.start(*node, false).await;
                self.nodes.insert(*node, next);
            }
            Event::FailDisk { node, place } => {
                fail_points::arm(self.dirs[*node].path(), PLACES[place.index(PLACES.len())]);
            }
        }
        for node in &self.nodes {
            assert!(node.engine.stats().is_balanced(), "{:?}", node.engine.stats());
        }
    }

    fn note(&mut self, key: usize, outcome: &Result<Keyed, KeyedError>) {
        match outcome {
            Ok(Keyed::Counted | Keyed::Repeat) => *self.acknowledged.entry(key).or_default() += 1,
            Ok(Keyed::Mismatch) => panic!("there is no other body"),
            Err(_) => {}
        }
    }

    /// Lets everything be decided and stored.
    async fn end(&self) {
        for (node, dir) in self.nodes.iter().zip(&self.dirs) {
            fail_points::disarm(dir.path());
            eventually("a decision", || node.engine.stats().requests_in_progress == 0).await;
            node.engine.flush().await;
        }
    }

    async fn check(&self) {
        let stored = self.nodes[0].stored(DAY).await;
        for key in 0..KEYS {
            let n = stored.get(&format!("m{key}")).unwrap().unwrap_or(0);
            let acknowledged = self.acknowledged.get(&key).copied().unwrap_or_default();
            assert!(n <= 1, "key {key} is counted {n} times");
            assert!(n == 1 || acknowledged == 0, "key {key} was acknowledged and is not counted");
        }
    }
}

/// Returns how many sequences are tried: what `COUNTEM_CASES` says, else 40.
fn cases() -> u32 {
    std::env::var("COUNTEM_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

#[test]
fn requests_count_once_whatever_happens() {
    let config = ProptestConfig {
        cases: cases(),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Default::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let events = prop::collection::vec(event(), 1..25);
    let outcome = TestRunner::new(config).run(&events, |events| {
        runtime.block_on(async {
            let mut world = World::begin().await;
            for event in &events {
                world.happen(event).await;
            }
            world.end().await;
            world.check().await;
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
