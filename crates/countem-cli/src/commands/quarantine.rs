//! `countem quarantine`

use std::io::{self, IsTerminal as _};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use countem_engine::maintenance::{
    RetryOutcome, drop_quarantined, held_by_store, release_held, retry_quarantined,
};
use countem_journal::{QuarantineEntry, Quarantined};
use countem_store::{Held, Release, Released};
use serde::Serialize;

use crate::{
    commands::journal::JournalFlag,
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
    ids: Vec<String>,
    /// All quarantined counts
    #[arg(long)]
    all: bool,
}

const AFTER: &str = "\
A count that its counter cannot take (the sum would leave the range of 64 bits, the
stored value is no number) waits in the journal of the process that counted it, or
without a journal in the store; the ids of the latter begin with `s`. For what is in
the journal, `retry` and `drop` need it for themselves: stop the process that counts
first.

`retry` sends the counts of the journal as a batch, after everything that an earlier
process has left there, and adds those of the store in the step in which they leave the
quarantine. However it ends, a count is in its counter once, or still in quarantine.
What still cannot be added stays there: exit code 6.

Examples:
  countem quarantine list
  countem quarantine retry 3 s0a1b2c3d4e5f
  countem quarantine drop --all --yes --journal /var/lib/countem/journal";

/// Quarantined counts.
struct Counts {
    in_journal: Vec<QuarantineEntry>,
    /// With their ids.
    in_store: Vec<(String, Held)>,
}

impl Quarantine {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let Self { action, journal: flag } = self;
        let effective = Effective::load(global)?;
        // Selected before the journal is opened for writing, which may quarantine counts that were never listed.
        let mut has_journal = true;
        let in_journal = match flag.read(&effective) {
            Ok(reader) => reader.quarantined()?,
            Err(error) if flag.journal.is_some() || effective.lacks_store() => return Err(error),
            Err(error) if error.is::<NotFound>() => {
                has_journal = false;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let (in_store, unread) = match read_held(&effective) {
            Ok(held) => (held, None),
            Err(error) if in_journal.is_empty() => return Err(error),
            Err(error) => (Vec::new(), Some(error)),
        };
        let counts = Counts { in_journal, in_store };
        let exit = match action {
            Action::List => {
                print_counts(&counts, global)?;
                Exit::Ok
            }
            Action::Retry(selected) => {
                // Also without an entry: a retry that was killed left its batch in the journal.
                let uses_journal = has_journal && selected.all;
                retry(selected.of(counts)?, uses_journal, &flag, &effective, global)?
            }
            Action::Drop { selected, yes } => {
                let Counts { in_journal, in_store } = selected.of(counts)?;
                if !yes && io::stdin().is_terminal() {
                    let advice = "add `--yes` if that is meant";
                    let count = in_journal.len() + in_store.len();
                    return Err(UsageError::new(format!(
                        "{count} counts would be given up for good: {advice}"
                    ))
                    .into());
                }
                let mut results = Results::new();
                if !in_journal.is_empty() {
                    let (journal, _recovered) = flag.open(&effective, flag.config(&effective))?;
                    let dropped = block_on(async { Ok(drop_quarantined(&in_journal, &journal).await?) })?;
                    dropped
                        .iter()
                        .for_each(|entry| results.push(&entry.id.to_string(), &entry.quarantined, "dropped"));
                }
                results.release(&effective, in_store, Release::Drop)?;
                results.print(global)?
            }
        };
        if let Some(error) = unread {
            say(format_args!("countem: what the store has in quarantine is not among them: {error:#}"));
            return Ok(Exit::Partly);
        }
        Ok(exit)
    }
}

/// Lists what the store has in quarantine.
fn read_held(effective: &Effective) -> Result<Vec<(String, Held)>> {
    if effective.lacks_store() {
        return Ok(Vec::new());
    }
    block_on(async { Ok(held_by_store(&*effective.open_for_reading().await?).await?) })
}

impl Selected {
    fn of(&self, mut counts: Counts) -> Result<Counts> {
        if self.all {
            return Ok(counts);
        }
        let is_journal = |entry: &QuarantineEntry, id: &String| entry.id.to_string() == *id;
        let is_known = |id: &&String| {
            counts.in_journal.iter().any(|entry| is_journal(entry, id))
                || counts.in_store.iter().any(|(known, _)| known == *id)
        };
        if let Some(id) = self.ids.iter().find(|id| !is_known(id)) {
            return Err(NotFound::new(format!("nothing is quarantined under the id {id}")).into());
        }
        counts.in_journal.retain(|entry| self.ids.iter().any(|id| is_journal(entry, id)));
        counts.in_store.retain(|(id, _)| self.ids.contains(id));
        Ok(counts)
    }
}

fn retry(
    counts: Counts,
    uses_journal: bool,
    flag: &JournalFlag,
    effective: &Effective,
    global: &Global,
) -> Result<Exit> {
    let Counts { in_journal, in_store } = counts;
    let mut results = Results::new();
    if uses_journal || !in_journal.is_empty() {
        let (journal, recovered) = flag.open(effective, flag.config(effective))?;
        let report = block_on(async {
            let store = effective.open().await?;
            let retried =
                retry_quarantined(in_journal, &journal, recovered, &*store, &effective.engine).await;
            retried.context("what is not in the store stays in the journal and is sent next time")
        })?;
        if report.quarantined_before > 0 {
            say(format_args!("{} counts of an earlier process were quarantined", report.quarantined_before));
        }
        for (entry, outcome) in &report.results {
            let text = match outcome {
                RetryOutcome::Stored => "stored".to_owned(),
                RetryOutcome::Kept => "still quarantined: with the others it leaves the range".to_owned(),
                RetryOutcome::QuarantinedAgain(reason) => format!("quarantined again: {reason}"),
            };
            results.is_partial |= *outcome != RetryOutcome::Stored;
            results.push(&entry.id.to_string(), &entry.quarantined, &text);
        }
    }
    results.release(effective, in_store, Release::Retry)?;
    results.print(global)
}

/// Outcome for selected counts.
struct Results {
    listing: Listing,
    is_partial: bool,
}

impl Results {
    fn new() -> Self {
        let listing = Listing::new(&["id", "collection", "metric", "bucket", "n", "result"]);
        Self { listing, is_partial: false }
    }

    fn push(&mut self, id: &str, count: &Quarantined, result: &str) {
        let Quarantined { collection, metric, bucket, n, .. } = count;
        let bucket = bucket.to_string();
        let texts = [collection.as_str(), metric.as_str(), bucket.as_str()].map(Cell::from);
        self.listing.push([vec![id.into()], texts.to_vec(), vec![(*n).into(), result.into()]].concat());
    }

    /// Releases counts of the store.
    fn release(&mut self, effective: &Effective, held: Vec<(String, Held)>, release: Release) -> Result<()> {
        if held.is_empty() {
            return Ok(());
        }
        let released = block_on(async { Ok(release_held(&*effective.open().await?, held, release).await?) })?;
        for (id, held, outcome) in released {
            let text = match (outcome, release) {
                (Released::Done, Release::Retry) => "stored".to_owned(),
                (Released::Done, Release::Drop) => "dropped".to_owned(),
                (Released::Gone, _) => "released by another process meanwhile".to_owned(),
                (Released::Kept(reason), _) => {
                    self.is_partial = true;
                    format!("still quarantined: {reason}")
                }
            };
            self.push(&id, &held.quarantined, &text);
        }
        Ok(())
    }

    fn print(&self, global: &Global) -> Result<Exit> {
        self.listing.print_as(global.output, "results")?;
        Ok(if self.is_partial { Exit::Partly } else { Exit::Ok })
    }
}

/// A quarantined count, as it is in JSON.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    id: &'a str,
    collection: &'a str,
    metric: &'a str,
    bucket: &'a str,
    n: i64,
    increments: u64,
    reason: &'a str,
    batch: Option<&'a str>,
    kept_in: &'static str,
}

#[derive(Debug, Serialize)]
struct Entries<'a> {
    quarantined: Vec<Entry<'a>>,
}

fn print_counts(counts: &Counts, global: &Global) -> Result<()> {
    let journal = counts.in_journal.iter().map(|QuarantineEntry { id, batch, quarantined }| {
        (id.to_string(), batch.as_ref().map(ToString::to_string), quarantined, "journal")
    });
    let store = counts
        .in_store
        .iter()
        .map(|(id, Held { batch, quarantined })| (id.clone(), Some(batch.to_string()), quarantined, "store"));
    let rows: Vec<_> = journal
        .chain(store)
        .map(|(id, batch, quarantined, kept_in)| {
            (id, batch, quarantined.bucket.to_string(), quarantined, kept_in)
        })
        .collect();
    let mut listing =
        Listing::new(&["id", "collection", "metric", "bucket", "n", "increments", "reason", "batch"]);
    let mut json = Entries { quarantined: Vec::new() };
    for (id, batch, bucket, quarantined, kept_in) in &rows {
        let Quarantined { collection, metric, n, increments, reason, .. } = quarantined;
        listing.push([
            id.as_str().into(),
            collection.as_str().into(),
            metric.as_str().into(),
            bucket.as_str().into(),
            (*n).into(),
            i64::try_from(*increments).unwrap_or(i64::MAX).into(),
            reason.as_str().into(),
            batch.as_deref().unwrap_or("-").into(),
        ]);
        json.quarantined.push(Entry {
            id,
            collection,
            metric,
            bucket,
            n: *n,
            increments: *increments,
            reason,
            batch: batch.as_deref(),
            kept_in,
        });
    }
    listing.print(global.output, &json)
}
