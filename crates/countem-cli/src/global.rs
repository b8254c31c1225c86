//! Flags of every command.

use std::{io, path::PathBuf};

use clap::Args;
use countem_config::{Config, Sources};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{exit::UsageError, output::Format};

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Address of the store: sqlite://PATH, mongodb://HOST/DATABASE, countem://HOST (its token in COUNTEM_TOKEN) or memory:// [env: COUNTEM_STORE] [default: sqlite://countem.db]
    #[arg(long, global = true, value_name = "URI")]
    store: Option<String>,
    /// Format of results: table, json, ndjson or csv
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        hide_possible_values = true
    )]
    pub(crate) output: Format,
    /// In CSV, begin text that a spreadsheet would take for a formula with `'`: text with `=`, `+`, `-`, `@`, a tab or CR in front
    #[arg(long, global = true)]
    pub(crate) csv_safe: bool,
    /// Read this configuration file instead of `countem.toml` in the working directory
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one configuration key, as in `time.zone=Europe/Berlin`
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Log more; twice for debug messages
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Global {
    /// Lists the keys that `--set` sets.
    pub(crate) fn set_keys(&self) -> impl Iterator<Item = &str> {
        self.set.iter().filter_map(|assignment| Some(assignment.split_once('=')?.0.trim()))
    }

    /// Tells whether a flag names the store.
    pub(crate) fn has_store(&self) -> bool {
        self.store.is_some() || self.set_keys().any(|key| key == "store.uri")
    }

    /// Starts logging to standard error.
    pub(crate) fn start_log(&self) {
        tracing_subscriber::fmt()
            .with_max_level(self.level(LevelFilter::WARN))
            .with_ansi(has_colours())
            .with_writer(io::stderr)
            .init();
    }

    /// Starts the log of a service on standard error.
    pub(crate) fn start_service_log(&self, is_json: bool) {
        let level = self.level(LevelFilter::INFO);
        // What the HTTP library says at its start says nothing to users.
        let shown =
            Targets::new().with_default(level).with_target("actix_server", level.min(LevelFilter::WARN));
        let log = tracing_subscriber::fmt::layer().with_ansi(has_colours()).with_writer(io::stderr);
        if is_json {
            tracing_subscriber::registry().with(log.json().flatten_event(true).with_filter(shown)).init();
        } else {
            tracing_subscriber::registry().with(log.with_filter(shown)).init();
        }
    }

    fn level(&self, usual: LevelFilter) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => usual,
            (false, 1) if usual < LevelFilter::INFO => LevelFilter::INFO,
            (false, _) => LevelFilter::DEBUG,
        }
    }

    /// Chooses the variant of the format that `--csv-safe` asks for, which may be that of the input.
    ///
    /// # Errors
    /// The format is another one.
    pub(crate) fn settle_format(&mut self, reads_csv: bool) -> Result<(), UsageError> {
        match self.output {
            Format::Csv if self.csv_safe => self.output = Format::CsvSafe,
            _ if self.csv_safe && !reads_csv => {
                return Err(UsageError::new("`--csv-safe` is for CSV: add `-o csv`"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Loads the configuration: defaults, file, environment, flags.
    ///
    /// # Errors
    /// All problems of the configuration, line by line.
    pub(crate) fn load_config(&self) -> Result<Config, UsageError> {
        self.load_config_with(&[])
    }

    /// Loads the configuration with further flags, each with its key and value.
    ///
    /// # Errors
    /// All problems of the configuration, line by line.
    pub(crate) fn load_config_with(&self, flags: &[(&str, &str, String)]) -> Result<Config, UsageError> {
        let mut sources = Sources::of_process();
        if let Some(file) = &self.config {
            sources = sources.file(file);
        }
        for assignment in &self.set {
            sources = sources.assignment("--set", assignment);
        }
        if let Some(uri) = &self.store {
            sources = sources.flag("--store", "store.uri", uri);
        }
        for (flag, key, value) in flags {
            sources = sources.flag(flag, key, value);
        }
        Config::load(&sources).map_err(|error| UsageError::new(error.to_string()))
    }
}

fn has_colours() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
