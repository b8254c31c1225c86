//! `countem config`

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;

use crate::{exit::Exit, global::Global, output::Format};

/// Print the configuration in effect
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Config {
    /// Only check it
    #[arg(long, conflicts_with = "default")]
    check: bool,
    /// Print the defaults instead, every key explained
    #[arg(long)]
    default: bool,
}

const AFTER: &str = "\
Values come from the defaults, `countem.toml` or `--config FILE`, environment variables such as
COUNTEM__FLUSH__INTERVAL, and flags; the last of these wins. Passwords are not shown. The output is TOML with the origin of
each value, or JSON with `-o json`.

Examples:
  countem config --default > countem.toml
  countem config --check --config /etc/countem.toml";

impl Config {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        if self.default {
            io::stdout().write_all(countem_config::Config::default_toml().as_bytes())?;
            return Ok(Exit::Ok);
        }
        let config = global.load_config()?;
        if !self.check {
            let text = match global.output {
                Format::Json => format!("{:#}\n", serde_json::to_value(&config)?),
                Format::Ndjson => format!("{}\n", serde_json::to_value(&config)?),
                Format::Table | Format::Csv | Format::CsvSafe | Format::OpenMetrics => config.to_toml(),
            };
            io::stdout().write_all(text.as_bytes())?;
        } else if !global.quiet {
            let file =
                config.file().map_or_else(|| "no file".to_owned(), |file| format!("`{}`", file.display()));
            writeln!(io::stdout(), "configuration is good ({file})")?;
        }
        Ok(Exit::Ok)
    }
}
