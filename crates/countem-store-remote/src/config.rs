//! Configuration of a store.

use std::{fmt, path::PathBuf, time::Duration};

/// Configures the connection to another countem.
///
/// ```
/// use countem_store_remote::RemoteConfig;
///
/// let config = RemoteConfig { token: Some("hunter2".into()), ..RemoteConfig::new("counts.example:7070") };
/// assert!(!format!("{config:?}").contains("hunter2"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Host and port, such as `counts.example:7070` or `[::1]:7070`.
    pub host: String,
    /// Token that the other countem asks for.
    pub token: Option<String>,
    /// TLS; plain HTTP where there is none.
    pub tls: Option<TlsConfig>,
    /// Maximum duration of each part of a call: connecting, sending the request, waiting for the answer. Default: 10 seconds.
    pub timeout: Duration,
    /// Maximum duration of a whole call, in which a large answer has to arrive. Default: 60 seconds.
    pub total_timeout: Duration,
    /// Counters are read with what the other countem has pending, each count once. For readers alone: a writer and a correction need
    /// the counters as they are stored. Default: false.
    pub with_pending: bool,
}

/// Files for TLS, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Authorities that vouch for the other countem. Those that browsers know where there is none.
    pub ca: Option<PathBuf>,
    /// Certificate chain of this client, and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl RemoteConfig {
    /// Returns the default configuration for the countem at `host`.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            token: None,
            tls: None,
            timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(60),
            with_pending: false,
        }
    }

    /// Returns the URI of the store without its token.
    pub(crate) fn location(&self) -> String {
        let tls = if self.tls.is_some() { "?tls=true" } else { "" };
        format!("countem://{}{tls}", self.host)
    }
}

impl fmt::Debug for RemoteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, token, tls, timeout, total_timeout, with_pending } = self;
        f.debug_struct("RemoteConfig")
            .field("host", host)
            .field("token", &token.as_ref().map(|_| "****"))
            .field("tls", tls)
            .field("timeout", timeout)
            .field("total_timeout", total_timeout)
            .field("with_pending", with_pending)
            .finish()
    }
}
