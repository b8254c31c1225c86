//! `countem serve`

use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use countem_config::Config;
use countem_server::ServeError;

use crate::{
    exit::{Exit, UsageError},
    global::Global,
    output::say,
};

/// Serve counting and reading over HTTP, until SIGTERM or Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Serve {
    /// Listen on this address; may be repeated [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Serve other machines without tokens or without TLS, where a proxy or the network keeps strangers out
    #[arg(long)]
    insecure: bool,
    /// Form of the log on standard error
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(super) log: LogForm,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogForm {
    /// Lines for people
    Text,
    /// JSON objects, one on each line
    Json,
}

const AFTER: &str = "\
Examples:
  countem serve
  countem serve --store mongodb://db/countem --listen 0.0.0.0:7070 --insecure

Count one, and read it:
  curl -X POST localhost:7070/api/v1/counters/web/signup
  curl localhost:7070/api/v1/counters/web

Unless `durability.level` says otherwise the journal is on: what was acknowledged survives
kill -9. SIGHUP reads certificate and tokens again. `/openapi.json` describes the API.";

impl Serve {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let config = self.load(global)?;
        let place = format!("store {}, guarantee {}", config.store_uri(), guarantee(&config));
        let again = (self, global.clone());
        let is_quiet = global.quiet;
        let served = countem_server::run(
            config,
            move || again.0.load(&again.1).map_err(|error| error.to_string()),
            |addresses, is_tls| {
                let scheme = if is_tls { "https" } else { "http" };
                let urls: Vec<_> = addresses
                    .iter()
                    .map(|address: &SocketAddr| format!("{scheme}://{address}/api/v1"))
                    .collect();
                if !is_quiet {
                    say(format_args!("countem: serving {}; {place}", urls.join(", ")));
                }
            },
        );
        let report = match served {
            Ok(served) => served.report,
            Err(ServeError::Config(why)) => return Err(UsageError::new(why).into()),
            Err(ServeError::Store(error)) => return Err(error.into()),
            Err(error) => return Err(error.into()),
        };
        if !global.quiet {
            say(format_args!("countem: stopped: {report}"));
        }
        Ok(match report {
            _ if report.is_complete() => Exit::Ok,
            _ if report.dropped + report.in_doubt > 0 => Exit::Failed,
            _ => Exit::Partly,
        })
    }

    fn load(&self, global: &Global) -> Result<Config, UsageError> {
        let mut flags = Vec::new();
        if !self.listen.is_empty() {
            flags.push(("--listen", "server.listen", self.listen.join(",")));
        }
        if self.insecure {
            flags.push(("--insecure", "server.insecure", "true".to_owned()));
        }
        let mut config = global.load_config_with(&flags)?;
        config.journal_by_default();
        Ok(config)
    }
}

fn guarantee(config: &Config) -> &'static str {
    let default = config.server().guarantee;
    let has_journal = config.durability().level == countem_config::DurabilityLevel::Journal;
    match default {
        countem_config::Guarantee::Journal if !has_journal => countem_config::Guarantee::Memory.name(),
        default => default.name(),
    }
}
