//! `countem serve`

mod demo;

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Args;
use countem_config::Config;
use countem_server::{ServeError, Serving};
use tempfile::TempDir;

use crate::{
    exit::{Exit, UsageError},
    global::Global,
    output::say,
};

/// Serve counting and reading over HTTP, until SIGTERM or Ctrl-C
#[derive(Debug, Clone, Args)]
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
    /// Show living sample traffic, with 30 days of history, in a temporary store
    #[arg(long)]
    demo: bool,
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
  countem serve --demo
  countem serve --store mongodb://db/countem --listen 0.0.0.0:7070 --insecure

Count one, and read it:
  curl -X POST localhost:7070/api/v1/counters/web/signup
  curl localhost:7070/api/v1/counters/web

Unless `durability.level` says otherwise the journal is on: what was acknowledged survives
kill -9. SIGHUP reads certificate and tokens again. `/openapi.json` describes the API.";

impl Serve {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let folder = self.demo_folder(global)?;
        let config = self.load(global, folder.as_ref().map(TempDir::path))?;
        let place = format!("store {}, guarantee {}", config.store_uri(), guarantee(&config));
        let is_quiet = global.quiet;
        let ready = |serving: &Serving<'_>| {
            let scheme = if serving.is_tls { "https" } else { "http" };
            let urls = serving.addresses.iter().map(|address| format!("{scheme}://{address}/api/v1"));
            let urls: Vec<_> = urls.collect();
            if !is_quiet {
                say(format_args!("countem: serving {}; {place}", urls.join(", ")));
            }
            let url = urls.into_iter().next().filter(|_| folder.is_some())?;
            let traffic = demo::Traffic::start(serving.collector.clone(), url);
            traffic.inspect_err(|error| say(format_args!("countem: no traffic: {error}"))).ok()
        };
        let again = (self.clone(), global.clone(), folder.as_ref().map(|folder| folder.path().to_owned()));
        let reload = move || again.0.load(&again.1, again.2.as_deref()).map_err(|error| error.to_string());
        let served = countem_server::run(config, reload, ready);
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

    /// Makes the folder of the store of a demo.
    fn demo_folder(&self, global: &Global) -> Result<Option<TempDir>> {
        if !self.demo {
            return Ok(None);
        }
        if global.has_store() {
            let why = "`--demo` has a temporary store of its own: leave `--store` out";
            return Err(UsageError::new(why).into());
        }
        let folder = TempDir::with_prefix("countem-demo-").context("cannot make a temporary folder")?;
        Ok(Some(folder))
    }

    fn load(&self, global: &Global, demo: Option<&Path>) -> Result<Config, UsageError> {
        let mut flags = demo.map(demo::settings).into_iter().flatten().collect::<Vec<_>>();
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
