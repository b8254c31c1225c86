//! The server of a test, and the notice of a test that has none.

use std::env;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use anyhow::Result;
use mongodb::options::{ConnectionString, HostInfo, ServerAddress};

use crate::find;
use crate::mongod::{Mongod, Options};
use crate::proxy::Proxy;

/// Tells whether a `mongod` can be started, for the first line of a test: `if !require_mongod() { return; }`.
///
/// Without one it prints to standard error that the test did not run, past the test harness' capturing.
///
/// # Panics
/// Without one when `CI` is `true`: a test that did not run must not look green there.
#[must_use]
pub fn require_mongod() -> bool {
    find::mongod().is_some() || missing("no mongod found; `cargo xtask mongod` fetches one")
}

/// Tells whether `program` is installed; `purpose` says what it is, and where it comes from.
///
/// # Panics
/// As [`require_mongod`].
#[must_use]
pub fn require_tool(program: &str, purpose: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(program).is_file())
        || missing(&format!("{purpose} is not installed"))
}

/// Tells whether [`Server::any`] can work: as [`require_mongod`], and content with the [shared server](shared_uri).
///
/// # Panics
/// As [`require_mongod`].
#[must_use]
pub fn require_server() -> bool {
    shared_uri().is_some() || require_mongod()
}

/// Returns the connection string of the shared server, a standalone, from `COUNTEM_TEST_MONGODB_URI`.
///
/// `cargo xtask test` starts one, and a developer may offer one. Other tests use it at the same time: a test works in a
/// [database of its own](in_own_database), and neither stops the server nor makes it fail.
#[must_use]
pub fn shared_uri() -> Option<String> {
    env::var("COUNTEM_TEST_MONGODB_URI").ok().filter(|uri| !uri.is_empty())
}

/// Returns the connection string `uri`, which names no database, with a database that no other test uses.
#[must_use]
pub fn in_own_database(uri: &str) -> String {
    let (base, options) = uri.split_once('?').unwrap_or((uri, ""));
    format!("{}/t{:016x}?{options}", base.trim_end_matches('/'), RandomState::new().build_hasher().finish())
}

/// A standalone server for a test that only reads and writes.
#[derive(Debug)]
pub enum Server {
    /// The [shared](shared_uri) one.
    Shared(String),
    /// One of its own, started for this test.
    Own(Mongod),
}

impl Server {
    /// Takes the shared server, else starts one.
    ///
    /// # Errors
    /// As [`Mongod::start`].
    pub async fn any() -> Result<Self> {
        match shared_uri() {
            Some(uri) => Ok(Self::Shared(uri)),
            None => Ok(Self::Own(Mongod::start(Options::default()).await?)),
        }
    }

    /// Takes the shared server if it runs on this machine and needs no login, else starts one, and puts a proxy before it.
    ///
    /// # Errors
    /// As [`Mongod::start`] and [`Proxy::start`].
    pub async fn behind_proxy() -> Result<(Self, Proxy)> {
        if let Some(uri) = shared_uri()
            && let Some(port) = local_port(&uri)
        {
            return Ok((Self::Shared(uri), Proxy::start(port)?));
        }
        let mongod = Mongod::start(Options::default()).await?;
        let proxy = Proxy::start(mongod.port())?;
        Ok((Self::Own(mongod), proxy))
    }

    /// Returns the connection string, which names no database.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Self::Shared(uri) => uri.clone(),
            Self::Own(mongod) => mongod.uri(),
        }
    }
}

/// Returns the port of a single server on 127.0.0.1 that needs no login.
fn local_port(uri: &str) -> Option<u16> {
    let parsed = ConnectionString::parse(uri).ok().filter(|parsed| parsed.credential.is_none())?;
    match &parsed.host_info {
        HostInfo::HostIdentifiers(hosts) => match hosts.as_slice() {
            [ServerAddress::Tcp { host, port }] if is_local(host) => Some(port.unwrap_or(27_017)),
            _ => None,
        },
        _ => None,
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse() == Ok(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn missing(what: &str) -> bool {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    assert!(env::var("CI").as_deref() != Ok("true"), "{test} needs a server: {what}");
    // Not `eprintln!`, which the test harness keeps to itself when the test passes.
    writeln!(io::stderr(), "\n!!! {test} DID NOT RUN: {what}\n").ok();
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_is_put_before_the_options() {
        let own = in_own_database("mongodb://127.0.0.1:1/?directConnection=true");
        assert!(
            own.starts_with("mongodb://127.0.0.1:1/t") && own.ends_with("?directConnection=true"),
            "{own}"
        );
        for uri in ["mongodb://a:1", "mongodb://a:1/"] {
            let own = in_own_database(uri);
            assert!(own.starts_with("mongodb://a:1/t") && own != in_own_database(uri), "{own}");
        }
    }

    #[test]
    fn proxy_stands_only_before_a_local_server() {
        assert_eq!(local_port("mongodb://127.0.0.1:16000"), Some(16_000));
        assert_eq!(local_port("mongodb://localhost/?directConnection=true"), Some(27_017));
        for uri in
            ["mongodb://db.example:1", "mongodb://u:p@127.0.0.1:1", "mongodb://127.0.0.1:1,127.0.0.1:2"]
        {
            assert_eq!(local_port(uri), None, "{uri}");
        }
    }
}
