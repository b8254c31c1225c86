//! The commands, one file each: flags, help and what they do.

mod all;
mod collections;
mod completions;
mod config;
mod doctor;
mod get;
mod inc;
mod ingest;
mod quarantine;
mod replay;
mod top;
mod when;

use std::{io, path::PathBuf};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::{exit::Exit, output::Format};

/// Count events, exactly once, and read the numbers back.
#[derive(Debug, Parser)]
#[command(name = "countem", version, arg_required_else_help = true, disable_help_subcommand = true, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

const AFTER: &str = "\
Examples:
  countem ingest access.log.gz --format combined --count 'web:{method} {status}'
  countem get web --date 2015-05-17
  countem inc jobs finished

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found,
4 store unreachable, 6 partly done";

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where counters live: sqlite://PATH, mongodb://HOST/DATABASE or memory:// [default: sqlite://countem.db]
    #[arg(long, global = true, value_name = "URI", env = "COUNTEM_STORE", hide_env_values = true)]
    pub(crate) store: Option<String>,
    /// How results are written: table, json, ndjson or csv
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
    /// Read this configuration file instead of `countem.toml` in the working directory
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one configuration key, as in `time.zone=Europe/Berlin`
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ingest(ingest::Ingest),
    Inc(inc::Inc),
    Get(get::Get),
    All(all::All),
    Top(top::Top),
    Collections(collections::Collections),
    Doctor(doctor::Doctor),
    Quarantine(quarantine::Quarantine),
    Replay(replay::Replay),
    Config(config::Config),
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// What kept it from being done; [`exit::report`](crate::exit::report) knows the exit code.
    pub(crate) fn run(self) -> Result<Exit> {
        self.global.start_log();
        match self.command {
            Command::Ingest(ingest) => ingest.run(&self.global),
            Command::Inc(inc) => inc.run(&self.global),
            Command::Get(get) => get.run(&self.global),
            Command::All(all) => all.run(&self.global),
            Command::Top(top) => top.run(&self.global),
            Command::Collections(collections) => collections.run(&self.global),
            Command::Doctor(doctor) => doctor.run(&self.global),
            Command::Quarantine(quarantine) => quarantine.run(&self.global),
            Command::Replay(replay) => replay.run(&self.global),
            Command::Config(config) => config.run(&self.global),
            Command::Completions(completions) => completions.run(),
        }
    }
}

impl Global {
    fn start_log(&self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (false, 0) => LevelFilter::WARN,
            (false, 1) => LevelFilter::INFO,
            (false, _) => LevelFilter::DEBUG,
        };
        let colours = io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
        tracing_subscriber::fmt().with_max_level(level).with_ansi(colours).with_writer(io::stderr).init();
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
