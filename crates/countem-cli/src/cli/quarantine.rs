//! `countem quarantine`

use std::sync::Arc;

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use countem::journal::{Journal, QuarantineEntry, Recovered, Selection};
use countem_core::Bucket;
use countem_store::{Quarantined, Registration, Store};
use serde::Serialize;

use crate::{
    cli::Global,
    exit::{Exit, NotFound, UsageError},
    journal::{self, JournalFlag},
    output::{Cell, Listing, say},
    store::{Effective, block_on},
};

/// Look at counts that could not be added to their counter, and decide about them
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
    Retry(Which),
    /// Give them up for good
    Drop {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which of them.
#[derive(Debug, Args)]
struct Which {
    /// The ids, as `list` shows them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<i64>,
    /// All that are there
    #[arg(long)]
    all: bool,
}

const AFTER: &str = "\
A count that its counter cannot take (the sum would leave the range of 64 bits, the
stored value is no number) waits in the journal. `retry` and `drop` need the journal
for themselves: stop the process that counts first.

`retry` sends the counts as a batch of the journal, after whatever an earlier process
has left there. However it ends, a count is in the store once, or still in the
journal. What still cannot be added is quarantined again: exit code 6.

Examples:
  countem quarantine list
  countem quarantine retry 3 4
  countem quarantine drop --all --yes --journal /var/lib/countem/journal";

impl Quarantine {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let Self { action, journal } = self;
        let effective = Effective::load(global)?;
        // Chosen before the journal is opened for writing, which may quarantine more: nobody has seen that yet.
        let entries = journal.read(&effective)?.quarantined()?;
        match action {
            Action::List => list(&entries, global),
            Action::Retry(which) => {
                let chosen = which.choose(entries)?;
                let (journal, recovered) = journal.open(&effective, Duration::ZERO)?;
                retry(chosen, &journal, recovered, &effective, global)
            }
            Action::Drop { which, yes } => {
                let chosen = which.choose(entries)?;
                if !yes && io::stdin().is_terminal() {
                    let advice = "add `--yes` if that is meant";
                    let text = format!("{} counts would be given up for good: {advice}", chosen.len());
                    return Err(UsageError::new(text).into());
                }
                let (journal, _left_where_it_is) = journal.open(&effective, Duration::ZERO)?;
                let dropped = journal.drop_quarantined_blocking(select(&chosen))?;
                print(dropped.iter().map(|entry| (entry, "dropped".to_owned())), global)?;
                Ok(Exit::Ok)
            }
        }
    }
}

impl Which {
    fn choose(&self, mut entries: Vec<QuarantineEntry>) -> Result<Vec<QuarantineEntry>> {
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

fn select(entries: &[QuarantineEntry]) -> Selection {
    Selection::Ids(entries.iter().map(|entry| entry.id).collect())
}

/// A quarantined count, as it is written in JSON.
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

fn list(entries: &[QuarantineEntry], global: &Global) -> Result<Exit> {
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
    listing.print(global.output, &json)?;
    Ok(Exit::Ok)
}

fn retry(
    chosen: Vec<QuarantineEntry>,
    journal: &Journal,
    recovered: Recovered,
    effective: &Effective,
    global: &Global,
) -> Result<Exit> {
    let (pending, refused) = block_on(async {
        let store = effective.open().await?;
        // A store that is away is noticed before anything leaves its place.
        store.collections().await?;
        claim(&*store, journal).await?;
        let lanes = recovered.lanes;
        let sent = async {
            deliver(recovered, &*store, journal, effective).await?;
            let mut refused = Vec::new();
            let retried = journal
                .retry_quarantined_blocking(select(&chosen), move |name| countem::lane_of(name, lanes))?;
            let pending: BTreeSet<_> = retried.iter().map(|retried| retried.entry.id).collect();
            for batch in journal::freeze(journal, &effective.settings)? {
                let applied = journal::settle(&*store, journal, &batch, &effective.settings).await?;
                refused.extend(applied.quarantined.into_iter().map(keyed));
            }
            Ok::<_, anyhow::Error>((pending, refused))
        };
        sent.await.context("what is not in the store stays in the journal and is sent next time")
    })?;
    let mut all_stored = true;
    let results = chosen.iter().map(|entry| {
        let result = if !pending.contains(&entry.id) {
            "still quarantined: with the others it leaves the range".to_owned()
        } else if let Some((_, reason)) =
            refused.iter().find(|(key, _)| *key == keyed(entry.quarantined.clone()).0)
        {
            format!("quarantined again: {reason}")
        } else {
            return (entry, "stored".to_owned());
        };
        all_stored = false;
        (entry, result)
    });
    print(results.collect::<Vec<_>>(), global)?;
    Ok(if all_stored { Exit::Ok } else { Exit::Partly })
}

/// Takes a new identity when another process has that of this journal, which then was copied.
async fn claim(store: &dyn Store, journal: &Journal) -> Result<()> {
    if store.register(&journal.writer()).await? == Registration::Cloned {
        // The original has the same counts pending, or has stored them.
        journal.quarantine_pending_blocking("found in a copy of another node's journal")?;
        journal.fresh_identity_blocking()?;
    }
    Ok(())
}

/// Delivers what earlier processes have frozen.
async fn deliver(
    recovered: Recovered,
    store: &dyn Store,
    journal: &Journal,
    effective: &Effective,
) -> Result<()> {
    let mut refused = 0;
    for batch in recovered.frozen {
        let batch = Arc::new(batch);
        refused += journal::settle(store, journal, &batch, &effective.settings).await?.quarantined.len();
    }
    if refused > 0 {
        say(format_args!("{refused} counts of an earlier process were quarantined"));
    }
    Ok(())
}

/// Collection, metric and bucket.
type Key = (String, String, Bucket);

fn keyed(quarantined: Quarantined) -> (Key, String) {
    let Quarantined { collection, metric, bucket, reason, .. } = quarantined;
    ((collection, metric, bucket), reason)
}

/// What became of a count, as it is written in JSON.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    id: i64,
    collection: &'a str,
    metric: &'a str,
    bucket: String,
    n: i64,
    result: String,
}

#[derive(Debug, Serialize)]
struct Outcomes<'a> {
    results: Vec<Outcome<'a>>,
}

fn print<'a>(
    results: impl IntoIterator<Item = (&'a QuarantineEntry, String)>,
    global: &Global,
) -> Result<()> {
    let mut listing = Listing::new(&["id", "collection", "metric", "bucket", "n", "result"]);
    let mut json = Outcomes { results: Vec::new() };
    for (QuarantineEntry { id, quarantined, .. }, result) in results {
        let Quarantined { collection, metric, bucket, n, .. } = quarantined;
        let bucket = bucket.to_string();
        listing.push([
            Cell::Number(*id),
            collection.as_str().into(),
            metric.as_str().into(),
            bucket.as_str().into(),
            (*n).into(),
            result.as_str().into(),
        ]);
        json.results.push(Outcome { id: *id, collection, metric, bucket, n: *n, result });
    }
    listing.print(global.output, &json)
}
