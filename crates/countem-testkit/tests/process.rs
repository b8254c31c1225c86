//! Processes end with the test that started them, however that ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result};
use countem_testkit::{Child, command};

/// Starts a process that does not end by itself, nor when a pipe is closed.
fn endless() -> Result<Child> {
    let mut tail = command("tail");
    tail.args(["-f", "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Child::spawn(tail)
}

/// Tells whether the process runs; one that has ended and was not waited for by its parent does not.
fn runs(id: &str) -> Result<bool> {
    let state = Command::new("ps").args(["-o", "stat=", "-p", id]).output()?;
    let state = String::from_utf8(state.stdout)?;
    Ok(!state.trim().is_empty() && !state.starts_with('Z'))
}

#[test]
fn child_outlives_the_thread_that_started_it() -> Result<()> {
    let mut child = thread::spawn(endless).join().expect("the thread does not panic")?;
    assert!(child.try_wait()?.is_none(), "the end of a thread must not end what it started");
    let id = child.id().to_string();
    assert!(runs(&id)?);
    drop(child);
    assert!(!runs(&id)?, "process {id} is left");
    Ok(())
}

#[test]
fn child_is_killed_when_the_guard_unwinds() -> Result<()> {
    let (tell, told) = std::sync::mpsc::channel();
    let panicked = thread::spawn(move || {
        let child = endless().expect("tail starts");
        tell.send(child.id().to_string()).expect("the test listens");
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert!(!runs(&told.recv()?)?);
    Ok(())
}

#[test]
fn terminated_child_ends_and_wait_has_a_deadline() -> Result<()> {
    let mut child = endless()?;
    child.wait_at_most(Duration::from_millis(50)).expect_err("it does not end by itself");
    child.terminate()?;
    assert!(!child.wait_at_most(Duration::from_secs(10))?.success());
    child.thaw().expect_err("there is no process to signal");
    Ok(())
}

/// The test runs itself once more as a process that starts a child and is then killed without a chance to act.
#[test]
#[cfg(target_os = "linux")]
fn child_dies_with_a_killed_test_process() -> Result<()> {
    const INNER: &str = "COUNTEM_TESTKIT_INNER";
    const FILE: &str = "COUNTEM_TESTKIT_FILE";
    if env::var_os(INNER).is_some() {
        let child = endless()?;
        fs::write(env::var(FILE)?, child.id().to_string())?;
        println!("\nstarted");
        std::io::stdout().flush()?;
        loop {
            thread::park();
        }
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("id");
    let mut inner = command(env::current_exe()?);
    inner.args(["--exact", "child_dies_with_a_killed_test_process", "--nocapture"]);
    inner.env(INNER, "1").env(FILE, &file).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut inner = Child::spawn(inner)?;
    let output = inner.streams().stdout.take().context("stdout is piped")?;
    let started = BufReader::new(output).lines().any(|line| line.is_ok_and(|line| line == "started"));
    assert!(started, "the inner test did not start its child");
    let id = fs::read_to_string(&file)?;
    assert!(runs(&id)?);

    inner.kill()?;

    let deadline = Instant::now() + Duration::from_secs(10);
    while runs(&id)? {
        assert!(Instant::now() < deadline, "process {id} has survived the process that started it");
        thread::yield_now();
    }
    Ok(())
}
