//! `countem history`

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use countem_core::CollectionName;
use countem_engine::Corrections;

use crate::{
    commands::correction::{explained, print_entries},
    exit::Exit,
    global::Global,
    store::{Effective, Timeout},
};

/// List the corrections of a store, the oldest first
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct History {
    /// Only those of this collection
    collection: Option<CollectionName>,
    /// Only the last ones
    #[arg(short, value_name = "NUMBER")]
    n: Option<usize>,
    #[command(flatten)]
    timeout: Timeout,
}

const AFTER: &str = "\
The log is in the store, beside the counts: a correction and its entry are both there, or
neither is.

Examples:
  countem history
  countem history web -n 1 -o json";

impl History {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load_within(global, &self.timeout)?;
        effective.require_store()?;
        self.timeout.block_on(async {
            let store = effective.open_for_reading().await?;
            let corrections = Corrections::new(store, Arc::clone(&effective.schedules));
            let mut entries = corrections.history(self.collection.as_ref()).await.map_err(explained)?;
            if let Some(n) = self.n {
                entries.drain(..entries.len().saturating_sub(n));
            }
            print_entries(&entries, global, false)?;
            Ok(Exit::Ok)
        })
    }
}
