//! `cargo xtask test`: the tests of the workspace, in two tiers.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::server::Server;
use crate::{mongod, step};

/// Connection string of a standalone server that tests share, each in a database of its own.
const SHARED_SERVER: &str = "COUNTEM_TEST_MONGODB_URI";
/// Tests that need a server, as nextest selects them.
const NEEDS_SERVER: &str =
    "test(mongodb) | (package(countem-store-mongodb) & kind(test)) | package(countem-testkit)";
/// The same for `cargo test`, which selects by package and name alone.
const WITHOUT_SERVER: [&str; 6] =
    ["--exclude", "countem-store-mongodb", "--exclude", "countem-testkit", "--", "--skip=mongodb"];

/// Runs all tests, with `--fast` those that need no server, and with other arguments only those that they select.
///
/// # Errors
/// When a test fails, or with `CI=true` when there is no MongoDB server to test against.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args {
        [] => all(),
        [first] if first == "--fast" => fast(),
        selected => with_servers(|run| run(tests(selected))),
    }
}

/// Everything. All steps select the same packages with the same features, so that no dependency is built twice.
fn all() -> Result<()> {
    with_servers(|run| {
        run(tests(&[""; 0]))?;
        // Replaces locks and atomics of the engine by explored ones: builds the engine and the crates above it once more.
        run(tests(&["--lib", "--features", "countem-engine/shuttle", "interleavings"]))?;
        run(step::cargo(&["test", "--workspace", "--doc"]))
    })
}

/// Tests without servers, and processes that are killed less often.
fn fast() -> Result<()> {
    let mut command =
        if has_nextest() { tests(&["-E", &format!("not ({NEEDS_SERVER})")]) } else { tests(&WITHOUT_SERVER) };
    command.env("COUNTEM_KILLS", "10");
    step::run(command)
}

/// Lets `steps` run commands that find MongoDB servers, if this machine has one.
fn with_servers(steps: impl FnOnce(&dyn Fn(Command) -> Result<()>) -> Result<()>) -> Result<()> {
    let program = match mongod::find_or_fetch() {
        Ok(program) => Some(program),
        Err(error) if is_ci() => return Err(error.context("no MongoDB server for the tests")),
        Err(error) => {
            eprintln!("no MongoDB server for the tests: {error:#}");
            None
        }
    };
    let is_given = env::var_os(SHARED_SERVER).is_some();
    let shared = program.as_ref().filter(|_| !is_given).map(|program| Server::start(program)).transpose()?;
    steps(&|mut command| {
        if let Some(program) = &program {
            command.env("MONGOD", program);
        }
        if let Some(shared) = &shared {
            command.env(SHARED_SERVER, shared.uri());
        }
        step::run(command)
    })?;
    if program.is_none() && !is_given {
        eprintln!("\n!!! THE TESTS AGAINST MONGODB DID NOT RUN: there is no server, see above");
    }
    Ok(())
}

fn tests(args: &[impl AsRef<str>]) -> Command {
    let mut command = if has_nextest() { step::cargo(&["nextest", "run"]) } else { step::cargo(&["test"]) };
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    if !args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package")) {
        command.arg("--workspace");
    }
    // Doc tests are a step of their own, and nextest does not know them.
    if !has_nextest() && !args.contains(&"--lib") {
        command.args(["--lib", "--bins", "--tests"]);
    }
    command.args(args);
    command
}

fn has_nextest() -> bool {
    step::works(step::cargo(&["nextest", "--version"]))
}

fn is_ci() -> bool {
    env::var("CI").as_deref() == Ok("true")
}
