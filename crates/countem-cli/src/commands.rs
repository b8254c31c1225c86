//! The commands, one file each: flags, help and action.

mod adopt;
mod all;
mod backup;
mod bucket;
mod collections;
mod completions;
mod config;
mod copy;
mod correct;
mod correction;
mod delete;
mod doctor;
mod export;
mod forget;
mod get;
mod health;
mod history;
mod import;
mod inc;
mod ingest;
mod journal;
mod man;
mod marks;
mod merge;
mod quarantine;
mod rename;
mod replay;
mod select;
mod series;
mod serve;
mod token;
mod top;

use std::{
    fmt::Display,
    io::{self, Write as _},
    num::{IntErrorKind, NonZeroUsize, ParseIntError},
};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    exit::{Exit, UsageError},
    global::Global,
    output::{Format, say},
};

/// Count events, exactly once, and read the numbers back.
#[derive(Debug, Parser)]
#[command(name = "countem", version, arg_required_else_help = true, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

const AFTER: &str = "\
Examples:
  countem serve
  countem ingest access.log.gz --format combined --count 'web:{method} {status}'
  countem get web --date 2015-05-17
  countem inc jobs finished

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found,
4 store unreachable, 6 partly done";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Ingest(ingest::Ingest),
    Inc(inc::Inc),
    Get(get::Get),
    All(all::All),
    Top(top::Top),
    Series(series::Series),
    Collections(collections::Collections),
    Export(export::Export),
    Import(import::Import),
    Copy(copy::Copy),
    Backup(backup::Backup),
    Correct(correct::Correct),
    Rename(rename::Rename),
    Merge(merge::Merge),
    Delete(delete::Delete),
    History(history::History),
    Marks(marks::Marks),
    Forget(forget::Forget),
    Doctor(doctor::Doctor),
    Quarantine(quarantine::Quarantine),
    Replay(replay::Replay),
    Adopt(adopt::Adopt),
    Token(token::TokenCommand),
    Health(health::Health),
    Config(config::Config),
    Completions(completions::Completions),
    Man(man::Man),
    /// Print the version
    Version,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// The failure of the command; [`exit::report`](crate::exit::report) chooses the exit code.
    pub(crate) fn run(mut self) -> Result<Exit> {
        match &self.command {
            Command::Serve(serve) => self.global.start_service_log(serve.log == serve::LogForm::Json),
            _ => self.global.start_log(),
        }
        self.global.settle_format(matches!(self.command, Command::Import(_)))?;
        if self.global.output == Format::OpenMetrics && !matches!(self.command, Command::Export(_)) {
            return Err(UsageError::new("`-o openmetrics` is for `countem export`").into());
        }
        self.say_unused();
        match self.command {
            Command::Serve(serve) => serve.run(&self.global),
            Command::Ingest(ingest) => ingest.run(&self.global),
            Command::Inc(inc) => inc.run(&self.global),
            Command::Get(get) => get.run(&self.global),
            Command::All(all) => all.run(&self.global),
            Command::Top(top) => top.run(&self.global),
            Command::Series(series) => series.run(&self.global),
            Command::Collections(collections) => collections.run(&self.global),
            Command::Export(export) => export.run(&self.global),
            Command::Import(import) => import.run(&self.global),
            Command::Copy(copy) => copy.run(&self.global),
            Command::Backup(backup) => backup.run(&self.global),
            Command::Correct(correct) => correct.run(&self.global),
            Command::Rename(rename) => rename.run(&self.global),
            Command::Merge(merge) => merge.run(&self.global),
            Command::Delete(delete) => delete.run(&self.global),
            Command::History(history) => history.run(&self.global),
            Command::Marks(marks) => marks.run(&self.global),
            Command::Forget(forget) => forget.run(&self.global),
            Command::Doctor(doctor) => doctor.run(&self.global),
            Command::Quarantine(quarantine) => quarantine.run(&self.global),
            Command::Replay(replay) => replay.run(&self.global),
            Command::Adopt(adopt) => adopt.run(&self.global),
            Command::Token(token) => token.run(&self.global),
            Command::Health(health) => health.run(&self.global),
            Command::Config(config) => config.run(&self.global),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
            Command::Version => {
                writeln!(io::stdout(), "countem {}", env!("CARGO_PKG_VERSION"))?;
                Ok(Exit::Ok)
            }
        }
    }
}

impl Cli {
    /// Names the keys that were set for this command and have no effect on it, because only a service counts by them.
    fn say_unused(&self) {
        let of_services: &[&str] = match self.command {
            Command::Serve(_)
            | Command::Token(_)
            | Command::Health(_)
            | Command::Config(_)
            | Command::Completions(_)
            | Command::Man(_)
            | Command::Version => &[],
            Command::Doctor(_) | Command::Quarantine(_) | Command::Replay(_) => &["collectors", "limits"],
            _ => &["collectors", "limits", "durability"],
        };
        for key in self.global.set_keys() {
            let is_unused = key.split('.').next().is_some_and(|section| of_services.contains(&section));
            if is_unused && !self.global.quiet {
                say(format_args!("countem: `--set {key}` has no effect here: services count by it"));
            }
        }
    }
}

/// Parses a whole number, and says which are allowed.
fn whole_number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error| not_a_number(&error, i64::MIN, i64::MAX))
}

/// Parses a number of things, and says which are allowed.
fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|error| not_a_number(&error, 1, usize::MAX))
}

fn not_a_number<T: Display>(error: &ParseIntError, min: T, max: T) -> String {
    let why = match error.kind() {
        IntErrorKind::PosOverflow => "too large: ",
        IntErrorKind::NegOverflow => "too small: ",
        _ => "",
    };
    format!("{why}expected a whole number from {min} to {max}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
