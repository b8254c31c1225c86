//! kill -9 at random moments, again and again, on one journal and one store.
//!
//! Shows G9.

use std::{env, path::Path, thread, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use rusqlite::Connection;

use super::{
    books::{Books, Stored, deliver, last},
    node::Start,
};
use crate::support::CounterFile;

/// Returns how often a process is killed: what `COUNTEM_KILLS` says, else `ci` where `CI` is `true`, else `here`.
pub(super) fn kills(ci: usize, here: usize) -> usize {
    match env::var("COUNTEM_KILLS") {
        Ok(given) => given.parse().expect("`COUNTEM_KILLS` is a number"),
        Err(_) if env::var("CI").as_deref() == Ok("true") => ci,
        Err(_) => here,
    }
}

/// Returns a source of random numbers that `COUNTEM_SEED` repeats.
pub(super) fn random() -> StdRng {
    let seed = env::var("COUNTEM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("COUNTEM_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Starts a process on the journal and the store, kills it at a random moment, and enters what it has said.
pub(super) fn kill_once(store: &str, journal: &Path, random: &mut StdRng, round: usize, books: &mut Books) {
    let tasks = random.random_range(1..=24);
    let mut node = Start::new(store, journal)
        .with("prefix", format!("r{round}"))
        .with("tasks", tasks)
        .with("lanes", random.random_range(1..=3))
        .with("tick", random.random_range(1..=30))
        .with("flush", random.random_range(1..=60))
        .with("batch", [3, 40, 50_000][random.random_range(0..3)])
        .start();
    let before = books.acknowledged();
    // One in four is killed while it starts and recovers, the others after a while of counting.
    let most = if random.random_bool(0.25) { 0 } else { random.random_range(1..=400) };
    node.wait_for_acknowledgements(most);
    // Not to wait for anything: the moment is what is random.
    thread::sleep(Duration::from_micros(random.random_range(0..if most == 0 { 50_000 } else { 8_000 })));
    books.enter(node.kill(), tasks);
    println!("round {round}: {tasks} tasks, {} acknowledged", books.acknowledged() - before);
}

/// Moves the retirements that a file knows of two days into the past.
pub(super) fn let_retired_grow_old(file: &CounterFile) {
    let file = Connection::open(file.path()).unwrap();
    assert!(file.execute("UPDATE retired SET at = at - 49 * 3600 * 1000", []).unwrap() > 0);
}

fn number(file: &CounterFile, query: &str) -> i64 {
    Connection::open(file.path()).unwrap().query_row(query, [], |row| row.get(0)).unwrap()
}

#[test]
fn every_acknowledged_increment_survives_kill_9_exactly_once() {
    let (file, mut random, mut books) = (CounterFile::new(), random(), Books::default());
    let journal = file.folder().join("journal");
    for round in 0..kills(200, 40) {
        kill_once(&file.uri(), &journal, &mut random, round, &mut books);
    }
    deliver(&last(&file, &journal));
    assert!(books.acknowledged() > 0);
    books.check(&Stored::of(&file));
    let writers = || number(&file, "SELECT count(DISTINCT writer) FROM applied");
    assert!(writers() > 10, "{} writers", writers());
    let_retired_grow_old(&file);
    deliver(&last(&file, &journal));
    assert_eq!(writers(), 0, "of killed writers nothing is left after two days");
    assert_eq!((books.unsure(), books.refused()), (0, 0), "nothing was wrong with the journal");
}

#[test]
fn acknowledging_too_early_is_noticed() {
    let (file, mut books) = (CounterFile::new(), Books::default());
    let journal = file.folder().join("journal");
    let start = Start::new(&file.uri(), &journal).with("tasks", 1).with("tick", 3_600_000);
    let mut node = start.with("flush", 3_600_000).with("lies", true).start();
    node.wait_for_acknowledgements(10);
    books.enter(node.kill(), 1);
    deliver(&last(&file, &journal));
    assert!(!books.lost(&Stored::of(&file)).is_empty());
}
