//! Flags and results of the commands that correct stored counts.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use countem_engine::{Correction, CorrectionEntry, CorrectionError, CorrectionPreview, Corrections};
use countem_store::Store;
use jiff::Timestamp;
use serde_json::json;

use crate::{
    exit::{Exit, NotFound, UsageError},
    global::Global,
    output::{Cell, Format, Listing, plural, say, shown},
    store::{Effective, block_on},
};

/// Maximum length of a reason or the name of an author, in characters.
const MAX_TEXT: usize = 2000;

/// Flags of every correction.
#[derive(Debug, Args)]
pub(crate) struct CorrectionFlags {
    /// The reason, which `countem history` shows
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The author, which `countem history` shows [default: the user of this process]
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Show the counters before and after, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl CorrectionFlags {
    /// Returns true if nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Makes the correction that `correction` returns for the store and the present moment, or shows it.
    ///
    /// # Errors
    /// A [`UsageError`]: reason or author is missing, or the correction has no exact result. [`NotFound`]: there is no such counter.
    pub(crate) fn run(
        &self,
        global: &Global,
        correction: impl AsyncFnOnce(Arc<dyn Store>, &Effective, Timestamp) -> Result<Correction>,
    ) -> Result<Exit> {
        let words = if self.dry_run { None } else { Some(self.words()?) };
        let effective = Effective::load(global)?;
        effective.require_store()?;
        block_on(async {
            let store = match self.dry_run {
                true => effective.open_for_reading().await?,
                false => effective.open().await?,
            };
            let now = Timestamp::now();
            let correction = correction(Arc::clone(&store), &effective, now).await?;
            let corrections = Corrections::new(store, Arc::clone(&effective.schedules));
            let Some((author, reason)) = words else {
                return show(&corrections.preview(&correction, now).await.map_err(explained)?, global);
            };
            let corrected =
                corrections.correct(&correction, &author, &reason, now).await.map_err(explained)?;
            print_entries(std::slice::from_ref(&corrected.entry), global, true)?;
            for counter in &corrected.quarantined {
                say(format_args!(
                    "countem: {} could not be added to `{}` in {} ({}): `countem quarantine` lists it",
                    counter.n, counter.metric, counter.bucket, counter.reason
                ));
            }
            Ok(if corrected.quarantined.is_empty() { Exit::Ok } else { Exit::Partly })
        })
    }

    /// Returns author and reason.
    fn words(&self) -> Result<(String, String), UsageError> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let reason = given(&self.reason).ok_or_else(|| {
            UsageError::new(
                "a correction needs a reason: add `--reason TEXT`, or `--dry-run` to change nothing",
            )
        })?;
        let author = given(&self.author).or_else(user).ok_or_else(|| {
            UsageError::new("a correction needs an author, and the user of this process is not known: add `--author NAME`")
        })?;
        for (flag, text) in [("--reason", &reason), ("--author", &author)] {
            if text.chars().count() > MAX_TEXT {
                return Err(UsageError::new(format!(
                    "the text of `{flag}` is longer than {MAX_TEXT} characters"
                )));
            }
        }
        Ok((author, reason))
    }
}

/// Returns the name of the user of this process.
pub(crate) fn user() -> Option<String> {
    let given = |name: &&str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    ["USER", "LOGNAME"].iter().find_map(given)
}

/// Returns the error of a correction as one of the command.
pub(crate) fn explained(error: CorrectionError) -> anyhow::Error {
    match error {
        CorrectionError::Refused(_) => UsageError::new(error.to_string()).into(),
        CorrectionError::NotFound(why) => NotFound::new(why).into(),
        error => error.into(),
    }
}

/// Prints the counters before and after a correction.
fn show(preview: &CorrectionPreview, global: &Global) -> Result<Exit> {
    let mut listing = Listing::new(&["bucket", "metric", "before", "after"]);
    let cell = |value: Option<i64>| value.map_or(Cell::Empty, Cell::Number);
    for row in &preview.rows {
        let bucket = row.bucket.to_string();
        listing.push([bucket.as_str().into(), row.metric.as_str().into(), cell(row.before), cell(row.after)]);
    }
    listing.print_as(global.output, "changes")?;
    if !global.quiet {
        let more = if preview.has_more {
            format!("; these are the first {}", plural(preview.rows.len() as u64, "row"))
        } else {
            String::new()
        };
        let what = &preview.entry;
        say(format_args!("countem: would {what}: {}{more}", plural(what.counters, "counter")));
    }
    Ok(Exit::Ok)
}

/// Prints entries of the log: a line each if one was just made, and the format is that for people.
pub(crate) fn print_entries(entries: &[CorrectionEntry], global: &Global, is_new: bool) -> Result<()> {
    if is_new && global.output == Format::Table {
        for entry in entries.iter().filter(|_| !global.quiet) {
            let (id, counters) = (&entry.id, plural(entry.counters, "counter"));
            println_shown(&format!("{entry}: {counters} ({id})"))?;
        }
        return Ok(());
    }
    let columns =
        ["id", "at", "author", "correction", "counters", "amount", "before", "after", "state", "reason"];
    let mut listing = Listing::new(&columns);
    let number = |value: Option<i64>| value.map_or(Cell::Empty, Cell::Number);
    for entry in entries {
        listing.push([
            entry.id.as_str().into(),
            entry.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().as_str().into(),
            entry.author.as_str().into(),
            entry.to_string().as_str().into(),
            i64::try_from(entry.counters).unwrap_or(i64::MAX).into(),
            number(entry.amount),
            number(entry.before),
            number(entry.after),
            if entry.is_finished { "done" } else { "unfinished" }.into(),
            entry.reason.as_str().into(),
        ]);
    }
    let objects: Vec<_> = entries.iter().map(object).collect();
    listing.print(global.output, &json!({ "corrections": objects }))
}

fn object(entry: &CorrectionEntry) -> serde_json::Value {
    let mut object = serde_json::to_value(entry).unwrap_or_default();
    object["state"] = if entry.is_finished { "done" } else { "unfinished" }.into();
    object
}

fn println_shown(line: &str) -> Result<()> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout(), "{}", shown(line))?)
}
