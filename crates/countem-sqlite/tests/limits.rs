//! A process that may open no further file.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs::File, iter, time::Duration};

use countem_sqlite::{Cause, OpenFile};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A limit that is soon reached, and that the test harness has not reached yet.
const MAX_FILES: u64 = 128;

#[test]
fn exhausted_files_are_no_matter_of_rights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("counters.db");
    let write = || {
        let file = OpenFile::for_writing(&path, Duration::ZERO)?;
        file.connection.execute_batch("CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1)")
    };
    write().unwrap();
    let connected = OpenFile::for_writing(&path, Duration::ZERO).unwrap();
    connected.connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(MAX_FILES), maximum }).unwrap();
    let taken: Vec<_> = iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let not_opened = write().unwrap_err();
    // The file is open, and its log is not.
    let not_written = connected.connection.execute_batch("INSERT INTO t VALUES (2)").unwrap_err();
    let causes = [&not_opened, &not_written].map(Cause::of);
    drop(taken);
    assert_eq!(causes, [Cause::TooManyFiles; 2], "{not_opened}; {not_written}");
    write().unwrap();
}
