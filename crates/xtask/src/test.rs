//! `cargo xtask test`: every test of the workspace.

use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::{mongod, step};

/// Examples that end by themselves, run after the tests: an example that compiles may still be wrong.
const EXAMPLES: [&str; 2] = ["embedded", "custom_store"];

/// Runs everything, or with `args` only the first step with these arguments.
///
/// # Errors
/// When something fails, or with `CI=true` when there is no MongoDB server to test against.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let server = match mongod::find_or_fetch() {
        Ok(server) => Some(server),
        Err(error) if is_ci() => return Err(error.context("no MongoDB server for the tests")),
        Err(error) => {
            eprintln!("no MongoDB server for the tests: {error:#}");
            None
        }
    };
    let with_server = |mut command: Command| {
        if let Some(server) = &server {
            command.env("MONGOD", server);
        }
        step::run(command)
    };
    with_server(tests(args))?;
    if args.is_empty() {
        // Locks and atomics are exchanged for explored ones, so this is a build of its own.
        let interleavings = ["--package", "countem-engine", "--features", "shuttle", "interleavings"];
        step::run(tests(&interleavings.map(String::from)))?;
        with_server(step::cargo(&["test", "--workspace", "--doc"]))?;
        // The same selection of packages as above, so that no dependency is built twice with other features.
        step::run(step::cargo(&["build", "--workspace", "--examples"]))?;
        for name in EXAMPLES {
            step::run(example(name)?)?;
        }
    }
    if server.is_none() && env::var_os("COUNTEM_TEST_MONGODB_URI").is_none() {
        eprintln!("\n!!! THE TESTS AGAINST MONGODB DID NOT RUN: there is no server, see above");
    }
    Ok(())
}

fn tests(args: &[String]) -> Command {
    let mut command = if step::works(step::cargo(&["nextest", "--version"])) {
        step::cargo(&["nextest", "run"])
    } else {
        step::cargo(&["test", "--lib", "--bins", "--tests"])
    };
    let names_package = |arg: &String| arg.starts_with("-p") || arg.starts_with("--package");
    if !args.iter().any(names_package) {
        command.arg("--workspace");
    }
    command.args(args);
    command
}

/// Begins a run of a built example in an empty folder, so that it neither finds nor leaves files elsewhere.
fn example(name: &str) -> Result<Command> {
    let itself = env::current_exe().context("cannot find the folder of built programs")?;
    let built = itself.parent().context("a program lies in a folder")?;
    let program = built.join("examples").join(name).with_extension(env::consts::EXE_EXTENSION);
    ensure!(program.is_file(), "there is no example `{name}`: `{}` is missing", program.display());
    let folder = step::workspace().join(".cache").join("examples").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty `{}`", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    let mut command = Command::new(program);
    command.current_dir(folder);
    Ok(command)
}

fn is_ci() -> bool {
    env::var("CI").as_deref() == Ok("true")
}
