//! `countem rename`

use anyhow::Result;
use clap::Args;
use countem_core::{CollectionName, MetricName};
use countem_engine::Correction;
use countem_query::TimeRange;

use crate::{commands::correction::CorrectionFlags, exit::Exit, global::Global};

/// Give the counts of a metric another name
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Rename {
    /// The collection
    collection: CollectionName,
    /// The metric
    old: MetricName,
    /// Its new name, which has no counts yet
    new: MetricName,
    /// Only the counts of this range of time, such as 2015-05, 30d or 2015-05-01..2015-05-17
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<TimeRange>,
    #[command(flatten)]
    flags: CorrectionFlags,
}

const AFTER: &str = "\
Everything is renamed or nothing, also if this command is killed: the next one that reads
the store finishes it. Counts that services add meanwhile, or have not flushed yet, stay
under the old name: let them count by the new one first, and merge what is left.

Examples:
  countem rename web 'GET 200' 'GET ok' --reason 'new names'
  countem rename web visits visits.old --range 2015 --dry-run";

impl Rename {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let Self { collection, old: from, new: to, range, flags } = self;
        flags.run(global, async |_, _, _| Ok(Correction::Rename { collection, from, to, range }))
    }
}
