//! `countem quarantine`

use std::io::{self, IsTerminal as _};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use countem_engine::maintenance::{RetryOutcome, drop_quarantined, retry_quarantined};
use countem_journal::{QuarantineEntry, Quarantined};
use serde::Serialize;

use crate::{
    cli::journal::JournalFlag,
    exit::{Exit, NotFound, UsageError},
    global::Global,
    output::{Cell, Listing, say},
    store::{Effective, block_on},
};

/// List, retry or drop counts that could not be added to their counter
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Quarantine {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    journal: JournalFlag,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them, also beside a running process
    List,
    /// Add them to their counters once more
    Retry(Selected),
    /// Give them up for good
    Drop {
        #[command(flatten)]
        selected: Selected,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Flags that select quarantined counts.
#[derive(Debug, Args)]
struct Selected {
    /// The ids, as `list` shows them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<i64>,
    /// All quarantined counts
    #[arg(long)]
    all: bool,
}

const AFTER: &str = "\
A count that its counter cannot take (the sum would leave the range of 64 bits, the
stored value is no number) waits in the journal. `retry` and `drop` need the journal
for themselves: stop the process that counts first.

`retry` sends the counts as a batch of the journal, after everything that an earlier
process has left there. However it ends, a count is in the store once, or still in the
journal. What still cannot be added is quarantined again: exit code 6.

Examples:
  countem quarantine list
  countem quarantine retry 3 4
  countem quarantine drop --all --yes --journal /var/lib/countem/journal";

impl Quarantine {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let Self { action, journal: flag } = self;
        let effective = Effective::load(global)?;
        // Selected before the journal is opened for writing, which may quarantine counts that were never listed.
        let entries = flag.read(&effective)?.quarantined()?;
        match action {
            Action::List => {
                print_entries(&entries, global)?;
                Ok(Exit::Ok)
            }
            Action::Retry(selected) => retry(selected.of(entries)?, &flag, &effective, global),
            Action::Drop { selected, yes } => {
                let selected = selected.of(entries)?;
                if !yes && io::stdin().is_terminal() {
                    let advice = "add `--yes` if that is meant";
                    let text = format!("{} counts would be given up for good: {advice}", selected.len());
                    return Err(UsageError::new(text).into());
                }
                let (journal, _recovered) = flag.open(&effective, flag.config(&effective))?;
                let dropped = block_on(async { Ok(drop_quarantined(&selected, &journal).await?) })?;
                print_results(dropped.iter().map(|entry| (entry, "dropped".to_owned())), global)?;
                Ok(Exit::Ok)
            }
        }
    }
}

impl Selected {
    fn of(&self, mut entries: Vec<QuarantineEntry>) -> Result<Vec<QuarantineEntry>> {
        if self.all {
            return Ok(entries);
        }
        if let Some(id) = self.ids.iter().find(|id| entries.iter().all(|entry| entry.id != **id)) {
            return Err(NotFound::new(format!("nothing is quarantined under the id {id}")).into());
        }
        entries.retain(|entry| self.ids.contains(&entry.id));
        Ok(entries)
    }
}

fn retry(
    entries: Vec<QuarantineEntry>,
    flag: &JournalFlag,
    effective: &Effective,
    global: &Global,
) -> Result<Exit> {
    let (journal, recovered) = flag.open(effective, flag.config(effective))?;
    let report = block_on(async {
        let store = effective.open().await?;
        let retried = retry_quarantined(entries, &journal, recovered, &*store, &effective.engine).await;
        retried.context("what is not in the store stays in the journal and is sent next time")
    })?;
    if report.quarantined_before > 0 {
        say(format_args!("{} counts of an earlier process were quarantined", report.quarantined_before));
    }
    let text = |outcome: &RetryOutcome| match outcome {
        RetryOutcome::Stored => "stored".to_owned(),
        RetryOutcome::Kept => "still quarantined: with the others it leaves the range".to_owned(),
        RetryOutcome::QuarantinedAgain(reason) => format!("quarantined again: {reason}"),
    };
    print_results(report.results.iter().map(|(entry, outcome)| (entry, text(outcome))), global)?;
    let is_stored = report.results.iter().all(|(_, outcome)| *outcome == RetryOutcome::Stored);
    Ok(if is_stored { Exit::Ok } else { Exit::Partly })
}

/// A quarantined count, as it is in JSON.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    id: i64,
    collection: &'a str,
    metric: &'a str,
    bucket: String,
    n: i64,
    increments: u64,
    reason: &'a str,
    batch: Option<String>,
}

#[derive(Debug, Serialize)]
struct Entries<'a> {
    quarantined: Vec<Entry<'a>>,
}

fn print_entries(entries: &[QuarantineEntry], global: &Global) -> Result<()> {
    let mut listing =
        Listing::new(&["id", "collection", "metric", "bucket", "n", "increments", "reason", "batch"]);
    let mut json = Entries { quarantined: Vec::new() };
    for QuarantineEntry { id, batch, quarantined } in entries {
        let Quarantined { collection, metric, bucket, n, increments, reason } = quarantined;
        let (bucket, batch) = (bucket.to_string(), batch.as_ref().map(ToString::to_string));
        listing.push([
            (*id).into(),
            collection.as_str().into(),
            metric.as_str().into(),
            bucket.as_str().into(),
            (*n).into(),
            i64::try_from(*increments).unwrap_or(i64::MAX).into(),
            reason.as_str().into(),
            batch.as_deref().unwrap_or("-").into(),
        ]);
        json.quarantined.push(Entry {
            id: *id,
            collection,
            metric,
            bucket,
            n: *n,
            increments: *increments,
            reason,
            batch,
        });
    }
    listing.print(global.output, &json)
}

fn print_results<'a>(
    results: impl IntoIterator<Item = (&'a QuarantineEntry, String)>,
    global: &Global,
) -> Result<()> {
    let mut listing = Listing::new(&["id", "collection", "metric", "bucket", "n", "result"]);
    for (QuarantineEntry { id, quarantined, .. }, result) in results {
        let Quarantined { collection, metric, bucket, n, .. } = quarantined;
        listing.push([
            Cell::Number(*id),
            collection.as_str().into(),
            metric.as_str().into(),
            bucket.to_string().as_str().into(),
            (*n).into(),
            result.as_str().into(),
        ]);
    }
    listing.print_as(global.output, "results")
}
