//! The section `[server]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// `[server]`: addresses, access and limits of `countem serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Addresses on which HTTP is served.
    pub listen: Vec<SocketAddr>,
    /// Serve other machines without tokens or without TLS.
    pub insecure: bool,
    /// Host names of requests besides those of this machine.
    pub hosts: Vec<String>,
    /// The file of tokens. Without one every sender that reaches the server may do everything.
    pub tokens: Option<PathBuf>,
    /// Certificate chain of TLS, in PEM.
    pub tls_cert: Option<PathBuf>,
    /// Private key of TLS, in PEM.
    pub tls_key: Option<PathBuf>,
    /// Authorities of client certificates, in PEM; with them every client has to show one.
    pub tls_client_ca: Option<PathBuf>,
    /// Guarantee of a write that asks for none.
    pub guarantee: Guarantee,
    /// Weakest guarantee that a write may ask for.
    pub min_guarantee: Guarantee,
    /// Strongest guarantee that a write may ask for.
    pub max_guarantee: Guarantee,
    /// Maximum bytes of a body, decompressed.
    pub max_body: usize,
    /// Maximum bytes of all bodies that are held at the same time.
    pub max_bodies: usize,
    /// Maximum number of increments in a request.
    pub max_items: usize,
    /// Maximum number of open connections.
    pub max_connections: usize,
    /// Maximum number of open event streams.
    pub max_streams: usize,
    /// Maximum requests per second of one token, or of one address without a token; 0 for no limit.
    pub rate: u32,
    /// Time in which the head of a request has to arrive.
    pub head_timeout: Duration,
    /// Time in which the body of a request has to arrive.
    pub body_timeout: Duration,
    /// Time after which an idle connection is closed.
    pub idle_timeout: Duration,
    /// Time after which a write is answered even if its guarantee does not hold yet.
    pub write_timeout: Duration,
    /// Time between the announcement of a stop by `/readyz` and the end of intake.
    pub drain: Duration,
}

/// Promise of an answer to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarantee {
    /// Counted in memory: lost if the process is killed before the next flush or tick of the journal.
    Memory,
    /// In the journal of the node: survives the end of the process and of the machine's power.
    Journal,
    /// In the store.
    Store,
}

impl Guarantee {
    /// All guarantees, the weakest first.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Journal, Self::Store];

    /// Returns the name, as configuration and requests have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Journal => "journal",
            Self::Store => "store",
        }
    }

    /// Finds a guarantee by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guarantee| guarantee.name() == name)
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 7070))],
            insecure: false,
            hosts: Vec::new(),
            tokens: None,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            guarantee: Guarantee::Journal,
            min_guarantee: Guarantee::Memory,
            max_guarantee: Guarantee::Store,
            max_body: 16 << 20,
            max_bodies: 256 << 20,
            max_items: 100_000,
            max_connections: 20_000,
            max_streams: 1_000,
            rate: 0,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            drain: Duration::ZERO,
        }
    }
}
