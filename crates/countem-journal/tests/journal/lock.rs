//! A journal belongs to one process at a time.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use countem_journal::{ErrorKind, Journal};

use crate::{crash, support::*};

#[test]
fn second_opening_names_the_process_with_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let error = Journal::open(config(dir.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    let expected = format!(
        "the journal directory `{}` is in use by process {}",
        dir.path().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), expected);
    drop(journal);
    drop(open(dir.path()));
}

#[test]
fn lock_of_a_killed_process_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = crash::spawn(dir.path(), "", Stdio::piped());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    // The first line comes when the journal is open.
    while !lines.next().unwrap().unwrap().contains("ack") {}
    let error = Journal::open(config(dir.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains(&format!("process {}", child.0.id())), "{error}");
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    drop(open(dir.path()));
}

#[cfg(unix)]
#[test]
fn linked_files_are_refused_and_stay_untouched() {
    for name in ["journal.db", "journal.lock"] {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join(name)).unwrap();
        let error = Journal::open(config(dir.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("link"), "{error}");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    }
}
