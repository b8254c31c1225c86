//! Whether there is a server to test against, and what a test says when there is none.

use std::env;
use std::io::{self, Write};
use std::thread;

use anyhow::Result;

use crate::find;
use crate::mongod::{Mongod, Options};

/// Tells whether a `mongod` can be started, for the first line of a test: `if !require_mongod() { return; }`.
///
/// Without one it says on standard error that the test did not run, past the test harness' capturing.
///
/// # Panics
/// Without one when `CI` is `true`: what did not run must not look green there.
#[must_use]
pub fn require_mongod() -> bool {
    find::mongod().is_some() || missing("no mongod found; `cargo xtask mongod` fetches one")
}

/// Tells whether [`Server::any`] can work: as [`require_mongod`], and content with a server that is
/// [given](given_uri).
///
/// # Panics
/// As [`require_mongod`].
#[must_use]
pub fn require_server() -> bool {
    given_uri().is_some() || require_mongod()
}

/// Returns the connection string of a standalone server that the developer offers to tests in
/// `COUNTEM_TEST_MONGODB_URI`. It is not ours to kill, and other tests use it: make a database of your own.
#[must_use]
pub fn given_uri() -> Option<String> {
    env::var("COUNTEM_TEST_MONGODB_URI").ok().filter(|uri| !uri.is_empty())
}

/// A standalone server for a test that only reads and writes.
#[derive(Debug)]
pub enum Server {
    /// The one behind [`given_uri`].
    Given(String),
    /// One of our own, started for this test.
    Started(Mongod),
}

impl Server {
    /// Takes the server that is given, else starts one.
    ///
    /// # Errors
    /// As [`Mongod::start`].
    pub async fn any() -> Result<Self> {
        match given_uri() {
            Some(uri) => Ok(Self::Given(uri)),
            None => Ok(Self::Started(Mongod::start(Options::default()).await?)),
        }
    }

    /// Returns the connection string.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Self::Given(uri) => uri.clone(),
            Self::Started(mongod) => mongod.uri(),
        }
    }
}

fn missing(what: &str) -> bool {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    assert!(env::var("CI").as_deref() != Ok("true"), "{test} needs a server: {what}");
    // Not `eprintln!`, which the test harness keeps to itself when the test passes.
    writeln!(io::stderr(), "\n!!! {test} DID NOT RUN: {what}\n").ok();
    false
}
