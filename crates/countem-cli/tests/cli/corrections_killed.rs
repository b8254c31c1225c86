//! kill -9 at random moments of corrections: counters are those of before or of after, and the history says which.
//!
//! Shows G21.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use countem_testkit::{Server, in_own_database, require_server};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::harness::{Ran, Sandbox};

/// Returns a source of random numbers that `COUNTEM_SEED` repeats.
fn random() -> StdRng {
    let seed = std::env::var("COUNTEM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("COUNTEM_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Returns an hour of some year as a bucket.
fn hour(index: usize) -> String {
    let (day, hour) = (index / 24, index % 24);
    format!("{:04}-{:02}-{:02}T{hour:02}", 2001 + day / 336, 1 + day / 28 % 12, 1 + day % 28)
}

/// Imports the counters of some hours, into hours, days and all of time.
fn count(sandbox: &Sandbox, store: &[&str], hours: usize) {
    let mut rows = "collection,bucket,metric,value\n".to_owned();
    for index in 0..hours {
        let bucket = hour(index);
        rows += &format!("web,{bucket},old,{}\nweb,{bucket},kept,1\n", index % 50 + 1);
        if index % 3 == 0 {
            rows += &format!("web,{bucket},target,2\n");
        }
    }
    sandbox.write("rows.csv", rows);
    let import = ["import", "rows.csv", "-q", "--set", "time.periods=hour,day,all"];
    sandbox.run(&[&import, store].concat()).expect(0);
}

fn exported(sandbox: &Sandbox, store: &[&str]) -> String {
    sandbox.run(&[&["export", "-o", "csv"], store].concat()).expect(0).out
}

/// Returns the number of corrections, all of which are finished.
fn corrections(sandbox: &Sandbox, store: &[&str]) -> usize {
    let history: Ran =
        sandbox.run(&[&["history", "-o", "json", "--timeout", "60s"], store].concat()).expect(0);
    let history = history.json();
    let entries = history["corrections"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["state"] == "done"), "{history}");
    entries.len()
}

#[test]
fn killed_correction_is_whole_or_none() {
    const WHY: [&str; 4] = ["--reason", "test", "--author", "ann"];
    let cases: [&[&str]; 3] = [
        &["rename", "web", "old", "new"],
        &["merge", "web", "old", "kept", "--into", "target"],
        &["delete", "web", "--all", "--yes"],
    ];
    let (sandbox, mut random) = (Sandbox::new(), random());
    count(&sandbox, &[], 4000);
    fs::copy(sandbox.path("countem.db"), sandbox.path("base.db")).unwrap();
    let before = exported(&sandbox, &[]);
    let restore = || {
        for ending in ["-wal", "-shm"] {
            fs::remove_file(sandbox.path(&format!("countem.db{ending}"))).ok();
        }
        fs::copy(sandbox.path("base.db"), sandbox.path("countem.db")).unwrap();
    };
    let (mut open, mut done) = (0, 0);
    for case in cases {
        let args = [case, &WHY].concat();
        restore();
        let began = Instant::now();
        sandbox.run(&args).expect(0);
        let duration = began.elapsed();
        let after = exported(&sandbox, &[]);
        assert!(!after.contains(",old,") && after != before);
        for round in 0..12 {
            restore();
            let mut child = sandbox.start(&args);
            // Not to wait for anything: the moment is what is random.
            thread::sleep(duration.mul_f64(random.random_range(0.0..1.05)));
            child.kill().unwrap();
            let file = rusqlite::Connection::open(sandbox.path("countem.db")).unwrap();
            let is_open =
                file.prepare("SELECT 1 FROM mark WHERE key = 'correcting'").unwrap().exists([]).unwrap();
            drop(file);
            open += usize::from(is_open);
            let count = corrections(&sandbox, &[]);
            done += count;
            assert!(count <= 1 && (count == 1 || !is_open));
            let found = exported(&sandbox, &[]);
            assert!(
                found == if count == 1 { &*after } else { &*before },
                "round {round} of {case:?}: {count}"
            );
        }
    }
    println!("{open} were interrupted, {done} took place");
    assert!(open > 3 && done < 36, "{open} were interrupted, {done} took place: the moments are not random");
}

#[test]
fn killed_correction_of_mongodb_is_whole_or_none() {
    if !require_server() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Server::any()).unwrap();
    let uri = in_own_database(&server.uri());
    let store = ["--store", &*uri];
    let (sandbox, mut random) = (Sandbox::new(), random());
    count(&sandbox, &store, 2500);
    let before = exported(&sandbox, &store);
    let names = |text: &str| text.replace(",old,", ",new,");
    let after = sorted(&names(&before));
    let mut is_renamed = false;
    let mut duration = Duration::from_secs(1);
    let mut done = 0;
    for round in 0..12 {
        let (from, to) = if is_renamed { ("new", "old") } else { ("old", "new") };
        let args = ["rename", "web", from, to, "--reason", "test", "--author", "ann"];
        let args = [&args[..], &store].concat();
        let began = Instant::now();
        if round == 0 {
            sandbox.run(&args).expect(0);
            duration = began.elapsed();
        } else {
            let mut child = sandbox.start(&args);
            thread::sleep(duration.mul_f64(random.random_range(0.0..1.05)));
            child.kill().unwrap();
        }
        let count = corrections(&sandbox, &store);
        is_renamed ^= count > done;
        assert!(count == done || count == done + 1);
        done = count;
        let found = sorted(&exported(&sandbox, &store));
        assert!(found == if is_renamed { after.clone() } else { sorted(&before) }, "round {round}");
    }
    println!("{done} of 12 took place");
}

/// Returns the lines in an order that does not depend on names.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}
