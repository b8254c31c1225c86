//! A disk that refuses to write, for real: the system stops this process at a file size.
//!
//! Shows G12.

#![cfg(unix)]

use std::{env, fs, path::Path, process::Command};

use countem_journal::{ErrorKind, Journal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{crash::Child, support::*};

const DIR: &str = "COUNTEM_JOURNAL_TEST_DISK";

/// Bytes beyond which the system refuses to write; the log reaches it long before it is moved into the file.
const LIMIT: u64 = 300 * 1024;

/// Runs as an ordinary test, and once more in a process whose files may not grow.
#[test]
fn journal_recovers_from_refused_writes() {
    if let Some(dir) = env::var_os(DIR) {
        return write_until_refused(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    // A shell, because only it can make the process ignore the signal that comes with the refusal.
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
        .arg(env::current_exe().unwrap())
        .args(["disk::journal_recovers_from_refused_writes", "--exact", "--nocapture"])
        .env(DIR, dir.path());
    let mut child = Child::spawn(&mut command);
    assert!(child.0.wait().unwrap().success());
    let said = fs::read_to_string(dir.path().join("recorded")).unwrap();
    let recorded: i64 = said.parse().unwrap();
    let recovered = recovered_counts(&open(dir.path()).1);
    assert_eq!(recovered, counts([("a", recorded, recorded.unsigned_abs())]));
}

fn write_until_refused(dir: &Path) {
    let (journal, _) = Journal::open(config(dir)).unwrap();
    let mut recorded = 0;
    let mut rounds = 0;
    for _ in 0..5 {
        limit(Some(LIMIT));
        let mut refused = loop {
            match journal.record_blocking(record(0, [("a", 1)])) {
                Ok(_) => recorded += 1,
                Err(refused) => break refused,
            }
            rounds += 1;
            assert!(rounds < 100_000, "nothing was ever refused");
        };
        // It stays refused, and says why, as long as the disk refuses.
        for _ in 0..5 {
            assert_eq!(refused.error.kind(), ErrorKind::Unavailable, "{refused}");
            assert!(!journal.status().health.is_ready());
            match journal.record_blocking(refused.record) {
                // A record may fit where the last attempt was rolled back.
                Ok(_) => {
                    recorded += 1;
                    refused = loop {
                        match journal.record_blocking(record(0, [("a", 1)])) {
                            Ok(_) => recorded += 1,
                            Err(refused) => break refused,
                        }
                    };
                }
                Err(again) => refused = again,
            }
        }
        limit(None);
        let mut record = refused.record;
        while let Err(refused) = journal.record_blocking(record) {
            assert_eq!(refused.error.kind(), ErrorKind::Unavailable, "{refused}");
            record = refused.record;
            // The outcome of the last commit is looked up now and then.
            std::thread::yield_now();
        }
        recorded += 1;
        assert!(journal.status().health.is_ready());
    }
    fs::write(dir.join("recorded"), recorded.to_string()).unwrap();
}

fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
}
