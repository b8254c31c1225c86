//! `countem adopt`

use std::{path::PathBuf, sync::Arc};

use anyhow::{Result, bail};
use clap::Args;
use countem_engine::{Clock, Durability, Engine};

use crate::{
    commands::journal,
    exit::{Exit, NotFound},
    global::Global,
    output::say,
    store::{Effective, Timeout, block_on},
};

/// Store what the journal of a dead node still has
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Adopt {
    /// The directory of the journal
    dir: PathBuf,
    #[command(flatten)]
    timeout: Timeout,
}

const AFTER: &str = "\
For a node that does not come back: its disk is mounted elsewhere, or was copied. What it
had acknowledged and not stored yet is stored under its own identities, once, also if the
node is started later after all, or the journal is adopted twice: the store knows what
it has. A journal that a process has open is left alone.

Exit code 6: not everything could be stored; it stays in the journal.

Examples:
  countem adopt /mnt/dead-node/countem-journal --store mongodb://db/countem";

impl Adopt {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let mut effective = Effective::load_within(global, &self.timeout)?;
        if !journal::exists(&self.dir) {
            return Err(NotFound::new(format!("there is no journal in `{}`", self.dir.display())).into());
        }
        let durability = effective.config.durability();
        let options =
            countem_journal::JournalConfig { dir: self.dir.clone(), ..durability.to_journal_config() };
        effective.engine.durability = Durability::Journal { options, tick: durability.tick };
        effective.engine.store_required = true;
        effective.engine.shutdown_deadline = self.timeout.limit();
        let config = effective.engine.clone();
        let report = block_on(async {
            let store = effective.open().await?;
            let engine = Engine::start(config, Clock::System, async move { Ok(Arc::clone(&store)) }).await?;
            Ok(engine.shutdown().await)
        })?;
        if !report.is_balanced() {
            bail!("the report does not add up: {report}");
        }
        if !global.quiet {
            say(format_args!("countem: {report}"));
        }
        Ok(if report.is_complete() { Exit::Ok } else { Exit::Partly })
    }
}
