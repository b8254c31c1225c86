//! `countem doctor`

use std::{
    fs::{File, TryLockError},
    io::{self, Write as _},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use anyhow::Result;
use clap::Args;
use countem_config::DurabilityLevel;
use countem_core::{
    ScheduleConfig,
    jiff::{SignedDuration, Timestamp},
};
use countem_engine::{
    Corrections,
    maintenance::{self, AuditReport, MissingBatch, held_by_store},
};
use countem_journal::JournalReader;
use countem_store::{ErrorKind, Store, StoreError};

use crate::{
    commands::journal::{self, JournalFlag},
    exit::{Exit, exit_of},
    global::Global,
    output::{Format, Listing, grouped, shown},
    store::{Effective, STORE_MEMORY, block_on},
};

/// Check the configuration, the store and the journal
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Doctor {
    /// Compare the batches that the journal keeps with the store, too
    #[arg(long)]
    audit: bool,
    /// Do not read the stored counters
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    journal: JournalFlag,
}

const AFTER: &str = "\
No count is changed, and a process that uses the journal is not disturbed. A SQLite
store is opened as always: an older file, or an empty one, gets the tables of this
version.

Every stored counter is read, and of a SQLite file every page (`PRAGMA integrity_check`);
`--quick` leaves that out.

`--audit` reads, for every batch in the journal, its counters from the store twice: as
they are, and as they would be if the batch were in flight, which adds it unless the
store's bookkeeping says that it is there. Equal values mean that the store has the
batch. A stored batch that is missing is a failure, one that waits to be sent is not.
The audit does not cover batches whose amounts are all zero, batches that are not kept
any more (`durability.keep_resolved`), and does not check whether the
values themselves were changed by hand. A store is sure to remember a batch for 47 hours:
older ones are not compared. If the store's bookkeeping of a writer was removed otherwise,
its batches look as if they were missing.

Exit codes: 0 no failure (there may be warnings), 1 a failure,
4 the store cannot be reached.

Examples:
  countem doctor
  countem doctor --audit --journal /var/lib/countem/journal -o json";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warn,
    Fail,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    fn warn_if(condition: bool) -> Self {
        if condition { Self::Warn } else { Self::Ok }
    }
}

/// One line of the report.
#[derive(Debug)]
struct Finding {
    state: State,
    about: &'static str,
    text: String,
}

/// The report.
#[derive(Debug, Default)]
struct Findings {
    findings: Vec<Finding>,
    is_unreachable: bool,
}

impl Doctor {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let mut findings = Findings::default();
        match Effective::load(global) {
            Ok(effective) => {
                let file = effective.config.file().map(|file| format!("`{}`", file.display()));
                findings.ok("configuration", file.unwrap_or_else(|| "no file, built-in defaults".to_owned()));
                block_on(self.examine(&effective, &mut findings))?;
            }
            Err(error) => error.to_string().lines().for_each(|line| findings.fail("configuration", line)),
        }
        findings.print(global.output)?;
        Ok(findings.exit())
    }

    async fn examine(&self, effective: &Effective, findings: &mut Findings) -> Result<()> {
        let store = examine_store(effective, findings).await;
        if let Some(store) = store.as_ref().filter(|_| !self.quick) {
            match maintenance::scan(&**store).await {
                Ok(report) => {
                    let damage = &report.damage;
                    damage.iter().take(MAX_LISTED).for_each(|words| findings.fail("counters", words));
                    let (counters, bad) = (grouped(report.counters), damage.len());
                    match bad {
                        0 => findings.ok("counters", format!("{counters} were read")),
                        _ => findings.fail("counters", format!("{bad} kinds of damage were found")),
                    }
                }
                Err(error) => findings.error("counters", &error.into()),
            }
        }
        if let Some(store) = &store
            && let Err(error) = examine_schedule(effective, &**store, findings).await
        {
            findings.error("schedule", &error.into());
        }
        if let Some(store) = &store {
            examine_corrections(effective, store, findings).await;
        }
        let Some(reader) = self.examine_journal(effective, findings) else { return Ok(()) };
        if self.audit {
            match &store {
                Some(store) => {
                    if let Err(error) = audit(&reader, &**store, effective.remembered_since(), findings).await
                    {
                        findings.error("audit", &error);
                    }
                }
                None => findings.fail("audit", "there is no store to compare with"),
            }
        }
        Ok(())
    }

    fn examine_journal(&self, effective: &Effective, findings: &mut Findings) -> Option<JournalReader> {
        let dir = self.journal.dir(effective);
        let shown = dir.display();
        if !journal::exists(dir) {
            if self.journal.journal.is_some() {
                findings.fail("journal", format!("there is none in `{shown}`"));
            } else if effective.config.durability().level == DurabilityLevel::Journal {
                findings.warn("journal", format!("there is none in `{shown}` yet"));
            } else {
                findings.ok("journal", "none, as `durability.level` is `memory`");
            }
            return None;
        }
        let user = user_of(dir);
        findings.ok(
            "journal",
            match &user {
                Some(user) => format!("`{shown}` is in use by {user}"),
                None => format!("`{shown}` is not in use"),
            },
        );
        let reader = match JournalReader::open(dir).and_then(|reader| reader.verify().map(|()| reader)) {
            Ok(reader) => reader,
            Err(error) => {
                findings.fail("journal", error);
                return None;
            }
        };
        let max_bytes = effective.config.durability().max_bytes;
        if let Err(error) = examine_contents(&reader, user.is_some(), max_bytes, findings) {
            findings.fail("journal", error);
        }
        Some(reader)
    }
}

async fn examine_corrections(effective: &Effective, store: &Arc<dyn Store>, findings: &mut Findings) {
    let corrections = Corrections::new(Arc::clone(store), Arc::clone(&effective.schedules));
    match corrections.history(None).await {
        Ok(entries) => match entries.iter().find(|entry| !entry.is_finished) {
            Some(open) => findings.warn(
                "corrections",
                format!(
                    "{} ({open}) has begun and is not finished; any command that reads or counts finishes it",
                    open.id
                ),
            ),
            None if entries.is_empty() => {}
            None => findings.ok("corrections", format!("{}, all finished", entries.len())),
        },
        Err(error) => findings.error("corrections", &error.into()),
    }
}

async fn examine_store(effective: &Effective, findings: &mut Findings) -> Option<Arc<dyn Store>> {
    if effective.lacks_store() {
        findings.warn("store", format!("there is no `{}` yet", effective.config.store_uri()));
        return None;
    }
    let store = match effective.open_as_it_is().await {
        Ok(store) => store,
        Err(error) => {
            findings.error("store", &error.into());
            return None;
        }
    };
    let checked = match store.check().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            findings
                .ok("store", format!("`{}` can be read, and not be written by this user", store.location()));
            Ok(())
        }
        Ok(()) => {
            findings.ok("store", format!("`{}` can be reached and used", store.location()));
            Ok(())
        }
        failed => failed,
    };
    match checked {
        Ok(()) => {
            match held_by_store(&*store).await {
                Ok(held) if held.is_empty() => {}
                Ok(held) => {
                    let increments = held.iter().map(|(_, held)| held.quarantined.increments).sum();
                    let text = format!("{} increments in {} counts", grouped(increments), held.len());
                    findings
                        .warn("quarantined", format!("{text} in the store; see `countem quarantine list`"));
                }
                Err(error) => findings.error("quarantined", &error.into()),
            }
            Some(store)
        }
        Err(error) => {
            findings.error("store", &error.into());
            None
        }
    }
}

/// Shows the schedule of the store with its history, and whether this configuration may count by it.
async fn examine_schedule(
    effective: &Effective,
    store: &dyn Store,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let Some(recorded) = store.schedules().await? else {
        let unrecorded = effective.schedules.to_string();
        findings.ok("schedule", format!("none recorded yet; this configuration begins with `{unrecorded}`"));
        return Ok(());
    };
    recorded.to_string().lines().for_each(|era| findings.ok("schedule", format!("since {era}")));
    let wanted = ScheduleConfig { change: false, ..effective.engine.schedule.clone() };
    if let Err(conflict) = wanted.reconcile(&recorded, Timestamp::now(), SignedDuration::ZERO) {
        findings.warn("schedule", format!("counting is refused: {conflict}"));
    }
    Ok(())
}

fn examine_contents(
    reader: &JournalReader,
    is_in_use: bool,
    max_bytes: u64,
    findings: &mut Findings,
) -> Result<()> {
    let summary = reader.summary()?;
    let (writer, tick) = (&summary.writer, summary.tick);
    findings.ok("journal", format!("undamaged up to transaction {tick}, of writer `{writer}`"));
    let (pending, frozen) = (summary.pending, summary.frozen);
    let waits = if is_in_use { "" } else { "; its process stores them when it starts" };
    findings.add(
        State::warn_if(!is_in_use && pending.counters > 0),
        "pending",
        format!(
            "{} increments in {} counters{}",
            grouped(pending.increments),
            grouped(pending.counters),
            if pending.counters > 0 { waits } else { "" }
        ),
    );
    findings.add(
        State::warn_if(!is_in_use && frozen.batches > 0),
        "frozen",
        format!(
            "{} increments in {} batches{}",
            grouped(frozen.increments),
            grouped(frozen.batches),
            if frozen.batches > 0 { waits } else { "" }
        ),
    );
    let undecided = summary.undecided;
    if undecided.batches > 0 {
        let (requests, increments) = (grouped(undecided.batches), grouped(undecided.increments));
        let text = format!(
            "{requests} requests with idempotency keys, {increments} increments, are not counted yet"
        );
        findings.add(State::warn_if(!is_in_use), "undecided", text);
    }
    let quarantined = summary.quarantined;
    let advice = if quarantined.counters > 0 { "; see `countem quarantine list`" } else { "" };
    findings.add(
        State::warn_if(quarantined.counters > 0),
        "quarantined",
        format!(
            "{} increments in {} counts{advice}",
            grouped(quarantined.increments),
            grouped(quarantined.counters)
        ),
    );
    let resolved = summary.resolved;
    findings.ok(
        "stored",
        format!(
            "{} increments in {} batches are kept for a replay",
            grouped(resolved.increments),
            grouped(resolved.batches)
        ),
    );
    let bytes = summary.file_bytes + summary.log_bytes;
    findings.add(
        State::warn_if(bytes > max_bytes / 10 * 9),
        "size",
        format!("{} of {} bytes (`durability.max_bytes`)", grouped(bytes), grouped(max_bytes)),
    );
    Ok(())
}

/// Returns the process that uses the journal. Tries the lock in shared mode, so that concurrent callers do not see each other.
fn user_of(dir: &Path) -> Option<String> {
    let file = File::open(dir.join("journal.lock")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let pid = io::read_to_string(file).unwrap_or_default();
            let pid = pid.trim();
            Some(if pid.is_empty() { "another process".to_owned() } else { format!("process {pid}") })
        }
        _ => None,
    }
}

/// Maximum number of missing batches that are listed.
const MAX_LISTED: usize = 10;

/// Looks up every batch of the journal in the store.
async fn audit(
    reader: &JournalReader,
    store: &dyn Store,
    remembered_since: SystemTime,
    findings: &mut Findings,
) -> Result<()> {
    let report = maintenance::audit(reader, store, remembered_since).await?;
    for MissingBatch { id, is_partial, .. } in report.missing.iter().take(MAX_LISTED) {
        let what = if *is_partial { "the store has only a part of" } else { "the store lacks" };
        findings.fail("audit", format!("{what} batch `{id}`, which the journal knows as stored"));
    }
    if !report.missing.is_empty() {
        let advice = "if the store was restored to an older point, see `countem replay --help`";
        findings.fail("audit", format!("{} stored batches are missing; {advice}", report.missing.len()));
    }
    let AuditReport { stored, unknown, too_old, frozen, arrived, .. } = report;
    findings
        .ok("audit", format!("{stored} stored batches are in the store, of {unknown} reading does not tell"));
    if too_old > 0 {
        let hours = STORE_MEMORY.as_secs() / 3600;
        let why = format!("the store may have forgotten what it got more than {hours} hours ago");
        findings.warn("audit", format!("{too_old} stored batches were not compared: {why}"));
    }
    findings.ok(
        "audit",
        format!("{arrived} of {frozen} batches that wait for an answer are in the store already"),
    );
    Ok(())
}

impl Findings {
    fn add(&mut self, state: State, about: &'static str, text: impl ToString) {
        self.findings.push(Finding { state, about, text: text.to_string() });
    }

    fn ok(&mut self, about: &'static str, text: impl ToString) {
        self.add(State::Ok, about, text);
    }

    fn warn(&mut self, about: &'static str, text: impl ToString) {
        self.add(State::Warn, about, text);
    }

    fn fail(&mut self, about: &'static str, text: impl ToString) {
        self.add(State::Fail, about, text);
    }

    fn error(&mut self, about: &'static str, error: &anyhow::Error) {
        self.is_unreachable |= exit_of(error) == Exit::Unreachable;
        self.fail(about, format!("{error:#}"));
    }

    fn exit(&self) -> Exit {
        if self.is_unreachable {
            Exit::Unreachable
        } else if self.findings.iter().any(|finding| finding.state == State::Fail) {
            Exit::Failed
        } else {
            Exit::Ok
        }
    }

    fn print(&self, format: Format) -> Result<()> {
        if format == Format::Table {
            let mut out = io::stdout().lock();
            for Finding { state, about, text } in &self.findings {
                writeln!(out, "{:<4}  {about}: {}", state.word(), shown(text))?;
            }
            return Ok(());
        }
        let mut listing = Listing::new(&["state", "about", "text"]);
        for Finding { state, about, text } in &self.findings {
            listing.push([state.word().into(), (*about).into(), text.as_str().into()]);
        }
        listing.print_as(format, "findings")
    }
}
