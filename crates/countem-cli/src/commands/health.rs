//! `countem health`

use std::{
    io::{self, Write as _},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use countem_config::{ServerConfig, duration};
use rustls::crypto::ring;
use ureq::{Agent, tls::TlsConfig};

use crate::{exit::Exit, global::Global};

/// Ask a server whether it may get requests; the exit code is 0 if so, else 1
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Health {
    /// The server, or one of its paths [default: the `/readyz` of the server of the configuration]
    url: Option<String>,
    /// Wait no longer for the answer
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    timeout: Duration,
}

const AFTER: &str = "\
Examples:
  countem health
  countem health https://counters.example.org
  countem health http://localhost:7070/healthz   # alive, even if it should get no requests

It sends no token, so it asks servers with any certificate. It is the health check of the
container image, where no other program is.";

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "expected a time such as 3s".to_owned())
}

impl Health {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let url = match self.url {
            Some(url) => with_path(url),
            None => own_url(global.load_config()?.server()),
        };
        // Nothing secret is sent, and the server's own certificate may not be for the address by which this machine reaches it.
        let tls = TlsConfig::builder()
            .disable_verification(true)
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build();
        let agent: Agent = Agent::config_builder()
            .timeout_global(Some(self.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(tls)
            .build()
            .into();
        let mut answer = agent.get(&url).call().with_context(|| format!("no answer from {url}"))?;
        if answer.status() != 200 {
            let why = answer.body_mut().read_to_string().unwrap_or_default();
            bail!("{url}: {}: {}", answer.status(), why.trim());
        }
        if !global.quiet {
            writeln!(io::stdout(), "ok")?;
        }
        Ok(Exit::Ok)
    }
}

/// Returns the URL to ask of a server that is started with this configuration.
fn own_url(server: &ServerConfig) -> String {
    let scheme = if server.tls_cert.is_some() { "https" } else { "http" };
    let Some(mut address) = server.listen.first().copied() else {
        return format!("{scheme}://localhost:7070/readyz");
    };
    // Every address of the machine, and so also this one.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip([127, 0, 0, 1].into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip([0, 0, 0, 0, 0, 0, 0, 1].into()),
        _ => {}
    }
    format!("{scheme}://{address}/readyz")
}

/// Adds the scheme and the path that are left out.
fn with_path(url: String) -> String {
    let url = if url.contains("://") { url } else { format!("http://{url}") };
    let after = url.split_once("://").map_or("", |(_, after)| after);
    match after.split_once('/') {
        None => format!("{url}/readyz"),
        Some((_, "")) => format!("{url}readyz"),
        Some(_) => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_readyz_unless_given() {
        for (given, asked) in [
            ("localhost:7070", "http://localhost:7070/readyz"),
            ("https://a.example/", "https://a.example/readyz"),
            ("http://[::1]:7070/healthz", "http://[::1]:7070/healthz"),
        ] {
            assert_eq!(with_path(given.to_owned()), asked);
        }
    }

    #[test]
    fn own_server_is_asked_on_loopback() {
        let mut server = ServerConfig::default();
        assert_eq!(own_url(&server), "http://127.0.0.1:7070/readyz");
        server.listen = vec![([0, 0, 0, 0], 80).into()];
        assert_eq!(own_url(&server), "http://127.0.0.1:80/readyz");
        server.listen = vec!["[::]:7071".parse().unwrap()];
        server.tls_cert = Some("cert.pem".into());
        assert_eq!(own_url(&server), "https://[::1]:7071/readyz");
    }
}
