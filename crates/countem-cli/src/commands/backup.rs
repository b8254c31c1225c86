//! `countem backup`

use std::{path::PathBuf, sync::Arc};

use anyhow::{Result, bail};
use clap::Args;
use countem_core::Bucket;
use countem_store_sqlite::{SqliteConfig, backup};
use countem_transfer::Digest;

use crate::{
    exit::{Exit, UsageError},
    global::Global,
    output::say,
    progress::{Bar, Goal, Meters},
    store::{Effective, block_on},
    transfer::new_file::NewFile,
};

/// Copy a SQLite store, which may be counted meanwhile, to a new file
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Backup {
    /// The new file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

const AFTER: &str = "\
Examples:
  countem backup countem-2026-11-20.db
  countem get web --store sqlite://countem-2026-11-20.db

The file holds one state of the store, everything in it included. Its counters are
compared by digest with those of this state, and it gets its name once it is complete.
Counts that are pending in a journal are not in it.";

impl Backup {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        let Some(from) = effective.config.store_uri().expose().strip_prefix("sqlite://") else {
            return Err(UsageError::new(match effective.config.store_uri().scheme() {
                "countem" => {
                    "a backup is of a file: make it where that countem keeps its file, or use `countem copy`"
                }
                _ => "a backup is of a SQLite file: for other stores, use `countem copy`",
            })
            .into());
        };
        effective.require_store()?;
        let file = NewFile::new(&self.file, true)?;
        // Checks that the file is a store.
        block_on(async { Ok(effective.open_for_reading().await?) })?;
        let meters = Arc::new(Meters::default());
        let bar = Bar::start(global.quiet, &meters, Goal::Uncounted, "counters compared");
        let add = |digest: &mut Digest, (collection, bucket, metric, value): (&str, Bucket, &str, i64)| {
            digest.add(collection, bucket, metric, value);
            meters.handle(1);
        };
        let (mut digest, mut copied) = (Digest::default(), Digest::default());
        backup::create(&SqliteConfig::new(from), file.part(), |counter| add(&mut digest, counter))?;
        backup::read(file.part(), |counter| add(&mut copied, counter))?;
        drop(bar);
        if copied != digest {
            bail!(
                "`{}` would not hold what the store holds: its digest is {copied}, that of the store {digest}; nothing was kept",
                self.file.display()
            );
        }
        file.complete()?;
        if !global.quiet {
            say(format_args!("countem: backed up {} counters, digest {digest}", digest.counters()));
        }
        Ok(Exit::Ok)
    }
}
