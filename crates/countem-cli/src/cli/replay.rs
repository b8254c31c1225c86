//! `countem replay`

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use clap::Args;
use countem::journal::{Journal, JournalReader, QuarantineEntry, Record, Selection};
use countem_core::{Batch, BatchId, Writer};
use countem_store::{Quarantined, Store};
use serde::Serialize;

use crate::{
    cli::Global,
    exit::{Exit, NotFound, UsageError},
    ingest::time::{TimeFormat, Times},
    journal::{self, JournalFlag},
    output::{Listing, say},
    presence::{self, Presence},
    store::{Effective, REMEMBERED, block_on},
};

/// Send stored batches again, to a store that was restored to an older point
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Replay {
    #[command(flatten)]
    journal: JournalFlag,
    /// Only what was stored at this time or later: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIMESTAMP")]
    since: Option<String>,
    /// Only say what the store lacks, also beside a running process
    #[arg(long)]
    dry_run: bool,
}

const AFTER: &str = "\
The journal keeps what it has stored for `durability.keep_resolved`. All of it that is
still there, and what is not stored yet, is sent in the order of (epoch, lane, seq)
under its old identity. A batch that the store has is not added again, so a replay may
be repeated, and ended at any time.

MongoDB is sure to know a batch for 47 hours only, and a journal whose process was
stopped for longer still has older ones. These are not sent, because weeks, months,
years and `all` could count them twice. Whoever replays within 47 hours leaves none out.

This relies on the store's own bookkeeping (the table `applied` of SQLite, the field `w`
of MongoDB's documents) being restored together with the counters. A process ends
without clearing its bookkeeping as long as `durability.keep_resolved` is more than 0;
where it was 0 meanwhile, a replay could count twice.

Do it in this order: stop the process that counts, restore the store, replay, start the
process again. With several nodes, replay the journal of each. Batches of one that went
on counting into the restored store cannot be told from those that are there.

Which batches were there is found out by reading, as far as that can tell: a batch whose
amounts are all zero says nothing and counts as unknown. `--since` has to lie before the
point to which the store was restored; if a batch before it is missing, nothing is sent.

Exit code 6: everything was sent that can be, but older batches may be missing, which
are not kept any more or too old; or a count could not be added and is quarantined.

Examples:
  countem replay --dry-run
  countem replay --journal /var/lib/countem/journal";

/// What a replay has done.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Batches that the store lacked.
    sent: i64,
    /// Batches that it had.
    already_there: i64,
    /// Batches of which reading does not tell; they were sent.
    unknown: i64,
    /// Batches that the store may have forgotten; they were neither sent nor looked for.
    too_old: i64,
    /// Batches that could not be sent, and those after them.
    failed: i64,
    /// Counts that could not be added.
    quarantined: i64,
    dry_run: bool,
}

impl Replay {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        let since = self.since(&effective)?;
        if self.dry_run && effective.lacks_store() {
            return Err(NotFound::new(format!("there is no store `{}`", effective.config.store_uri())).into());
        }
        // A dry run takes no lock and changes nothing.
        let journal = match self.dry_run {
            true => None,
            // Nothing that is kept may go while it is sent.
            false => Some(self.journal.open(&effective, Duration::MAX)?.0),
        };
        let reader = self.journal.read(&effective)?;
        let kept = Kept::read(&reader, since, effective.remembered_since())?;
        let run = Run { journal, kept, reader, effective };
        let mut report = Report { dry_run: self.dry_run, ..Report::default() };
        let outcome = block_on(run.all(&mut report));
        let mut listing =
            Listing::new(&["sent", "already_there", "unknown", "too_old", "failed", "quarantined"]);
        listing.push([
            report.sent.into(),
            report.already_there.into(),
            report.unknown.into(),
            report.too_old.into(),
            report.failed.into(),
            report.quarantined.into(),
        ]);
        listing.print(global.output, &report)?;
        outcome
    }

    fn since(&self, effective: &Effective) -> Result<SystemTime> {
        let Some(text) = &self.since else { return Ok(UNIX_EPOCH) };
        let second = Times::new(TimeFormat::Auto, effective.calendar.zone().clone()).second(text.as_bytes());
        let second = second.and_then(|second| u64::try_from(second).ok());
        let second = second.ok_or_else(|| UsageError::new(format!("`{text}` is not a time since 1970")))?;
        Ok(UNIX_EPOCH + Duration::from_secs(second))
    }
}

/// The batches of a journal, in the order in which they are to be sent.
struct Kept {
    send: Vec<BatchId>,
    /// What was stored before the time that was asked for.
    skip: Vec<BatchId>,
    /// What was asked for, and may be forgotten by the store.
    too_old: Vec<BatchId>,
    /// Those that are not known to be in the store.
    unresolved: BTreeSet<BatchId>,
}

impl Kept {
    /// Reads what was stored `since`, for a store that knows all that it got after `remembered`.
    fn read(reader: &JournalReader, since: SystemTime, remembered: SystemTime) -> Result<Self> {
        let frozen = reader.frozen()?;
        let unresolved: BTreeSet<_> = frozen.iter().map(|batch| batch.id().clone()).collect();
        let mut batches: Vec<_> = unresolved.iter().map(|id| (id.clone(), true)).collect();
        let (known, too_old) = journal::part(reader.resolved(UNIX_EPOCH)?, remembered);
        let too_old = too_old.into_iter().filter(|batch| batch.at >= since).map(|batch| batch.id).collect();
        batches.extend(known.into_iter().map(|batch| (batch.id, batch.at >= since)));
        batches.sort_by_key(|(id, _)| (id.writer.epoch(), id.lane, id.seq, id.writer.node()));
        let (mut send, mut skip, mut begun) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (id, is_wanted) in batches {
            let lane = (id.writer.clone(), id.lane);
            // Nothing is left out after the first of a lane, whatever the clock was when it was stored.
            if is_wanted || begun.contains(&lane) {
                begun.insert(lane);
                send.push(id);
            } else {
                skip.push(id);
            }
        }
        Ok(Self { send, skip, too_old, unresolved })
    }

    /// Returns the first batch to send of each writer's lane.
    fn firsts(&self) -> BTreeMap<(&Writer, u16), &BatchId> {
        self.send.iter().rev().map(|id| ((&id.writer, id.lane), id)).collect()
    }
}

struct Run {
    /// None in a dry run.
    journal: Option<Journal>,
    reader: JournalReader,
    kept: Kept,
    effective: Effective,
}

impl Run {
    async fn all(&self, report: &mut Report) -> Result<Exit> {
        let store = self.effective.open().await?;
        self.check_skipped(&*store).await?;
        let firsts = self.kept.firsts();
        report.too_old = count(self.kept.too_old.len());
        let mut may_lack = 0;
        // What is there was stored after all that came before it in its lane.
        let mut proven = BTreeSet::new();
        for (at, id) in self.kept.send.iter().enumerate() {
            let presence = match self.one(&*store, id, report).await {
                Ok(presence) => presence,
                Err(error) => {
                    report.failed = count(self.kept.send.len() - at);
                    let advice = "what follows was not sent, so that nothing is left out; replay again";
                    return Err(error.context(format!("cannot replay batch `{id}`: {advice}")));
                }
            };
            *match presence {
                Presence::There => &mut report.already_there,
                Presence::Missing | Presence::Partly => &mut report.sent,
                Presence::Unknown => &mut report.unknown,
            } += 1;
            let is_first = firsts.get(&(&id.writer, id.lane)) == Some(&id);
            if is_first && presence == Presence::There {
                proven.insert((&id.writer, id.lane));
            }
            if is_first
                && id.seq > 1
                && presence != Presence::There
                && self.skipped_before(id).next().is_none()
            {
                may_lack += 1;
            }
        }
        if may_lack > 0 {
            say(format_args!(
                "the store lacked the oldest batch that can be sent, in {may_lack} lanes: \
                 older ones may be missing, too"
            ));
        }
        let unproven = self.say_too_old(|id| proven.contains(&(&id.writer, id.lane)));
        Ok(if may_lack > 0 || unproven > 0 || report.quarantined > 0 { Exit::Partly } else { Exit::Ok })
    }

    /// Says which batches are too old to be sent, and returns how many of them may be missing.
    fn say_too_old(&self, is_there: impl Fn(&BatchId) -> bool) -> usize {
        let too_old = &self.kept.too_old;
        let unproven = too_old.iter().filter(|id| !is_there(id)).count();
        if !too_old.is_empty() {
            say(format_args!(
                "{} batches were stored more than {} hours ago and cannot be replayed safely any more: the store may \
                 have forgotten that it has them, and would count them twice. {unproven} of them may be missing",
                too_old.len(),
                REMEMBERED.as_secs() / 3600,
            ));
        }
        unproven
    }

    /// Sends one batch, and returns what the store had of it before.
    async fn one(&self, store: &dyn Store, id: &BatchId, report: &mut Report) -> Result<Presence> {
        let batch = Arc::new(self.batch(id)?);
        let presence = presence::of(store, &batch).await?;
        let Some(journal) = &self.journal else { return Ok(presence) };
        let settings = &self.effective.settings;
        if self.kept.unresolved.contains(id) {
            let applied = journal::settle(store, journal, &batch, settings).await?;
            report.quarantined += count(applied.quarantined.len());
        } else {
            let applied = journal::send(store, &batch, settings).await?;
            if presence != Presence::There {
                report.quarantined += self.requarantine(journal, &batch, presence, applied.quarantined)?;
            }
        }
        Ok(presence)
    }

    /// Brings the quarantine in line with what a restored store could and could not add of a batch.
    ///
    /// What it could not add the first time either is in quarantine already. Returns how many counts were not.
    fn requarantine(
        &self,
        journal: &Journal,
        batch: &Batch,
        presence: Presence,
        refused: Vec<Quarantined>,
    ) -> Result<i64> {
        let entries = self.reader.quarantined()?;
        let is_of_batch = |entry: &&QuarantineEntry| entry.batch.as_ref() == Some(batch.id());
        let stored_now = entries.iter().filter(is_of_batch).filter(|entry| {
            presence == Presence::Missing && refused.iter().all(|other| !same(other, &entry.quarantined))
        });
        let ids: Vec<_> = stored_now.map(|entry| entry.id).collect();
        if !ids.is_empty() {
            journal.drop_quarantined_blocking(Selection::Ids(ids))?;
        }
        let mut quarantined = Vec::new();
        for refused in refused {
            let reason = format!(
                "{}; refused in a replay of batch {}, may have been retried since",
                refused.reason,
                batch.id()
            );
            let again = Quarantined { reason, ..refused };
            let is_known = |entry: &QuarantineEntry| {
                same(&again, &entry.quarantined)
                    && (is_of_batch(&entry) || entry.quarantined.reason == again.reason)
            };
            if !entries.iter().any(is_known) {
                quarantined.push(again);
            }
        }
        let new = count(quarantined.len());
        if new > 0 {
            journal.record_blocking(Record { quarantined, ..Record::default() })?;
        }
        Ok(new)
    }

    /// Checks that no batch before the time that was asked for is missing: once a later one of its lane is stored, the store
    /// takes it for a late copy.
    async fn check_skipped(&self, store: &dyn Store) -> Result<()> {
        for first in self.kept.firsts().into_values() {
            for id in self.skipped_before(first) {
                match presence::of(store, &self.batch(id)?).await? {
                    Presence::Unknown => {}
                    // What is there was stored after all that came before it in its lane.
                    Presence::There => break,
                    Presence::Missing | Presence::Partly => {
                        let text = format!("the store lacks batch `{id}`, which is older than `--since`");
                        return Err(UsageError::new(format!("{text}; name an earlier time")).into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Lists the batches of the same lane that are left out, the newest first.
    fn skipped_before(&self, first: &BatchId) -> impl Iterator<Item = &BatchId> {
        let is_before =
            |id: &&BatchId| id.writer == first.writer && id.lane == first.lane && id.seq < first.seq;
        self.kept.skip.iter().rev().filter(is_before)
    }

    fn batch(&self, id: &BatchId) -> Result<Batch> {
        self.reader.batch(id)?.with_context(|| format!("the journal does not keep batch `{id}` any more"))
    }
}

/// Tells whether two quarantined deltas are of the same counter and amount.
fn same(a: &Quarantined, b: &Quarantined) -> bool {
    a.delta() == b.delta()
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
