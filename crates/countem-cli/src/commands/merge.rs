//! `countem merge`

use anyhow::Result;
use clap::Args;
use countem_core::{CollectionName, MetricName};
use countem_engine::Correction;
use countem_query::TimeRange;

use crate::{commands::correction::CorrectionFlags, exit::Exit, global::Global};

/// Add the counts of metrics to those of another one
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Merge {
    /// The collection
    collection: CollectionName,
    /// The metrics that go
    #[arg(required = true)]
    source: Vec<MetricName>,
    /// The metric that stays
    #[arg(long, value_name = "METRIC")]
    into: MetricName,
    /// Only the counts of this range of time, such as 2015-05, 30d or 2015-05-01..2015-05-17
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    range: Option<TimeRange>,
    #[command(flatten)]
    flags: CorrectionFlags,
}

const AFTER: &str = "\
Everything is merged or nothing, also if this command is killed: the next one that reads
the store finishes it. The sum of every bucket stays the same. Counts that services add
meanwhile, or have not flushed yet, stay under their names.

Examples:
  countem merge web 'GET 301' 'GET 302' --into 'GET moved' --reason 'one kind of redirect'";

impl Merge {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let Self { collection, source: from, into: to, range, flags } = self;
        flags.run(global, async |_, _, _| Ok(Correction::Merge { collection, from, to, range }))
    }
}
