//! How long a call of `countem inc` takes, from its start to its end, when calls come one after the other and eight at a time.
//!
//! Beside it, in turns: `countem --version`, which opens nothing, so what is left is what counting costs.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

const CALLS: usize = 2_000;
const ROUNDS: usize = 3;

fn main() {
    for at_once in [1, 8] {
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir().expect("a folder");
            report("countem --version     ", at_once, measure(folder.path(), at_once, &["--version"]));
            report(
                "countem inc web visits",
                at_once,
                measure(folder.path(), at_once, &["inc", "web", "visits"]),
            );
            check(folder.path());
        }
    }
}

/// Returns how long each call took, sorted.
fn measure(folder: &Path, at_once: usize, arguments: &[&str]) -> Vec<Duration> {
    let next = AtomicUsize::new(0);
    let calls = || {
        let mut times = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < CALLS {
            let began = Instant::now();
            let status = countem(folder, arguments).stdout(Stdio::null()).status().expect("a process");
            times.push(began.elapsed());
            assert!(status.success(), "{status}");
        }
        times
    };
    let mut times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(calls)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    times.sort_unstable();
    times
}

fn report(what: &str, at_once: usize, times: Vec<Duration>) {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let mean = millis(times.iter().sum::<Duration>()) / CALLS as f64;
    let at = |per_mille: usize| millis(times[(times.len() - 1) * per_mille / 1_000]);
    let slow = times.iter().filter(|time| **time > Duration::from_millis(25)).count();
    println!(
        "{what}, {at_once} at once: mean {mean:5.2} ms, 50 % {:5.2}, 99 % {:5.2}, 99.9 % {:5.2}, worst {:5.2}; {slow} over 25 ms",
        at(500),
        at(990),
        at(999),
        at(1_000),
    );
}

/// All calls were counted, and none of them left anything but its count.
fn check(folder: &Path) {
    let got = countem(folder, &["get", "web", "visits", "-o", "csv"]).output().expect("a process");
    let got = String::from_utf8(got.stdout).expect("text");
    assert!(got.lines().any(|line| line.ends_with(&CALLS.to_string())), "{got}");
    let files: Vec<_> =
        folder.read_dir().expect("a folder").map(|file| file.expect("a file").file_name()).collect();
    assert_eq!(files, ["countem.db"]);
    let connection = rusqlite::Connection::open(folder.join("countem.db")).expect("a database");
    let writers: i64 =
        connection.query_row("SELECT count(*) FROM applied", [], |row| row.get(0)).expect("a table");
    assert_eq!(writers, 0);
}

fn countem(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countem"));
    command.current_dir(folder).args(arguments).env_remove("COUNTEM_STORE");
    command
}
