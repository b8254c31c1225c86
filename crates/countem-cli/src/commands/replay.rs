//! `countem replay`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Error, Result};
use clap::Args;
use countem_engine::maintenance::{self, MaintenanceError, ReplayReport, journal_config_for_replay};
use countem_lines::{TimeFormat, Times};
use serde_json::json;

use crate::{
    commands::journal::JournalFlag,
    exit::{Exit, NotFound, UsageError},
    global::Global,
    output::{Listing, say},
    store::{Effective, STORE_MEMORY, block_on},
};

/// Send stored batches again, to a store that was restored to an older point
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Replay {
    #[command(flatten)]
    journal: JournalFlag,
    /// Only batches stored at this time or later: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIMESTAMP")]
    since: Option<String>,
    /// Only count the batches that the store lacks, also beside a running process
    #[arg(long)]
    dry_run: bool,
}

const AFTER: &str = "\
The journal keeps what it has stored for `durability.keep_resolved`. All of it that is
still there, and what is not stored yet, is sent in the order of (epoch, lane, seq)
under its old identity. A batch that the store has is not added again, so a replay may
be repeated, and ended at any time.

A store is sure to remember a batch for 47 hours only, and a journal whose process was
stopped for longer still has older ones. These are not sent, because the store could
count them twice. A replay within 47 hours leaves none out.

This relies on the store's own bookkeeping (the table `applied` of SQLite, the field `w`
of MongoDB's documents) being restored together with the counters. A process ends
without clearing its bookkeeping as long as `durability.keep_resolved` is more than 0;
where it was 0 meanwhile, a replay could count twice.

Do it in this order: stop the process that counts, restore the store, replay, start the
process again. With several nodes, replay the journal of each. Batches of a node that
went on counting into the restored store cannot be told from those that it has.

The store's batches are looked up by reading counters: a batch whose amounts are all zero
changes none of them and counts as unknown. `--since` has to lie before the
point to which the store was restored; if a batch before it is missing, nothing is sent.

Exit code 6: all batches that can be sent were sent, but older ones may be missing, which
are not kept any more or too old; or a count could not be added and is quarantined.

Examples:
  countem replay --dry-run
  countem replay --journal /var/lib/countem/journal";

impl Replay {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        if self.dry_run && effective.lacks_store() {
            return Err(NotFound::new(format!("there is no store `{}`", effective.config.store_uri())).into());
        }
        let since = self.since(&effective)?;
        // A dry run takes no lock and changes nothing.
        let journal = match self.dry_run {
            true => None,
            false => {
                let config = journal_config_for_replay(self.journal.config(&effective));
                Some(self.journal.open(&effective, config)?.0)
            }
        };
        let reader = self.journal.read(&effective)?;
        let (journal, remembered_since) = (journal.as_ref(), effective.remembered_since());
        let replay = maintenance::Replay::new(&reader, journal, &effective.engine, since, remembered_since)?;
        let mut report = ReplayReport::default();
        let replayed = block_on(async {
            let store = effective.open().await?;
            Ok(replay.run(&*store, &mut report).await?)
        });
        self.print(&report, global)?;
        replayed.map_err(|error| explain(error, &report))?;
        Ok(exit_of(&report))
    }

    fn since(&self, effective: &Effective) -> Result<SystemTime> {
        let Some(text) = &self.since else { return Ok(UNIX_EPOCH) };
        let zone = block_on(async { effective.zone().await })?;
        let second = Times::new(TimeFormat::Auto, zone, jiff::Timestamp::now()).second(text.as_bytes());
        let second = second.and_then(|second| u64::try_from(second).ok());
        let second = second.ok_or_else(|| UsageError::new(format!("`{text}` is not a time since 1970")))?;
        Ok(UNIX_EPOCH + Duration::from_secs(second))
    }

    fn print(&self, report: &ReplayReport, global: &Global) -> Result<()> {
        let ReplayReport { sent, already_there, unknown, too_old, failed, quarantined, .. } = *report;
        let mut listing =
            Listing::new(&["sent", "already_there", "unknown", "too_old", "failed", "quarantined"]);
        let numbers = [sent, already_there, unknown, too_old, failed, quarantined];
        listing.push(numbers.map(|n| i64::try_from(n).unwrap_or(i64::MAX).into()));
        let json = json!({
            "sent": sent,
            "already_there": already_there,
            "unknown": unknown,
            "too_old": too_old,
            "failed": failed,
            "quarantined": quarantined,
            "dry_run": self.dry_run,
        });
        listing.print(global.output, &json)
    }
}

/// Adds advice to the error of a replay.
fn explain(error: Error, report: &ReplayReport) -> Error {
    if let Some(MaintenanceError::OlderBatchMissing(id)) = error.downcast_ref() {
        let text =
            format!("the store lacks batch `{id}`, which is older than `--since`; name an earlier time");
        return UsageError::new(text).into();
    }
    match &report.failed_at {
        Some(id) => {
            let advice = "what follows was not sent, so that nothing is left out; replay again";
            error.context(format!("cannot replay batch `{id}`: {advice}"))
        }
        None => error,
    }
}

/// Returns the exit code of a completed replay, and says which batches may be missing.
fn exit_of(report: &ReplayReport) -> Exit {
    let ReplayReport { incomplete_lanes, too_old, too_old_unproven, .. } = *report;
    if incomplete_lanes > 0 {
        say(format_args!(
            "the store lacked the oldest batch that can be sent, in {incomplete_lanes} lanes: \
             older ones may be missing, too"
        ));
    }
    if too_old > 0 {
        let hours = STORE_MEMORY.as_secs() / 3600;
        say(format_args!(
            "{too_old} batches were stored more than {hours} hours ago and cannot be replayed safely any more: the store \
             may have forgotten that it has them, and would count them twice. {too_old_unproven} of them may be missing"
        ));
    }
    let is_complete = incomplete_lanes == 0 && too_old_unproven == 0 && report.quarantined == 0;
    if is_complete { Exit::Ok } else { Exit::Partly }
}
