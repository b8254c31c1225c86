//! Two processes on one store get the same requests with idempotency keys, and are killed again and again: each request counts once.
//!
//! Shows G26.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use countem::Timestamp;
use countem_testkit::{Proxy, ReplicaSet, Server, in_own_database, require_mongod};
use rand::{Rng, rngs::StdRng};

use super::{
    books::{Stored, deliver, last_on},
    kill::{kills, random},
    mongodb::stored,
    node::{Line, Start},
};
use crate::support::CounterFile;

/// Requests that two processes have acknowledged.
struct Requests<'a> {
    store: &'a str,
    folder: &'a Path,
    /// The time of all processes: requests are counted in one day.
    now: Timestamp,
    random: StdRng,
    acknowledged: BTreeSet<String>,
}

impl<'a> Requests<'a> {
    fn new(store: &'a str, folder: &'a Path) -> Self {
        Self { store, folder, now: Timestamp::now(), random: random(), acknowledged: BTreeSet::new() }
    }

    /// Lets both processes work on the same requests, which begin with known ones, kills one after the other, and enters what they
    /// have acknowledged.
    fn kill_both(&mut self, lies: bool) {
        let tasks = self.random.random_range(1..=16);
        let first = self.acknowledged.len().saturating_sub(2 * tasks);
        let nodes: Vec<_> = ["one", "other"]
            .into_iter()
            .map(|journal| {
                Start::new(self.store, &self.folder.join(journal))
                    .with("requests", first)
                    .with("now", self.now)
                    .with("tasks", tasks)
                    .with("tick", self.random.random_range(1..=30))
                    .with("flush", self.random.random_range(1..=60))
                    .with("lies", lies)
                    .start()
            })
            .collect();
        for mut node in nodes {
            node.wait_for_acknowledgements(self.random.random_range(0..=60));
            // Not to wait for anything: the moment is what is random.
            thread::sleep(Duration::from_micros(self.random.random_range(0..8_000)));
            for line in node.kill() {
                match line {
                    Line::Acknowledged(request) => drop(self.acknowledged.insert(request)),
                    Line::Refused(request) => panic!("`{request}` has another body"),
                    _ => {}
                }
            }
        }
    }

    /// Lets last processes deliver what the journals have.
    fn deliver(&self) {
        for journal in ["one", "other"] {
            deliver(&last_on(self.store, &self.folder.join(journal)));
        }
    }

    fn lost(&self, stored: &Stored) -> Vec<&String> {
        self.acknowledged.iter().filter(|request| stored.own.get(request) == Ok(None)).collect()
    }

    /// Checks that every request is stored at most once and as a whole, and every acknowledged one is stored.
    #[track_caller]
    fn check(&self, stored: &Stored) {
        let twice: Vec<_> = stored.own.iter().filter(|(_, value)| *value != Ok(1)).collect();
        assert!(twice.is_empty(), "counted more than once: {twice:?}");
        let lost = self.lost(stored);
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert_eq!(stored.shared, stored.own.len() as i64, "a request is counted in part");
        println!("{} requests acknowledged", self.acknowledged.len());
        assert!(self.acknowledged.len() > 20);
    }
}

#[test]
fn requests_of_killed_nodes_count_once() {
    let file = CounterFile::new();
    let uri = file.uri();
    let mut requests = Requests::new(&uri, file.folder());
    for _ in 0..kills(60, 15) {
        requests.kill_both(false);
    }
    requests.deliver();
    requests.check(&Stored::of(&file));
}

#[test]
fn acknowledging_before_the_journal_is_noticed() {
    let file = CounterFile::new();
    let uri = file.uri();
    let mut requests = Requests::new(&uri, file.folder());
    for _ in 0..5 {
        requests.kill_both(true);
    }
    requests.deliver();
    assert!(!requests.lost(&Stored::of(&file)).is_empty());
}

/// Cuts connections around some of the commands on keys.
fn cut(proxy: &Proxy) {
    let nth = |n: u32| {
        let seen = AtomicU32::new(0);
        move |request: &countem_testkit::Message| {
            request.contains("_countem_keys") && seen.fetch_add(1, Ordering::Relaxed) % n == n - 1
        }
    };
    proxy.drop_reply(u32::MAX, nth(7));
    proxy.drop_request(u32::MAX, nth(11));
}

async fn kill_behind(proxy: &Proxy, uri: &str) -> Result<()> {
    cut(proxy);
    let folder = tempfile::tempdir()?;
    let mut requests = Requests::new(uri, folder.path());
    tokio::task::block_in_place(|| {
        // Each cut connection costs seconds, so there are few rounds.
        let mut rounds = 0..kills(20, 2);
        while rounds.next().is_some() || requests.acknowledged.len() <= 20 {
            requests.kill_both(false);
        }
        requests.deliver();
    });
    requests.check(&stored(uri).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_count_once_behind_cut_connections() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let (_server, proxy) = Server::behind_proxy().await?;
    kill_behind(&proxy, &in_own_database(&proxy.uri())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_count_once_on_a_replica_set() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let set = ReplicaSet::start(3).await?;
    let proxy = Proxy::start(set.member(set.wait_for_primary().await?).port())?;
    kill_behind(&proxy, &proxy.uri()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_count_once_while_primaries_change() -> Result<()> {
    if !require_mongod() {
        return Ok(());
    }
    let (set, folder) = (ReplicaSet::start(3).await?, tempfile::tempdir()?);
    let uri = set.uri();
    let mut requests = Requests::new(&uri, folder.path());
    for round in 0..kills(20, 4) {
        if round % 2 == 1 {
            set.wait_for_primary().await?;
            set.step_down(2).await?;
        }
        tokio::task::block_in_place(|| requests.kill_both(false));
    }
    set.wait_for_primary().await?;
    tokio::task::block_in_place(|| requests.deliver());
    requests.check(&stored(&uri).await?);
    Ok(())
}
