//! Exit codes.

use std::{fmt, io, process::ExitCode};

use clap::error::{ContextValue, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand};
use countem_config::similar;
use countem_engine::maintenance::MaintenanceError;
use countem_lines::DefinitionError;
use countem_query::{Answer, Counters, QueryError, ReadError};
use countem_store::{ErrorKind, StoreError};

use crate::output::{say, shown, without_codes};

/// Exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Ok = 0,
    /// Something failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// A collection, metric, file or journal does not exist.
    NotFound = 3,
    /// The store cannot be reached.
    Unreachable = 4,
    /// A part of the command was done.
    Partly = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// An error: the command line or the configuration is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(String);

/// An error: a collection, metric, file or journal does not exist.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotFound(String);

macro_rules! message {
    ($name:ident) => {
        impl $name {
            pub(crate) fn new(message: impl Into<String>) -> Self {
                Self(message.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::error::Error for $name {}
    };
}

impl From<DefinitionError> for UsageError {
    fn from(error: DefinitionError) -> Self {
        let near = match &error {
            DefinitionError::UnknownField { field, available } => {
                similar(field, available.iter().map(String::as_str))
            }
            _ => None,
        };
        let hint = near.map(|near| format!("; did you mean `{{{near}}}`?"));
        Self(format!("{error}{}", hint.unwrap_or_default()))
    }
}

message!(UsageError);
message!(NotFound);

/// Reports the counters without an exact value, and returns the exit code of a command that printed the others.
pub(crate) fn say_unreadable<'a>(collections: impl IntoIterator<Item = (&'a str, &'a Counters)>) -> Exit {
    let mut exit = Exit::Ok;
    for (collection, counters) in collections {
        for (metric, why) in counters.unreadable() {
            say(format_args!("countem: `{metric}` of `{collection}` cannot be read: {why}"));
            exit = Exit::Partly;
        }
    }
    exit
}

/// Reports the rows without an exact value, and returns the exit code of a command that printed the others.
pub(crate) fn say_unreadable_rows(answer: &Answer) -> Exit {
    let mut exit = Exit::Ok;
    for row in answer.all_rows() {
        let points = row.points.iter().filter_map(|(_, value)| value.as_ref());
        if let Some(why) =
            points.chain([&row.value]).chain(&row.earlier).find_map(|value| value.as_ref().err())
        {
            let name = if row.name.is_empty() { "the sum".to_owned() } else { format!("`{}`", row.name) };
            say(format_args!("countem: {name} of `{}` cannot be read: {why}", row.collection));
            exit = Exit::Partly;
        }
    }
    exit
}

/// Returns the error of a query; one that the command line has caused is a [`UsageError`].
pub(crate) fn query_error(error: QueryError) -> anyhow::Error {
    match error {
        QueryError::Read(error) => error.into(),
        error => UsageError::new(error.to_string()).into(),
    }
}

/// Prints the error of a command and returns its exit code. Output that is closed by its reader, such as `head`, is no
/// failure.
pub(crate) fn report(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Ok.into(),
        Err(error) => {
            match error.downcast_ref::<UsageError>() {
                // The problems of a configuration, one on a line.
                Some(error) => {
                    without_codes(&error.0).lines().for_each(|line| say(format_args!("countem: {line}")))
                }
                None => say(format_args!("countem: {}", without_codes(&format!("{error:#}")))),
            }
            exit_of(&error).into()
        }
    }
}

/// Prints the error of the command line on one line, or the help that was asked for, and ends the process. Arguments are shown escaped.
pub(crate) fn refuse(mut error: clap::Error) -> ! {
    if !error.use_stderr() || error.kind() == DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit()
    }
    let hidden = error.context().filter_map(|(kind, value)| match value {
        ContextValue::String(text) if shown(text) != *text => Some((kind, text.clone())),
        _ => None,
    });
    let hidden: Vec<_> = hidden.collect();
    for (kind, text) in &hidden {
        error.insert(*kind, ContextValue::String(shown(text)));
    }
    // The reason may repeat the value.
    let escaped = |whole: String, (_, text): &(_, String)| {
        whole.replace(&format!("`{text}`"), &format!("`{}`", shown(text)))
    };
    let whole = hidden.iter().fold(error.render().to_string(), escaped);
    say(format_args!("countem: {}", on_one_line(&whole)));
    std::process::exit(error.exit_code())
}

/// Puts the parts of an error of the command line, which are paragraphs, on one line.
fn on_one_line(error: &str) -> String {
    let mut paragraphs = error.trim().split("\n\n").map(|paragraph| {
        let mut lines = paragraph.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default().to_owned();
        lines.enumerate().fold(first, |text, (at, line)| text + if at == 0 { " " } else { ", " } + line)
    });
    let first = paragraphs.next().unwrap_or_default();
    let rest: Vec<_> = paragraphs.collect();
    let remedy = |prefix| {
        rest.iter().find_map(|text| text.strip_prefix(prefix)).map(|text| format!("{prefix}{text}; "))
    };
    let remedy = remedy("tip: ").or_else(|| remedy("Usage: ")).unwrap_or_default();
    let remedy = remedy.trim_start_matches("tip: ").replacen("Usage: ", "usage: ", 1);
    format!("{}; {remedy}`--help` tells more", first.trim_start_matches("error: "))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Returns the exit code of a command that failed with `error`.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        // These wrap a store's error transparently, which is then no link of the chain.
        let store_error = match (cause.downcast_ref(), cause.downcast_ref()) {
            (Some(ReadError::Store(error)), _) | (_, Some(MaintenanceError::Store(error))) => Some(error),
            _ => cause.downcast_ref::<StoreError>(),
        };
        if let Some(error) = store_error {
            return exit_of_kind(error.kind());
        } else if cause.is::<UsageError>() {
            return Exit::Usage;
        } else if cause.is::<NotFound>() {
            return Exit::NotFound;
        }
    }
    Exit::Failed
}

fn exit_of_kind(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::NotApplied | ErrorKind::InDoubt => Exit::Unreachable,
        // Another kind of store is needed.
        ErrorKind::Unsupported => Exit::Usage,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn error_of_the_command_line_is_one_line() {
        let missing = "error: the following required arguments were not provided:\n  <A>\n  <B>\n\nUsage: countem inc <A> <B>\n\nFor more information, try '--help'.\n";
        let text = "the following required arguments were not provided: <A>, <B>; usage: countem inc <A> <B>; `--help` tells more";
        assert_eq!(on_one_line(missing), text);
        let unknown = "error: unexpected argument '--peroid' found\n\n  tip: a similar argument exists: '--period'\n\nUsage: countem get\n\nFor more";
        let text = "unexpected argument '--peroid' found; a similar argument exists: '--period'; `--help` tells more";
        assert_eq!(on_one_line(unknown), text);
    }

    #[test]
    fn cause_decides_the_exit_code() {
        let of_error = |error: anyhow::Error| exit_of(&Err::<(), _>(error).context("outer").unwrap_err());
        assert_eq!(of_error(UsageError::new("x").into()), Exit::Usage);
        assert_eq!(of_error(NotFound::new("x").into()), Exit::NotFound);
        assert_eq!(of_error(StoreError::new(ErrorKind::NotApplied, "x").into()), Exit::Unreachable);
        assert_eq!(of_error(StoreError::new(ErrorKind::Refused, "x").into()), Exit::Failed);
        assert_eq!(of_error(StoreError::new(ErrorKind::Unsupported, "x").into()), Exit::Usage);
        let read = ReadError::Store(StoreError::new(ErrorKind::NotApplied, "x"));
        assert_eq!(of_error(read.into()), Exit::Unreachable);
        let sent = MaintenanceError::Store(StoreError::new(ErrorKind::InDoubt, "x"));
        assert_eq!(of_error(sent.into()), Exit::Unreachable);
        assert_eq!(of_error(anyhow::anyhow!("x")), Exit::Failed);
        assert!(is_broken_pipe(&io::Error::from(io::ErrorKind::BrokenPipe).into()));
    }
}
