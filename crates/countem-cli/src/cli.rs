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
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};
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
    /// Count the lines of files, plain or gzip
    Ingest(Deferred<ingest::Ingest>),
    /// Add to one counter
    Inc(Deferred<inc::Inc>),
    /// Read the counters of a collection
    Get(Deferred<get::Get>),
    /// Read the counters of every collection
    All(Deferred<all::All>),
    /// Read the largest counters of a collection
    Top(Deferred<top::Top>),
    /// List the collections that hold a counter
    Collections(Deferred<collections::Collections>),
    /// Check the configuration, the store and the journal
    Doctor(Deferred<doctor::Doctor>),
    /// Look at counts that could not be added to their counter, and decide about them
    Quarantine(Deferred<quarantine::Quarantine>),
    /// Send stored batches again, to a store that was restored to an older point
    Replay(Deferred<replay::Replay>),
    /// Print the configuration in effect
    Config(Deferred<config::Config>),
    /// Print the completions of a shell
    Completions(Deferred<completions::Completions>),
}

/// What a command is told, described when it is the command that was asked for: describing all of them takes a sixth of the
/// time of a process that counts once.
#[derive(Debug)]
struct Deferred<T>(T);

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(T::augment_args)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command.defer(T::augment_args_for_update)
    }
}

impl<T: FromArgMatches> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// What kept it from being done; [`exit::report`](crate::exit::report) knows the exit code.
    pub(crate) fn run(self) -> Result<Exit> {
        self.global.start_log();
        match self.command {
            Command::Ingest(ingest) => ingest.0.run(&self.global),
            Command::Inc(inc) => inc.0.run(&self.global),
            Command::Get(get) => get.0.run(&self.global),
            Command::All(all) => all.0.run(&self.global),
            Command::Top(top) => top.0.run(&self.global),
            Command::Collections(collections) => collections.0.run(&self.global),
            Command::Doctor(doctor) => doctor.0.run(&self.global),
            Command::Quarantine(quarantine) => quarantine.0.run(&self.global),
            Command::Replay(replay) => replay.0.run(&self.global),
            Command::Config(config) => config.0.run(&self.global),
            Command::Completions(completions) => completions.0.run(),
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
